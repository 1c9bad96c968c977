import csv
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import mini_layouts
import numpy as np
import pytest
from click.testing import CliRunner

import fvrid_tools
from fvrid_tools import add_fog, build, manifest, shards, sources
from fvrid_tools.cli import cli
from fvrid_tools.files import alone_in
from fvrid_tools.fog import FogRange
from fvrid_tools.records import FvridError, Listing
from fvrid_tools.report import dataset_report
from fvrid_tools.split import write_split

Bytes = dict[str, bytes]


def content(folder: Path) -> Bytes:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def listing(laid_out: Path) -> Listing:
    return sources.read_source("veri-wild", laid_out / "clear")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "IMAGES_PER_SHARD", 10)


def test_fog_can_be_made_again_from_what_is_stored(built: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    errors = []
    for sample in data:
        assert sample.clear is not None
        assert sample.depth is not None
        assert 0.4 <= sample.beta <= 1.6
        assert 0.5 <= sample.airlight <= 1
        again = 255 * add_fog(sample.clear / 255, sample.depth, sample.beta, sample.airlight)
        errors.append(np.abs(again - sample.foggy).mean())
    assert max(errors) < 2  # JPEG's own


def test_lossless_storage_agrees_to_rounding(tmp_path: Path, listing: Listing, recipe: build.Recipe) -> None:
    build.build([listing], tmp_path / "png", replace(recipe, codec="png"))
    for sample in fvrid_tools.open_dataset(tmp_path / "png"):
        again = add_fog(sample.clear / 255, sample.depth, sample.beta, sample.airlight)
        assert np.abs(again - sample.foggy / 255).max() <= 1 / 255


def test_physical_fog_is_given_back_as_well(tmp_path: Path, laid_out: Path) -> None:
    options = ["--src", "veri-wild", "--root", str(laid_out / "clear"), "--depth", "planar", "--codec", "png"]
    done = CliRunner().invoke(cli, ["build-syn", *options, "--fog", "physical", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    data = fvrid_tools.open_dataset(tmp_path / "out")
    assert " --fog physical " in data.info["command"]
    for sample in data[:9]:
        foggy = add_fog(sample.clear / 255, sample.depth, sample.beta, sample.airlight)
        assert np.abs(foggy - sample.foggy / 255).max() <= 1 / 255
        assert 25 <= np.log(20) * 81 / sample.beta <= 150
        z = 81.0**sample.depth
        by_hand = sample.airlight + (sample.clear / 255 - sample.airlight) * np.exp(-sample.beta / 81 * z)[..., None]
        assert np.abs(by_hand - sample.foggy / 255).max() <= 1 / 255
    assert "per 81 m" in dataset_report(data, pictures=1)


def test_the_clear_image_is_the_source_file(built: Path, laid_out: Path) -> None:
    for sample in fvrid_tools.open_dataset(built)[:5]:
        assert sample.encoded("clear") == (laid_out / "clear" / sample.row.source_path).read_bytes()


def test_real_images_are_stored_as_they_are(built_real: Path, laid_out: Path) -> None:
    data = fvrid_tools.open_dataset(built_real)
    sample = data[0]
    assert (sample.domain, sample.clear, sample.depth) == ("real", None, None)
    assert np.isnan([sample.beta, sample.airlight]).all()
    assert sample.encoded("foggy") == (laid_out / "foggy" / sample.row.source_path).read_bytes()
    assert sample.camera_id == "1"


@pytest.mark.usefixtures("small_shards")
def test_workers_and_order_change_no_byte(tmp_path: Path, listing: Listing, recipe: build.Recipe) -> None:
    backwards = replace(listing, records=listing.records[::-1])
    build.build([listing], tmp_path / "one", recipe)
    build.build([backwards], tmp_path / "two", recipe, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("*.h5"))) == 5


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("after", [0, 2, 4])
def test_a_build_that_was_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, listing: Listing, recipe: build.Recipe, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    build.build([listing], tmp_path / "whole", recipe)
    written: list[Path] = []
    original: Callable[..., None] = shards.ShardWriter.write

    def write_some(self: shards.ShardWriter, plan: str) -> None:
        if len(written) == after:
            raise KeyboardInterrupt
        original(self, plan)
        written.append(self.path)

    monkeypatch.setattr(shards.ShardWriter, "write", write_some)
    with pytest.raises(KeyboardInterrupt):
        build.build([listing], tmp_path / "stopped", recipe)
    assert not (tmp_path / "stopped" / manifest.DATASET).exists()
    with pytest.raises(FvridError, match="holds no finished dataset"):
        fvrid_tools.open_dataset(tmp_path / "stopped")
    monkeypatch.undo()
    monkeypatch.setattr(build, "IMAGES_PER_SHARD", 10)
    summary = build.build([listing], tmp_path / "stopped", recipe)
    assert summary.reused == 10 * after
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_the_same_build_again_changes_nothing(built: Path, listing: Listing, recipe: build.Recipe) -> None:
    before = content(built)
    assert build.build([listing], built, recipe).reused == 48
    assert content(built) == before


def test_a_build_finds_source_files_that_changed(
    tmp_path: Path, laid_out: Path, recipe: build.Recipe, small_shards: None
) -> None:
    shutil.copytree(laid_out / "clear", tmp_path / "clear")
    listing = sources.read_source("veri-wild", tmp_path / "clear")
    out = tmp_path / "out"
    build.build([listing], out, recipe)
    assert build.build([listing], out, recipe).reused == 48
    changed, other = listing.records[25].path, listing.records[3].path
    changed.write_bytes(other.read_bytes())
    with pytest.raises(FvridError, match=f"{changed.name}: not the file that .* was built from; name another"):
        build.build([listing], out, recipe)
    (out / "dataset.json").unlink()  # as of a build that was stopped
    (out / build.PLAN).write_text(build._begun(recipe, build._command(recipe, [listing.options])))
    assert build.build([listing], out, recipe).reused == 38
    assert fvrid_tools.open_dataset(out)[25].encoded("clear") == other.read_bytes()
    changed.unlink()
    assert build.build([listing], out, recipe).reused == 48  # nothing to compare it with


def test_a_shard_with_fewer_images_than_rows_is_made_again_or_said(
    tmp_path: Path, listing: Listing, recipe: build.Recipe, small_shards: None
) -> None:
    out = tmp_path / "out"
    build.build([listing], out, recipe)
    with h5py.File(out / "shard-00001.h5", "r+") as file:
        offsets = file["clear/offsets"][:-1]
        del file["clear/offsets"]
        file["clear/offsets"] = offsets
    task = build._tasks(listing.records, out, recipe)[1]
    assert task.find() is None
    shard = shards.Shard(task.path)
    with pytest.raises(FvridError, match="9 images for 10 rows"):
        task.find_changed(shard, shard.read_rows()[0])


def test_a_kill_in_the_first_or_last_moment_leaves_what_can_be_gone_on_with(
    tmp_path: Path, listing: Listing, recipe: build.Recipe
) -> None:
    build.build([listing], tmp_path / "whole", recipe)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / (build.PLAN + ".0123abcd.part")).write_text("abc")
    (tmp_path / "first" / "shard-00000.h5.89ef4567.part").write_bytes(b"half")
    build.build([listing], tmp_path / "first", recipe)
    assert content(tmp_path / "first") == content(tmp_path / "whole")
    (tmp_path / "first" / build.PLAN).write_text("left over")
    build.build([listing], tmp_path / "first", recipe)
    assert content(tmp_path / "first") == content(tmp_path / "whole")


@pytest.mark.parametrize("finished", [True, False])
def test_what_another_version_has_begun_names_the_version(
    tmp_path: Path, listing: Listing, recipe: build.Recipe, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    real = build.versions()
    build.build([listing], tmp_path, recipe)
    if not finished:
        (tmp_path / "dataset.json").unlink()
        (tmp_path / build.PLAN).write_text(build._begun(recipe, build._command(recipe, [listing.options])))
    monkeypatch.setattr(build, "versions", lambda: {**real, "pillow": "99.0"})
    with pytest.raises(FvridError, match=rf"\(with pillow {re.escape(real['pillow'])}, not 99.0\); name another"):
        build.build([listing], tmp_path, recipe)
    monkeypatch.undo()
    if finished:
        with pytest.raises(FvridError, match=r"built otherwise \(fvrid build-syn .* --seed 0\); name another"):
            build.build([listing], tmp_path, replace(recipe, seed=1))


def test_an_unfinished_build_of_other_sources_is_not_overwritten(
    tmp_path: Path, laid_out: Path, recipe: build.Recipe, small_shards: None
) -> None:
    listing, out = sources.read_source("veri-wild", laid_out / "clear"), tmp_path / "out"
    build.build([listing], out, recipe)
    (out / "dataset.json").unlink()
    (out / build.PLAN).write_text(build._begun(recipe, build._command(recipe, [listing.options])))
    before = content(out)
    with pytest.raises(FvridError, match="unfinished build of another kind"):
        build.build([sources.read_source("folder", laid_out / "clear")], out, recipe)
    with pytest.raises(FvridError, match="unfinished build of another kind"):
        build.build([replace(listing, options=f"{listing.options} --labels l.csv")], out, recipe)
    assert content(out) == before
    assert build.build([listing], out, recipe).reused == 48


def test_a_build_and_a_split_hold_their_folder(copy: Path, listing: Listing, recipe: build.Recipe) -> None:
    before = content(copy)
    with alone_in(copy):
        for work in (lambda: build.build([listing], copy, recipe), lambda: write_split(copy, seed=1)):
            with pytest.raises(FvridError, match="another process is at work here"):
                work()
    assert content(copy) == before


def test_another_build_in_the_same_folder_is_refused(built: Path, listing: Listing, recipe: build.Recipe) -> None:
    before = content(built)
    with pytest.raises(FvridError, match="already holds a dataset"):
        build.build([listing], built, replace(recipe, seed=1))
    assert content(built) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path, listing: Listing, recipe: build.Recipe) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(FvridError, match="is not empty"):
        build.build([listing], tmp_path, recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_output_that_cannot_be_made_is_one_sentence(tmp_path: Path, listing: Listing, recipe: build.Recipe) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FvridError, match="cannot be made"):
        build.build([listing], tmp_path / "file/out", recipe)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_workers_leave_when_the_build_is_killed(tmp_path: Path, laid_out: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fvrid_tools import pool\n"
        "class Sleep:\n"
        "    def make(self, progress): Path(sys.argv[1], str(__import__('os').getpid())).touch(); time.sleep(600)\n"
        "    def write(self, made): pass\n"
        "if __name__ == '__main__': pool.run([Sleep(), Sleep()], 2, print)\n"
    )
    (tmp_path / "pids").mkdir()
    (tmp_path / "sleep.py").write_text(code)
    parent = subprocess.Popen([sys.executable, tmp_path / "sleep.py", tmp_path / "pids"])
    wait_until(lambda: len(list((tmp_path / "pids").iterdir())) == 2)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_running(int(path.name)) for path in (tmp_path / "pids").iterdir()))


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within 30 s")


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


