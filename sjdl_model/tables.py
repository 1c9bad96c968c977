"""Scores of several runs as the paper prints them: Tables 3, 4 and 5, synthetic (S) and real (R) side by side."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .config import DataError

COLUMNS = ("mAP", "CMC@1", "CMC@5", "CMC@10")
_READ = (*COLUMNS, "mINP", "domain", "images", "feature", "queries", "gallery", "protocol", "data_sha256")
FIRST = {3: "Method", 4: "Module", 5: "Method"}  # heading of the first column, by table


class Compared(NamedTuple):
    """One row: a name, and the two results as `Result.to_json` gives them; None where there is none."""

    name: str
    synthetic: dict[str, Any] | None
    real: dict[str, Any] | None


def read_result(path: Path) -> dict[str, Any]:
    """What `Result.to_json` gave. Raises DataError for anything else."""
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        [result[name] for name in _READ]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: not a result of sjdl eval; remove it and run sjdl eval again.") from None
    return result


def read_run(name: str, run: Path, suffix: str = "foggy") -> Compared:
    """The stored results of a run, eval-<domain>-<suffix>.json. Raises DataError where it has none of them."""
    found: list[dict[str, Any] | None] = []
    for domain in ("synthetic", "real"):
        path = run / f"eval-{domain}-{suffix}.json"
        found.append(read_result(path) if path.exists() else None)
    if found == [None, None]:
        raise DataError(f"{run} holds no eval-*-{suffix}.json; run sjdl eval --run {run} first.")
    return Compared(name, *found)


def unlike(rows: Sequence[Compared]) -> list[str]:
    """The domains whose scores are of different test images or protocols, so that rows do not compare."""
    found = {
        domain: {(one["data_sha256"], one["protocol"]) for row in rows if (one := getattr(row, domain)) is not None}
        for domain in ("synthetic", "real")
    }
    return [domain for domain, kinds in found.items() if len(kinds) > 1]


def trained_apart(rows: Sequence[Compared]) -> bool:
    """Whether the weights are known to have learned from unlike data."""
    results = [one for row in rows for one in (row.synthetic, row.real) if one is not None]
    return len({one["trained_on_sha256"] for one in results if one.get("trained_on_sha256")}) > 1


def table(rows: Sequence[Compared], like: int = 4, intervals: bool = False) -> list[list[str]]:
    """Cells, two heading rows first; like: 3, 4 (with the domain difference S - R) or 5. Scores in percent."""
    under = ["S", "R", "Δ"] if like == 4 else ["S", "R"]
    heads = [FIRST[like], *(name for column in COLUMNS for name in (column, *[""] * (len(under) - 1)))]
    cells = [heads, ["", *under * len(COLUMNS)]]
    for row in rows:
        line = [row.name]
        for column in COLUMNS:
            line += [_score(result, column, intervals) for result in (row.synthetic, row.real)]
            if like == 4:
                both = row.synthetic is not None and row.real is not None
                line.append(f"{100 * (row.synthetic[column] - row.real[column]):.2f}" if both else "-")  # type: ignore[index]
        cells.append(line)
    return cells


def _score(result: dict[str, Any] | None, column: str, intervals: bool) -> str:
    if result is None:
        return "-"
    text = f"{100 * result[column]:.2f}"
    if intervals and column in result.get("intervals", {}):
        low, high = result["intervals"][column]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def as_text(cells: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def as_latex(cells: Sequence[Sequence[str]]) -> str:
    """A tabular environment, its column headings spanning what they stand over."""
    heads, under, *body = cells
    span = len(under[1:]) // len(COLUMNS)
    spans = [rf"\multicolumn{{{span}}}{{c}}{{{name}}}" for name in heads[1::span]]
    lines = [" & ".join([heads[0], *spans]), " & ".join(under).replace("Δ", r"$\Delta$")]
    lines += [" & ".join([_escaped(row[0]), *row[1:]]) for row in body]
    ruled = [*(line + r" \\" for line in lines[:2]), r"\hline", *(line + r" \\" for line in lines[2:])]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(under) - 1)}}}", *ruled, r"\end{tabular}"])


def _escaped(text: str) -> str:
    return "".join("\\" + c if c in "&%$#_{}" else c for c in text)
