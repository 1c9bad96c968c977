"""Identities and images per source and split, as Tables 1 and 2 of the paper print them."""

from .dataset import Dataset

SPLITS = ("train", "query", "gallery")

Cell = tuple[int, int]  # identities, images


def count(data: Dataset) -> dict[str, dict[str, Cell]]:
    """{source: {split: (identities, images)}}, with "all" for the sum of the sources and for all splits."""
    sources = sorted({row.source for row in data.rows})
    table = {}
    for source in [*sources, "all"]:
        rows = [row for row in data.rows if source in ("all", row.source)]
        parts = {split: [row for row in rows if row.split == split] for split in SPLITS} | {"all": rows}
        table[source] = {split: (len({row.identity for row in part}), len(part)) for split, part in parts.items()}
    return table


def to_text(table: dict[str, dict[str, Cell]], domain: str) -> str:
    """The table as text, IDs/Images in each cell, the last row the sum, as in the paper."""
    name = "FVRID_Real" if domain == "real" else "FVRID_Syn"
    head = ("Set", "Train", "Query", "Gallery", "All")
    lines = [
        (name if source == "all" else source, *(f"{ids}/{images}" for ids, images in cells.values()))
        for source, cells in table.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *lines))
    return "\n".join(row.rstrip() for row in rows) + "\n(IDs/Images)"
