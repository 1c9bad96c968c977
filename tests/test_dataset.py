import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fvrid_tools
from fvrid_tools import manifest
from fvrid_tools.build import Recipe, build
from fvrid_tools.dataset import Dataset
from fvrid_tools.fog import PRESETS
from fvrid_tools.records import FvridError
from fvrid_tools.sources import read_source


def test_it_is_a_sequence(built: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    assert len(data) == 48
    assert data[-1].image_id == data.rows[-1].image_id
    assert [sample.image_id for sample in data[3:6]] == [row.image_id for row in data.rows[3:6]]
    with pytest.raises(IndexError):
        data[48]
    assert "48 images of 12 vehicles" in repr(data)


def test_selections_are_sequences_too(built: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    gallery = data.select(split="gallery", source="veri-wild")
    assert {sample.split for sample in gallery} == {"gallery"}
    assert sum(len(data.select(split=split)) for split in ("train", "query", "gallery")) == 48
    with pytest.raises(ValueError, match="'test' is not a split: train, query, gallery, or None"):
        data.select(split="test")
    with pytest.raises(ValueError, match="not a column"):
        data.select(colour="red")


def test_depth_and_pictures_have_the_stated_forms(built: Path) -> None:
    sample = fvrid_tools.open_dataset(built)[0]
    height, width = sample.row.height, sample.row.width
    for image in (sample.clear, sample.foggy):
        assert image is not None
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
    assert sample.depth is not None
    assert sample.depth.shape == (height, width)
    assert sample.depth.dtype == np.float32
    assert 0 <= sample.depth.min() <= sample.depth.max() <= 1


def test_pairs_read_by_threads_are_the_samples(built: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    order = np.random.default_rng(0).permutation(48).tolist()
    for threads in (1, 3):
        for index, (foggy, clear) in zip(order, data.read_pairs(order, threads), strict=True):
            assert np.array_equal(foggy, data[index].foggy)
            assert np.array_equal(clear, data[index].clear)


def test_a_split_is_read_without_touching_the_bytes_of_others(copy: Path) -> None:
    def pictures(split: str) -> list[bytes]:
        part = fvrid_tools.open_dataset(copy).select(split=split)
        return [sample.encoded(kind) for sample in part for kind in ("clear", "foggy")]

    before = pictures("gallery")
    rows = manifest.read_manifest(copy)
    for path in copy.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            for row in rows:
                if row.shard == path.name and row.split != "gallery":
                    for kind in ("clear", "foggy", "depth"):
                        first, last = file[f"{kind}/offsets"][row.row : row.row + 2]
                        file[f"{kind}/bytes"][first:last] = 0
    assert pictures("gallery") == before
    with pytest.raises(FvridError, match="run fvrid verify"):
        fvrid_tools.open_dataset(copy).select(split="train")[0].foggy  # noqa: B018


def _mean(data: Dataset, index: int) -> float:
    return float(data[index].foggy.mean())


def test_damaged_depth_is_a_sentence(copy: Path) -> None:
    shard = copy / fvrid_tools.open_dataset(copy)[0].row.shard
    with h5py.File(shard, "r+") as file:
        file["depth/bytes"][:6] = 0
    with pytest.raises(FvridError, match=r"shard-00000\.h5, depth of .*: not a packed depth map.*; run fvrid verify"):
        _ = fvrid_tools.open_dataset(copy)[0].depth


def test_what_dataset_json_says_of_a_shard_has_its_type(copy: Path) -> None:
    info = manifest.read_dataset(copy)
    for key in ("name", "sha256", "bytes", "images"):
        manifest.write_dataset(copy, info | {"shards": [info["shards"][0] | {key: None}]})
        with pytest.raises(FvridError, match="shards is damaged"):
            manifest.read_dataset(copy)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_works_in_worker_processes(built: Path, method: str) -> None:
    data = fvrid_tools.open_dataset(built)
    expected = [_mean(data, index) for index in (0, 40)]  # and so the shard is open already
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        assert [pool.submit(_mean, data, index).result() for index in (0, 40)] == expected
    assert len(pickle.dumps(data)) < 100_000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("shard-00000.h5", "../../etc/passwd", "is not a file name of a dataset"),
        ("image_id,", "name,", "column image_id is missing"),
        (",planar,", ",", "manifest.csv"),
    ],
)
def test_a_manifest_that_lies_is_refused(copy: Path, old: str, new: str, message: str) -> None:
    path = copy / manifest.MANIFEST
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(FvridError, match=message):
        fvrid_tools.open_dataset(copy)


def test_a_dataset_built_again_in_the_same_place_is_read_anew(tmp_path: Path, laid_out: Path, recipe: Recipe) -> None:
    listing = read_source("veri-wild", laid_out / "clear")
    for seed in (1, 2):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        build([listing], tmp_path / "out", replace(recipe, seed=seed))
        for sample in fvrid_tools.open_dataset(tmp_path / "out")[::20]:
            assert sample.encoded("clear") == (laid_out / "clear" / sample.row.source_path).read_bytes()


def test_no_dataset_json_is_no_dataset(copy: Path) -> None:
    (copy / manifest.DATASET).unlink()
    with pytest.raises(FvridError, match="holds no finished dataset"):
        fvrid_tools.open_dataset(copy)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99}', '{"format": 1}'])
def test_another_dataset_json_is_refused(copy: Path, content: str) -> None:
    (copy / manifest.DATASET).write_text(content)
    with pytest.raises(FvridError, match=r"dataset\.json"):
        fvrid_tools.open_dataset(copy)


@pytest.mark.parametrize(
    "fog", [{"beta": "x"}, {"beta": [2, 1], "airlight": [0, 1]}, {"beta": [0, None], "airlight": 3}]
)
def test_fog_that_is_none_is_a_sentence(copy: Path, fog: dict[str, Any]) -> None:
    manifest.write_dataset(copy, manifest.read_dataset(copy) | {"fog": fog})
    with pytest.raises(FvridError, match=r"dataset.json: its fog is no range of beta and airlight; rebuild"):
        _ = fvrid_tools.open_dataset(copy)[0]


def test_what_a_dataset_has_is_asked_of_it(built: Path, built_real: Path) -> None:
    data, real = fvrid_tools.open_dataset(built), fvrid_tools.open_dataset(built_real)
    assert (data.domain, data.has_clear, data.fog) == ("synthetic", True, PRESETS["paper"])
    assert (real.domain, real.has_clear, real.fog) == ("real", False, None)