def test_a_full_disk_is_one_sentence_and_a_rerun_completes(
    tmp_path: Path, listing: Listing, recipe: build.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: shards.ShardWriter, plan: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardWriter, "write", fail)
        with pytest.raises(FvridError, match="free some space"):
            build.build([listing], tmp_path / "out", recipe)
    assert build.build([listing], tmp_path / "out", recipe).images == 48


def test_bad_images_are_refused_with_a_reason_and_the_rest_is_built(tmp_path: Path, recipe: build.Recipe) -> None:
    root = tmp_path / "folder"
    good = mini_layouts.jpeg(mini_layouts.picture(1, 0))
    tiny = mini_layouts.jpeg(mini_layouts.picture(1, 0).resize((1, 1)))
    for name, data in {
        "v/good.jpg": good,
        "v/good.png": good,  # the same id as the file before
        "v/empty.jpg": b"",
        "v/text.jpg": b"hello",
        "v/cut.jpg": good[: len(good) // 2],
        "v/tiny.jpg": tiny,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    summary = build.build([sources.read_source("folder", root)], tmp_path / "out", recipe)
    assert (summary.images, summary.rejects) == (1, 5)
    with (tmp_path / "out" / manifest.REJECTS).open() as file:
        reasons = {line["source_path"]: line["reason"] for line in csv.DictReader(file)}
    assert "empty" in reasons["v/empty.jpg"]
    assert "not an image" in reasons["v/text.jpg"]
    assert "truncated" in reasons["v/cut.jpg"]
    assert "too small" in reasons["v/tiny.jpg"]
    assert reasons["v/good.png"] == "duplicate id folder/v/good, taken from v/good.jpg"


def test_no_usable_image_is_an_error_that_leaves_nothing(tmp_path: Path, recipe: build.Recipe) -> None:
    (tmp_path / "in/v").mkdir(parents=True)
    (tmp_path / "in/v/1.jpg").write_bytes(b"")
    with pytest.raises(FvridError, match="none of the 1 images can be used"):
        build.build([sources.read_source("folder", tmp_path / "in")], tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with pytest.raises(FvridError, match="none of the 1 images can be used"):
        build.build([sources.read_source("folder", tmp_path / "in")], tmp_path / "link", recipe)


def test_sources_can_be_joined(tmp_path: Path, laid_out: Path, listing: Listing, recipe: build.Recipe) -> None:
    other = sources.read_source("folder", laid_out / "foggy")
    build.build([listing, other], tmp_path / "out", recipe)
    data = fvrid_tools.open_dataset(tmp_path / "out")
    assert len(data) == 96
    assert len(data.select(source="folder")) == 48
    assert [row.image_id for row in data.rows] == sorted(row.image_id for row in data.rows)


def test_a_finished_dataset_that_lost_bytes_is_not_called_finished(
    copy: Path, listing: Listing, recipe: build.Recipe
) -> None:
    path = copy / "shard-00000.h5"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FvridError, match="not what was built"):
        build.build([listing], copy, recipe)


def test_dataset_json_says_what_was_built(built: Path, laid_out: Path, tmp_path: Path) -> None:
    info = json.loads((built / manifest.DATASET).read_text())
    assert info["command"].startswith("fvrid build-syn --src veri-wild --depth planar --beta 0.4 1.6")
    assert info["images"] == sum(shard["images"] for shard in info["shards"]) == 48
    build.build(
        [sources.read_source("folder", laid_out / "foggy", "(?P<vehicle_id>\\d+)")], tmp_path / "r", build.Recipe()
    )
    command = json.loads((tmp_path / "r" / manifest.DATASET).read_text())["command"]
    assert command == r"fvrid build-real --src folder --pattern '(?P<vehicle_id>\d+)' --seed 0"
    assert {"numpy", "simplejpeg", "h5py", "fvrid"} <= info["versions"].keys()


def test_fog_is_drawn_from_the_ranges_asked_for(tmp_path: Path, listing: Listing, recipe: build.Recipe) -> None:
    build.build([listing], tmp_path / "out", replace(recipe, fog=FogRange(beta=(2, 2), airlight=(0.25, 0.25))))
    assert {(row.beta, row.airlight) for row in manifest.read_manifest(tmp_path / "out")} == {(2, 0.25)}


def test_a_removed_source_after_the_build_harms_nothing(tmp_path: Path, laid_out: Path, recipe: build.Recipe) -> None:
    root = Path(shutil.copytree(laid_out / "clear", tmp_path / "in"))
    build.build([sources.read_source("veri-wild", root)], tmp_path / "out", recipe)
    shutil.rmtree(root)
    assert all(
        sample.foggy.shape == (sample.row.height, sample.row.width, 3)
        for sample in fvrid_tools.open_dataset(tmp_path / "out")
    )
