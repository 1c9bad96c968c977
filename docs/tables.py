"""Print a table of docs/results.md, in Markdown, from one of the files beside it; with --figure draw it too.

.venv/bin/python docs/tables.py docs/ablation-gpu.json --figure docs/test-gpu.svg
.venv/bin/python docs/tables.py docs/validation.json --over sjdl
"""

from pathlib import Path

import click
import numpy as np

from fvrid_tools import page
from sjdl_model.compare import Interval, Line, Results, compare, intervals_of, read_results

OTHERS = {
    "CMC@1 S": "CMC@1_synthetic",
    "CMC@1 R": "CMC@1_real",
    "PSNR S": "psnr_synthetic_defogged",
    "PSNR R": "psnr_real_defogged",
}
RANGES = ("over queries", "over seeds")
HEADS = ("arm", "seeds", "mAP S", "mAP R", *RANGES, "gain S", "gain R", *RANGES, "recovered", *OTHERS)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--over", default="baseline", show_default=True, help="The arm that gains are over.")
@click.option("--arms", help="These alone, in this order, separated by commas.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE.svg")
def main(file: Path, over: str, arms: str | None, figure: Path | None) -> None:
    """A row an arm, with 95 % intervals; of columns those that are not empty."""
    every = read_results(file)
    wanted = [over, *(name for name in (arms.split(",") if arms else every) if name != over)]
    if unknown := [name for name in wanted if name not in every]:
        raise click.UsageError(f"{file} has no arm {unknown[0]}; it has {', '.join(every)}.")
    found = {line.arm: line for line in compare(every, over)}
    lines = [found[name] for name in wanted]
    table = [HEADS, *(_cells(line, _gain(every, line.arm, over)) for line in lines)]
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    head, *rows = zip(*columns, strict=True)
    for cells in (head, ["---"] * len(head), *rows):
        click.echo(f"| {' | '.join(cells)} |")
    if figure is not None:
        chart = page.intervals(intervals_of(lines), "mAP in real fog, percent, and what both 95 % intervals cover")
        figure.write_text(page.as_svg_file(chart), encoding="utf-8")


def _gain(results: Results, arm: str, over: str) -> float | None:
    """In synthetic fog, percent, the seeds in pairs."""
    shared = [seed for seed in results[arm] if seed in results[over]]
    if arm == over or not shared:
        return None
    one, other = ([results[name][seed]["mAP_synthetic"] for seed in shared] for name in (arm, over))
    return 100 * float(np.mean(one) - np.mean(other))


def _cells(line: Line, gain: float | None) -> list[str]:
    return [
        line.arm,
        str(line.seeds),
        _number(line.synthetic),
        _number(line.real),
        _interval(line.over_queries),
        _interval(line.over_seeds),
        _number(gain, "+"),
        _number(line.gain, "+"),
        _interval(line.gain_over_queries, "+"),
        _interval(line.gain_over_seeds, "+"),
        "" if line.recovered is None else f"{line.recovered:.0f} %",
        *(_number(line.others.get(name)) for name in OTHERS.values()),
    ]


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}"


def _interval(found: Interval | None, sign: str = "") -> str:
    return "" if found is None else f"[{found[0]:{sign}.1f}, {found[1]:{sign}.1f}]"


if __name__ == "__main__":
    main()
