import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis.extra import numpy as arrays

from fvrid_tools import shards
from fvrid_tools.records import FvridError, Reject, Row
from fvrid_tools.shards import Shard, ShardWriter, pack_depth, unpack_depth

COMPRESSOR = zstandard.ZstdCompressor(level=1)


@given(arrays.arrays(np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_depth_survives_packing(depth: np.ndarray) -> None:
    assert np.array_equal(unpack_depth(pack_depth(depth, COMPRESSOR), *depth.shape), depth)


def test_smooth_depth_packs_small() -> None:
    y, x = np.mgrid[0:200, 0:300]
    depth = (20000 + 60 * y + 30 * x + 5 * np.sin(x / 9)).astype(np.uint16)
    assert len(pack_depth(depth, COMPRESSOR)) < depth.nbytes / 8


def row(number: int, path: Path) -> Row:
    return Row(
        image_id=f"s/{number}",
        domain="synthetic",
        source="s",
        source_path=f"{number}.jpg",
        sha256="0" * 64,
        vehicle_id="ä1",
        camera_id=None,
        split=None,
        source_split="train",
        shard=path.name,
        row=number,
        height=2,
        width=3,
        depth="planar",
        beta=0.1 + number,
        airlight=0.7,
    )


def write(path: Path, count: int = 3) -> ShardWriter:
    writer = ShardWriter(path, ("clear", "foggy", "depth"))
    for number in range(count):
        depth = np.full((2, 3), number, np.uint16)
        writer.add(row(number, path), foggy=b"f" * (number + 1), clear=b"c" * 10, depth=depth)
    writer.rejects.append(Reject("s", "x.jpg", "too small"))
    writer.write("plan")
    return writer


def test_handles_that_live_on_move_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that looks at frames, as Dask's profiler does, keeps datasets open for longer."""
    path, other = tmp_path / "shard-00000.h5", tmp_path / "again" / "shard-00000.h5"
    other.parent.mkdir()
    write(path, count=300)
    kept = []
    create = h5py.Group.create_dataset

    def create_and_keep(*arguments: Any, **options: Any) -> h5py.Dataset:
        kept.append(create(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr(h5py.Group, "create_dataset", create_and_keep)
    write(other, count=300)
    assert len(kept) == 8
    assert path.read_bytes() == other.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    writer = write(path)
    shard = Shard(path)
    assert shard.plan == "plan"
    assert shard.read_rows() == (writer.rows, writer.rejects)
    assert bytes(shard.read("foggy", 1)) == b"ff"
    assert bytes(shard.read("clear", 2)) == b"c" * 10
    assert (unpack_depth(shard.read("depth", 2), 2, 3) == 2).all()


def test_a_shard_without_images_is_one(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    write(path, count=0)
    assert Shard(path).read_rows() == ([], [Reject("s", "x.jpg", "too small")])


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    write(tmp_path / "shard-00000.h5")
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        first, last = file["foggy/offsets"][1:3]
        assert file["foggy/bytes"][first:last].tobytes() == b"ff"
        assert file["rows"]["image_id"].tolist() == [b"s/0", b"s/1", b"s/2"]


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "shard-00000.h5")
    assert (tmp_path / "a/shard-00000.h5").read_bytes() == (tmp_path / "b/shard-00000.h5").read_bytes()


def test_what_is_too_much_for_memory_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for limit in (shards.IN_MEMORY, 100):
        monkeypatch.setattr(shards, "IN_MEMORY", limit)
        monkeypatch.setattr(shards._Blob, "_spare", [])
        (tmp_path / str(limit)).mkdir()
        write(tmp_path / str(limit) / "shard-00000.h5", count=300)
        (path,) = (tmp_path / str(limit)).iterdir()
        written[limit] = path.read_bytes()
    assert len(set(written.values())) == 1
    monkeypatch.setattr(shards, "IN_MEMORY", 1000)
    blob = shards._Blob(tmp_path)
    memory = blob._memory.size
    for i in range(200):
        blob.append(bytes([i]) * 300)
    assert blob._memory.size == memory
    assert b"".join(blob.pieces()) == b"".join(bytes([i]) * 300 for i in range(200))
    assert blob.offsets == list(range(0, 60_001, 300))
    blob.release()

    def full(**options: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.tempfile, "TemporaryFile", full)
    with pytest.raises(FvridError, match=r"full.h5: cannot be written \(No space left on device\); free some space"):
        write(tmp_path / "full.h5", count=300)


@pytest.mark.parametrize("content", [None, b"", b"not hdf5", "half"])
def test_what_is_no_shard_is_one_sentence(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "shard-00000.h5"
    write(path)
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(FvridError, match=r"shard-00000\.h5"):
        Shard(path)


def test_a_shard_of_other_columns_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    write(path)
    with h5py.File(path, "r+") as file:
        del file["rows"]
        file["rows"] = np.array([(b"\xff", 1)], [("image_id", "S4"), ("wheels", "i4")])
    with pytest.raises(FvridError, match=r"shard-00000\.h5: not a readable shard"):
        Shard(path).read_rows()


@pytest.mark.skipif(sys.platform == "win32", reason="has no flock")
def test_a_shard_is_read_without_a_lock(tmp_path: Path) -> None:
    """Network disks that have none fail at it as one does that is taken."""
    import fcntl

    path = tmp_path / "shard-00000.h5"
    write(path)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert len(Shard(path).read_rows()[0]) == 3


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "shard-00000.h5")
    assert not list(tmp_path.iterdir())
