"""manifest.csv, one row an image; rejects.csv; and dataset.json, whose presence means that the dataset is whole."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .files import sha256_bytes, write_atomic
from .records import FvridError, Reject, Row

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
_INTEGERS = ("row", "height", "width")
_FLOATS = ("beta", "airlight")
_OPTIONAL = ("camera_id", "split", "source_split")


def _to_csv(header: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


def write_manifest(folder: Path, rows: list[Row]) -> str:
    """Write manifest.csv, sorted by image_id; returns its SHA-256. None is an empty cell, floats are exact."""
    lines = (["" if value is None else value for value in row] for row in sorted(rows, key=lambda row: row.image_id))
    content = _to_csv(COLUMNS, lines).encode()
    write_atomic(folder / MANIFEST, content)
    return sha256_bytes(content)


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
            return [_parse(dict(zip(header, line, strict=True)), path, reader.line_num) for line in reader]
    except FileNotFoundError:
        raise FvridError(f"{path} is missing; restore it or rebuild the dataset.") from None
    except (ValueError, csv.Error) as error:
        raise FvridError(f"{path}: not a manifest ({error}); restore it or rebuild the dataset.") from None


def _parse(cells: dict[str, Any], path: Path, line: int) -> Row:
    try:
        values = {name: cells[name] for name in COLUMNS}
        values.update({name: int(cells[name]) for name in _INTEGERS})
        values.update({name: float(cells[name]) for name in _FLOATS})
        values.update({name: cells[name] or None for name in _OPTIONAL})
    except ValueError as error:
        raise FvridError(f"{path}, line {line}: {error}; restore the file or rebuild.") from None
    return Row(**values)


def write_rejects(folder: Path, rejects: list[Reject]) -> str:
    """Write rejects.csv, sorted, only a header where nothing was refused; returns its SHA-256."""
    lines = ((reject.source, reject.source_path, reject.reason) for reject in sorted(rejects))
    content = _to_csv(("source", "source_path", "reason"), lines).encode()
    write_atomic(folder / REJECTS, content)
    return sha256_bytes(content)


def write_dataset(folder: Path, content: dict[str, Any]) -> None:
    write_atomic(folder / DATASET, json.dumps(content, indent=1, sort_keys=True) + "\n")


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
        if not isinstance(shard, dict) or not {"name", "sha256", "bytes", "images"} <= shard.keys():
            raise FvridError(f"{path}: shards is damaged; restore the file or rebuild the dataset.")
    return content
