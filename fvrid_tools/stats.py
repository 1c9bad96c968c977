"""Identities and images per source and split, as Tables 1 and 2 of the paper print them, beside what these say."""

from .dataset import Dataset
from .quotas import Quota, published
from .records import SPLITS, Domain

Table = dict[str, dict[str, Quota]]  # by source, "all" for the sum of the sources, and split, "all" for all images


def count(data: Dataset) -> Table:
    """What a dataset holds. Images that are in no split are in "all" alone."""
    sources = sorted({row.source for row in data.rows})
    table = {}
    for source in [*sources, "all"]:
        rows = [row for row in data.rows if source in ("all", row.source)]
        parts = {split: [row for row in rows if row.split == split] for split in SPLITS} | {"all": rows}
        table[source] = {split: Quota(len({row.identity for row in part}), len(part)) for split, part in parts.items()}
    return table


def as_published(domain: Domain) -> Table:
    """Table 2 (synthetic) or Table 1 (real) of the paper, with the sums."""
    table: Table = {source: _with_all(quotas) for source, quotas in published(domain).items()}
    sums = {split: _add([quotas[split] for quotas in table.values()]) for split in (*SPLITS, "all")}
    return table | {"all": sums}


def _with_all(quotas: dict[str, Quota]) -> dict[str, Quota]:
    """With the sum over splits; query and gallery are of the same vehicles."""
    vehicles = quotas["train"].vehicles + quotas["query"].vehicles
    return quotas | {"all": Quota(vehicles, sum(quota.images for quota in quotas.values()))}


def _add(quotas: list[Quota]) -> Quota:
    return Quota(sum(quota.vehicles for quota in quotas), sum(quota.images for quota in quotas))


def to_text(table: Table, domain: Domain) -> str:
    """The table as text, IDs/Images in each cell, the last row the sum; below a row what the paper says of it."""
    name, paper = ("FVRID_Real", "Table 1") if domain == "real" else ("FVRID_Syn", "Table 2")
    known = as_published(domain)
    lines: list[tuple[str, ...]] = [("Set", "Train", "Query", "Gallery", "All")]
    for source, quotas in table.items():
        lines.append((name if source == "all" else source, *map(_cell, quotas.values())))
        if source in known:
            lines.append((f"  {paper}", *map(_cell, known[source].values())))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(row.rstrip() for row in rows) + f"\n(IDs/Images; {paper} of the paper)"


def _cell(quota: Quota) -> str:
    return f"{quota.vehicles}/{quota.images}"
