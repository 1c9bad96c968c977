"""Pack rendered folders into the dataset inside the package; mini.py has the form, and reads it.

python -m fvrid_tools.sources.mini_pack CLEAR_DIR REAL_DIR OUT
"""

import argparse
import csv
import io
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files, images, pictures, pool
from ..progress import Progress, silent
from ..records import FvridError, ImageRecord, ImageRefused, Part, Row
from ..shards import IMAGES_PER_SHARD, ShardWriter, shard_name
from . import mini

DEPTH_LEVEL = 19  # zstd's; 22 takes longer for 0.2 % of the bytes

_COLUMNS: dict[Part, tuple[str, ...]] = {
    "clear": ("clear", "depth"),
    "real": ("foggy",),
    "pairs": ("foggy", "clear", "depth"),
}


def pack(clear: Path, real: Path, out: Path, workers: int = 1) -> None:
    """Pack a folder of clear views and one of foggy views into `out`, in place of what was packed there.

    The same folders give the same bytes. JPEGs are kept as they are, depth without loss.
    Raises FvridError where a render is not finished, or one of its pictures cannot be used.
    """
    if out.resolve() in (clear.resolve(), real.resolve()):
        raise FvridError(f"{out}: the folder to write is one to read; name another OUT.")
    roots: dict[Part, Path] = {"clear": clear, "real": real}
    views = {part: mini.find_views(root, part) for part, root in roots.items()}
    if any(view.is_in("pairs") for view in views["real"]):
        roots["pairs"] = real
    tasks = [task for part, root in roots.items() for task in _tasks(root, part, out)]

    files.make_folder(out)
    (out / mini.INDEX).unlink(missing_ok=True)
    shards = pool.run(tasks, workers, silent)
    for path in out.iterdir():  # of an earlier, larger pack
        if re.fullmatch(rf"({'|'.join(_COLUMNS)})-\d+\.h5", path.name) and path not in {task.path for task in tasks}:
            path.unlink()
    files.write_atomic(out / mini.VIEWS, _views_csv(views))
    index = {
        "format": mini.FORMAT,
        "recipe": {part: mini.recipe_of(roots[part]) for part in views},
        "files": [_entry(out / mini.VIEWS, sum(map(len, views.values()))), *shards],
    }
    files.write_atomic(out / mini.INDEX, json.dumps(index, indent=1, sort_keys=True) + "\n")


def _tasks(root: Path, part: Part, out: Path) -> list["_PackTask"]:
    listing = mini.read(root, part)
    if listing.rejects:
        missing = f"{len(listing.rejects)} images are missing, such as {listing.rejects[0].source_path}"
        raise FvridError(f"{root}: the render is not finished, {missing}; run fvrid render again.")
    records = listing.records
    chunks = [records[i : i + IMAGES_PER_SHARD] for i in range(0, len(records), IMAGES_PER_SHARD)]
    return [_PackTask(out / shard_name(i, part), part, chunk) for i, chunk in enumerate(chunks)]


def _views_csv(views: dict[Part, list[mini.View]]) -> str:
    lines = [view.cells | {"part": part} for part, several in views.items() for view in several]
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for line in lines for name in line), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _entry(path: Path, count: int) -> dict[str, Any]:
    return {"name": path.name, "images": count, "bytes": path.stat().st_size, "sha256": files.sha256_file(path)}


@dataclass(frozen=True)
class _PackTask(pool.Task[tuple[ShardWriter, str], dict[str, Any]]):
    """The records of one shard; made and written in one process."""

    path: Path
    part: Part
    records: list[ImageRecord]

    def make(self, progress: Progress) -> tuple[ShardWriter, str]:
        """The images, and a hash of them all."""
        writer = ShardWriter(self.path, _COLUMNS[self.part], DEPTH_LEVEL)
        packed = []
        for record in self.records:
            try:
                packed.append(self._add(record, writer))
            except ImageRefused as error:
                raise FvridError(f"{record.path}: {error}; run fvrid render again.") from None
            progress(1)
        return writer, files.sha256_bytes("\n".join(packed).encode())

    def _add(self, record: ImageRecord, writer: ShardWriter) -> str:
        """Add an image; returns its row and the hashes of its pictures as text."""
        content = pictures.read_image(record)
        image = images.decode(content)
        images.check_size(image)
        height, width = image.shape[:2]
        stored: dict[str, Any] = {"clear" if self.part == "clear" else "foggy": content}
        if record.depth is not None:
            stored["depth"] = images.levels_of_depth(pictures.read_depth(record, height, width))
        if record.clear is not None:
            stored["clear"] = pictures.read_clear(record, height, width)
        row = Row.of(
            record,
            domain="synthetic" if self.part == "clear" else "real",
            sha256=files.sha256_bytes(content),
            place=(self.path.name, len(writer.rows)),
            size=(height, width),
            depth="" if record.depth is None else "source",
        )
        writer.add(row, **stored)
        return repr((row, [(name, files.sha256_bytes(bytes(stored[name]))) for name in sorted(stored)]))

    def write(self, made: tuple[ShardWriter, str]) -> dict[str, Any]:
        """Write the file; returns its entry in mini.json."""
        writer, plan = made
        try:
            writer.write(plan)
        except OSError as error:
            raise files.not_written(self.path, error) from None
        return _entry(self.path, len(writer.rows))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m fvrid_tools.sources.mini_pack", description=pack.__doc__)
    for name in ("clear", "real", "out"):
        parser.add_argument(name, type=Path)
    named = parser.parse_args(arguments)
    try:
        pack(named.clear, named.real, named.out, os.cpu_count() or 1)
    except FvridError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
