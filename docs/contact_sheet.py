"""Write docs/mini.jpg from the embedded dataset.

Rows: two vehicles of one model and colour, seen by eight cameras each; eight vehicles of eight kinds; a foggy view and
its clear counterpart, eight times.
"""

import csv
from pathlib import Path

import numpy as np

from fvrid_tools import images, pictures
from fvrid_tools.records import ImageRecord, Part
from fvrid_tools.sources import mini, read_source

COLUMNS, GAP = 8, 2
HERE = Path(__file__).parent


def main() -> None:
    with (mini.EMBEDDED / mini.VIEWS).open(newline="", encoding="utf-8") as file:
        views = {(row["part"], row["image_id"]): row for row in csv.DictReader(file)}
    clear, pairs = (_records(part) for part in ("clear", "pairs"))
    by_vehicle: dict[str, list[str]] = {}
    for name in clear:
        by_vehicle.setdefault(views["clear", name]["vehicle_id"], []).append(name)
    looks: dict[tuple[str, str], list[str]] = {}
    kinds: dict[str, str] = {}
    for names in by_vehicle.values():
        row = views["clear", names[0]]
        looks.setdefault((row["model"], row["colour"]), []).append(row["vehicle_id"])
        kinds.setdefault(row["kind"], names[3])
    twins = next(found for (_, colour), found in looks.items() if len(found) > 1 and colour not in ("black", "white"))
    step = max(1, len(pairs) // COLUMNS)
    chosen = list(pairs.values())[::step][:COLUMNS]
    rows = [
        *([pictures.read_image(clear[name]) for name in by_vehicle[vehicle][:COLUMNS]] for vehicle in twins[:2]),
        [pictures.read_image(clear[name]) for name in kinds.values()][:COLUMNS],
        [pictures.read_clear(record, 128, 128) for record in chosen],
        [pictures.read_image(record) for record in chosen],
    ]
    sheet = np.vstack([_row([images.decode(content) for content in row]) for row in rows])
    (HERE / "mini.jpg").write_bytes(images.encode_jpeg(np.ascontiguousarray(sheet), 88, "420"))


def _records(part: Part) -> dict[str, ImageRecord]:
    return {record.image_id.rpartition("/")[2]: record for record in read_source("mini", part=part).records}


def _row(tiles: list[images.Uint8Image]) -> images.Uint8Image:
    height, width = tiles[0].shape[:2]
    row = np.full((height + GAP, COLUMNS * (width + GAP), 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        row[:height, i * (width + GAP) : i * (width + GAP) + width] = tile
    return row


if __name__ == "__main__":
    main()
