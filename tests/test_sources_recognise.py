import os
from pathlib import Path

import layouts
import pytest

from fvrid_tools import sources
from fvrid_tools.records import FvridError
from fvrid_tools.sources import recognise

TITLES = {
    "veri-wild": "VERI-Wild",
    "vehicle-1m": "Vehicle-1M",
    "veri": "VeRi-776",
    "vehicleid": "VehicleID",
    "fvrid": "FVRID",
}
WRONG = [(variant, src) for variant, (own, _) in layouts.VARIANTS.items() for src in TITLES if src != own]


def test_all_twenty_pairs_are_tried() -> None:
    assert len({(layouts.VARIANTS[variant][0], src) for variant, src in WRONG}) == 20


@pytest.mark.parametrize(("variant", "src"), WRONG)
def test_another_dataset_is_named_in_one_sentence(tmp_path: Path, variant: str, src: str) -> None:
    own, tree = layouts.VARIANTS[variant]
    with pytest.raises(FvridError) as error:
        sources.read_source(src, layouts.write(tmp_path, tree))
    assert str(error.value) == (
        f"{tmp_path} is not {TITLES[src]} but looks like {TITLES[own]}; take --src {own}, or name another --root."
    )


@pytest.mark.parametrize("variant", layouts.VARIANTS)
def test_its_own_reader_does_not_refuse_it(tmp_path: Path, variant: str) -> None:
    own, tree = layouts.VARIANTS[variant]
    recognise.check(layouts.write(tmp_path, tree), own)


@pytest.mark.parametrize("src", TITLES)
@pytest.mark.parametrize(
    "path", ["red/van/1.jpg", "image_train/van/1.jpg", "images/van/1.jpg", "train_clear/a.jpg", "00001/1.jpg"]
)
def test_an_arrangement_of_ones_own_is_refused_by_none(tmp_path: Path, src: str, path: str) -> None:
    recognise.check(layouts.write(tmp_path, layouts.images(path)), src)


def test_a_folder_that_holds_two_is_refused_by_neither(tmp_path: Path) -> None:
    layouts.write(tmp_path, layouts.VERI_WILD | layouts.VEHICLE_1M)
    recognise.check(tmp_path, "veri-wild")
    recognise.check(tmp_path, "vehicle-1m")
    with pytest.raises(FvridError, match="is not VeRi-776"):
        recognise.check(tmp_path, "veri")


def test_folders_that_cannot_be_read_and_files_in_their_place_are_no_sign(tmp_path: Path) -> None:
    layouts.write(tmp_path, {"images": "", "image": "", "FVRID_syn": "", "image_train": ""})
    for src in TITLES:
        recognise.check(tmp_path, src)


def test_only_a_handful_of_entries_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.write(tmp_path, layouts.images(*(f"image/{number:07d}.jpg" for number in range(1000))))
    taken, scandir = [], os.scandir

    class Counting:
        def __init__(self, path: str) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> "Counting":
            return self

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def __iter__(self) -> "Counting":
            return self

        def __next__(self) -> "os.DirEntry[str]":
            taken.append(next(self.entries))
            return taken[-1]

    monkeypatch.setattr(os, "scandir", Counting)
    with pytest.raises(FvridError, match="looks like VehicleID"):
        recognise.check(tmp_path, "vehicle-1m")
    assert 0 < len(taken) < 300


@pytest.mark.parametrize("src", [name for name in sources.SOURCES if name != "mini"])
def test_a_missing_folder_says_where_the_data_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, src: str
) -> None:
    monkeypatch.setenv(f"FVRID_{src.upper().replace('-', '_')}", str(tmp_path / "nowhere"))
    with pytest.raises(FvridError, match="no such folder") as error:
        sources.read_source(src)
    first, second = str(error.value).splitlines()
    assert str(tmp_path / "nowhere") in first
    assert "--root" in second and "--src mini" in second


def test_what_sources_carry() -> None:
    assert [name for name in sources.SOURCES if sources.carries_depth(name)] == ["fvrid", "mini"]
    assert [name for name in sources.SOURCES if sources.carries_fog(name)] == ["fvrid"]
