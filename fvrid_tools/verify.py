"""Check a dataset against its own records: every hash, every row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import files, manifest
from .progress import Progress, silent
from .records import FvridError, Row
from .shards import Shard


def find_problems(folder: Path, progress: Progress = silent) -> list[str]:
    """One sentence for everything that is wrong; none where the dataset is what was built.

    `progress` is called with the number of images whose shard is done. Raises FvridError where there is no dataset.
    """
    info = manifest.read_dataset(folder)
    try:
        rows = manifest.read_manifest(folder)
    except FvridError as error:
        return [str(error)]
    problems = []
    if not manifest.is_intact(folder, info):
        problems.append(f"{folder / manifest.DATASET}: changed since it was written; restore it, or rebuild.")
    if files.sha256_file(folder / manifest.MANIFEST) != info["manifest_sha256"]:
        problems.append(
            f"{folder / manifest.MANIFEST}: not what dataset.json records; run fvrid split again, or rebuild."
        )
    rejects = folder / manifest.REJECTS
    if not rejects.exists() or files.sha256_file(rejects) != info["rejects_sha256"]:
        problems.append(f"{rejects}: missing, or not what was built.")
    by_shard: dict[str, list[Row]] = {shard["name"]: [] for shard in info["shards"]}
    for row in rows:
        if row.shard not in by_shard:
            problems.append(f"{folder / manifest.MANIFEST}: {row.image_id} is in {row.shard!r}, which is no shard.")
        else:
            by_shard[row.shard].append(row)
    for shard in info["shards"]:
        problems += _check_shard(folder, shard, by_shard[shard["name"]])
        progress(shard["images"])
    return problems


def _check_shard(folder: Path, recorded: dict[str, Any], rows: list[Row]) -> Iterator[str]:
    path = files.inside(folder, recorded["name"])
    if not path.exists():
        yield f"{path}: missing."
        return
    if files.sha256_file(path) != recorded["sha256"]:
        yield f"{path}: its content is not what was built (SHA-256 differs)."
        return
    try:
        stored, _ = Shard(path).read_rows()
    except FvridError as error:
        yield str(error)
        return
    listed = {row.row: row for row in rows}
    for row in stored:
        other = listed.pop(row.row, None)
        if other is None:
            yield f"{folder / manifest.MANIFEST}: {row.image_id} of {path.name} is missing."
        elif not _same(row, other):
            yield f"{folder / manifest.MANIFEST}: the row of {other.image_id} is not what {path.name} holds."
    for row in listed.values():
        yield f"{folder / manifest.MANIFEST}: {row.image_id} is not in {path.name}."


def _same(stored: Row, listed: Row) -> bool:
    """Equal but for the split, which the shard does not know; nan equals nan."""
    pairs = zip(stored, listed._replace(split=None), strict=True)
    return all(a == b or (a != a and b != b) for a, b in pairs)  # only nan differs from itself
