"""manifest.csv, one row an image; rejects.csv; and dataset.json, whose presence means that the dataset is whole."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .files import atomic_path, sha256_bytes, sha256_file, write_atomic
from .records import SPLITS, FvridError, Reject, Row

DATASET_FORMAT = 1
DATASET = "dataset.json"
MANIFEST = "manifest.csv"
REJECTS = "rejects.csv"

COLUMNS = Row._fields
_KEYS: dict[str, type] = {
    "plan": str,
    "domain": str,
    "command": str,
    "images": int,
    "vehicles": int,
    "rejects": int,
    "shards": list,
    "manifest_sha256": str,
    "rejects_sha256": str,
}
_OF_A_SHARD: dict[str, type] = {"name": str, "sha256": str, "bytes": int, "images": int}
_INTEGERS = ("row", "height", "width")
_FLOATS = ("beta", "airlight")
_OPTIONAL = ("camera_id", "split", "source_split")
_REPEATED = ("domain", "source", "vehicle_id", "camera_id", "split", "source_split", "shard", "depth")


def _write_csv(path: Path, header: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """Write a line at a time; returns the file's SHA-256."""
    with atomic_path(path) as unfinished:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(lines)
        return sha256_file(unfinished)


def write_manifest(folder: Path, rows: Iterable[Row]) -> str:
    """Write manifest.csv, of rows that are sorted by image_id; returns its SHA-256.

    None is an empty cell, floats are exact. Raises ValueError where the rows are not sorted.
    """
    return _write_csv(folder / MANIFEST, COLUMNS, map(_cells, _in_order(rows)))


def _in_order(rows: Iterable[Row]) -> Iterator[Row]:
    before = ""
    for row in rows:
        if row.image_id <= before:
            raise ValueError(f"{row.image_id} comes after {before}")
        before = row.image_id
        yield row


def _cells(row: Row) -> list[Any]:
    return ["" if value is None else value for value in row]


def read_manifest(folder: Path) -> list[Row]:
    """The rows of manifest.csv. Raises FvridError naming the line that is not one."""
    path = folder / MANIFEST
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise FvridError(f"{path}: the column {missing[0]} is missing; restore the file or rebuild.")
            rows = [_parse(dict(zip(header, line, strict=True)), path, reader.line_num) for line in reader]
            return list(_in_order(rows))
    except FileNotFoundError:
        raise FvridError(f"{path} is missing; restore it or rebuild the dataset.") from None
    except (ValueError, csv.Error) as error:
        raise FvridError(f"{path}: not a manifest ({error}); restore it or rebuild the dataset.") from None


def _parse(cells: dict[str, Any], path: Path, line: int) -> Row:
    try:
        if cells["split"] not in ("", *SPLITS):  # it becomes part of a path where a dataset is exported
            raise ValueError(f"split {cells['split'][:40]!r} is none of {', '.join(SPLITS)}")
        values = {name: cells[name] for name in COLUMNS}
        values.update({name: sys.intern(cells[name]) for name in _REPEATED})  # one string for all rows
        values.update({name: int(cells[name]) for name in _INTEGERS})
        values.update({name: float(cells[name]) for name in _FLOATS})
        values.update({name: values[name] or None for name in _OPTIONAL})
    except ValueError as error:
        raise FvridError(f"{path}, line {line}: {error}; restore the file or rebuild.") from None
    return Row(**values)


def write_rejects(folder: Path, rejects: list[Reject]) -> str:
    """Write rejects.csv, sorted, only a header where nothing was refused; returns its SHA-256."""
    lines = ((reject.source, reject.source_path, reject.reason) for reject in sorted(rejects))
    return _write_csv(folder / REJECTS, ("source", "source_path", "reason"), lines)


def write_dataset(folder: Path, content: dict[str, Any]) -> None:
    """Write dataset.json, with a hash of what it says."""
    write_atomic(folder / DATASET, _seal(content))


def is_intact(folder: Path, content: dict[str, Any]) -> bool:
    """Whether dataset.json is, byte for byte, what `write_dataset` wrote.  content: what was read from it."""
    return (folder / DATASET).read_bytes() == _seal(content).encode()


def _seal(content: dict[str, Any]) -> str:
    said = {name: value for name, value in content.items() if name != "sha256"}
    sealed = said | {"sha256": sha256_bytes(json.dumps(said, sort_keys=True).encode())}
    return json.dumps(sealed, indent=1, sort_keys=True) + "\n"


def read_dataset(folder: Path) -> dict[str, Any]:
    """dataset.json. Raises FvridError where it is missing (then there is no dataset) or of another format."""
    path = folder / DATASET
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FvridError(
            f"{folder} holds no finished dataset ({DATASET} is missing); run fvrid build-syn or build-real first."
        ) from None
    except (OSError, ValueError) as error:
        raise FvridError(f"{path}: not readable ({error}); restore it or rebuild the dataset.") from None
    if not isinstance(content, dict) or content.get("format") != DATASET_FORMAT:
        raise FvridError(f"{path}: not a dataset of format {DATASET_FORMAT}; rebuild it with this version.")
    for key, kind in _KEYS.items():
        if not isinstance(content.get(key), kind):
            raise FvridError(f"{path}: {key} is missing or damaged; restore the file or rebuild the dataset.")
    for shard in content["shards"]:
        if not isinstance(shard, dict) or any(
            not isinstance(shard.get(key), kind) for key, kind in _OF_A_SHARD.items()
        ):
            raise FvridError(f"{path}: shards is damaged; restore the file or rebuild the dataset.")
    return content
