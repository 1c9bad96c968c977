"""What an ablation says: means over seeds, differences from the baseline with intervals, and what share of the mAP that
fog takes comes back. And the file that it keeps its scores in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from fvrid_tools.files import write_atomic

from .config import DataError, from_toml
from .metrics import bootstrap

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]  # arm -> seed -> score by name, with the lists of every query's
Results = dict[str, dict[str, dict[str, Any]]]  # the same, growing
Interval = tuple[float, float]


class Line(NamedTuple):
    """An arm in percent; None where it was not measured."""

    arm: str
    seeds: int
    synthetic: float | None  # mAP, mean over the seeds
    real: float | None
    over_seeds: Interval | None  # 95 % interval of `real`: Student's t over the seeds; None of a single one
    over_queries: Interval | None  # the same: bootstrap over the queries, each with its mean over the seeds
    gain: float | None  # of `real` over that of the baseline, or of another arm, the seeds in pairs
    gain_over_seeds: Interval | None
    gain_over_queries: Interval | None
    recovered: float | None  # percent: the gain over what fog takes, which is the gain of headroom with the same seeds
    others: dict[str, float]  # means of CMC@1_synthetic, psnr_real_defogged, ...


OTHERS = (
    "CMC@1_synthetic",
    "CMC@1_real",
    "mAP_real_before_bn",
    "mAP_real_unit",
    "psnr_synthetic_defogged",
    "psnr_real_defogged",
)


def write_results(path: Path, results: Scores) -> None:
    """A line a run, the seeds in order."""
    arms = []
    for arm, of in results.items():
        runs = [f"  {json.dumps(seed)}: {json.dumps(of[seed])}" for seed in sorted(of, key=int)]
        arms.append(f" {json.dumps(arm)}: {{\n" + ",\n".join(runs) + "\n }")
    write_atomic(path, "{\n" + ",\n".join(arms) + "\n}\n")


def read_results(path: Path) -> Results:
    """Raises DataError where a file is none that `write_results` wrote of an ablation."""
    try:
        found: Results = json.loads(path.read_text(encoding="utf-8"))
        runs = [scores for of in found.values() for scores in of.values()]
        complete = all({"mAP_real", "images"} <= run.keys() and isinstance(run.get("recipe"), str) for run in runs)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not the results of an ablation ({error!r:.120}).") from None
    if not complete:
        raise DataError(f"{path}: not the results of an ablation (runs without scores, recipe or images).")
    return found


def remarks(results: Scores) -> list[str]:
    """How the runs were tested, a sentence for each way; and where arms of a seed began with unlike backbones."""
    runs = [(seed, scores) for of in results.values() for seed, scores in of.items()]
    keys = {domain: f"protocol_{domain}" for domain in ("synthetic", "real")}
    tested = sorted({f"{domain}: {run[key]}" for _, run in runs for domain, key in keys.items() if key in run})
    begun: dict[tuple[str, str, bool], set[str | None]] = {}
    for seed, run in runs:
        recipe = from_toml(run["recipe"], f"seed {seed}")
        if not recipe.pretrained:
            begun.setdefault((seed, recipe.backbone, recipe.transreid), set()).add(run.get("begun"))
    mixed = {seed: found for (seed, *_), found in begun.items() if len(found) > 1}
    return tested + [
        f"seed {seed}: "
        + ("it is not known of all arms that they" if len(mixed[seed] - {None}) == 1 else "not all arms")
        + " began with one backbone, so differences may not be of exact pairs"
        for seed in sorted(mixed, key=int)
    ]


def compare(results: Scores, over: str = "baseline") -> list[Line]:
    """A line an arm that has scores; gains are over the arm of that name."""
    baseline, headroom = results.get(over, {}), results.get("headroom", {})
    return [_line(name, of, baseline if name != over else {}, headroom) for name, of in results.items() if of]


def _line(
    name: str, of: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Any], headroom: Mapping[str, Any]
) -> Line:
    synthetic, real = (_values(of, f"mAP_{domain}") for domain in ("synthetic", "real"))
    shared, gains = _shared(of, baseline), _gains(of, baseline)
    by_query = _by_query(of)
    of_baseline = _by_query({seed: baseline[seed] for seed in shared})
    paired = by_query is not None and of_baseline is not None and len(by_query) == len(of_baseline)
    means = {score: _mean(_values(of, score)) for score in OTHERS}
    return Line(
        arm=name,
        seeds=len(of),
        synthetic=_mean(synthetic),
        real=_mean(real),
        over_seeds=over_seeds(real),
        over_queries=None if by_query is None else over_queries(by_query),
        gain=_mean(gains),
        gain_over_seeds=over_seeds(gains),
        gain_over_queries=over_queries(by_query - of_baseline) if paired and len(shared) == len(of) else None,  # type: ignore[operator]
        recovered=_recovered(of, baseline, headroom),
        others={score: mean for score, mean in means.items() if mean is not None},
    )


def _shared(of: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Any]) -> list[str]:
    """Seeds with which an arm and the baseline were scored in real fog."""
    return [seed for seed in of if seed in baseline and None not in (of[seed]["mAP_real"], baseline[seed]["mAP_real"])]


def _gains(of: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Any]) -> NDArray[np.float64]:
    """In percent, by shared seed."""
    return 100 * np.array([of[seed]["mAP_real"] - baseline[seed]["mAP_real"] for seed in _shared(of, baseline)])


def _recovered(
    of: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Any], headroom: Mapping[str, Any]
) -> float | None:
    """Percent, of the seeds that all three have."""
    known = {seed: scores for seed, scores in baseline.items() if seed in of and seed in headroom}
    gains, lost = _gains(of, known), _mean(_gains(headroom, known))
    return 100 * float(gains.mean()) / lost if len(gains) and lost else None


def over_seeds(values: NDArray[np.float64]) -> Interval | None:
    """95 % interval of the mean of a few values, by Student's t; None of fewer than two."""
    if len(values) < 2:
        return None
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def over_queries(values: NDArray[np.float64]) -> Interval:
    """95 % interval of the mean, by bootstrap."""
    low, high = bootstrap(values[:, None])[:, 0]
    return float(low), float(high)


def _by_query(of: Mapping[str, Mapping[str, Any]]) -> NDArray[np.float64] | None:
    """Average precision of each query with a match in real fog, in percent, mean over the seeds."""
    lists = [scores.get("average_precision_real") for scores in of.values()]
    if not lists or any(one is None for one in lists):
        return None
    mean = 100 * np.mean(np.array(lists, dtype=float), axis=0)
    found: NDArray[np.float64] = mean[~np.isnan(mean)]
    return found


def _values(of: Mapping[str, Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """By seed; scores in percent, PSNR in dB."""
    factor = 1 if name.startswith(("psnr", "ssim")) else 100
    return factor * np.array([scores[name] for scores in of.values() if scores.get(name) is not None], dtype=float)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def intervals_of(lines: Sequence[Line]) -> dict[str, tuple[float, float, float]]:
    """For the figure: mAP in real fog, and the interval that covers its two."""
    found = {}
    for line in lines:
        if line.real is not None:
            wide = [interval for interval in (line.over_seeds, line.over_queries) if interval is not None]
            found[line.arm] = (line.real, min(low for low, _ in wide), max(high for _, high in wide))
    return found


HEADS = (
    "arm",
    "seeds",
    "mAP S",
    "mAP R",
    "over seeds",
    "over queries",
    "S - R",
    "R before BN",
    "R unit",
    "CMC@1 S",
    "CMC@1 R",
)
SCORES = ("mAP_real_before_bn", "mAP_real_unit", "CMC@1_synthetic", "CMC@1_real")  # those of HEADS that are OTHERS
GAINS = ("gain R", "over seeds", "over queries", "recovered", "PSNR S", "PSNR R")


def table(lines: Sequence[Line]) -> list[list[str]]:
    """Cells, the heading first."""
    cells = [[*HEADS, *GAINS]]
    for line in lines:
        both = line.synthetic is not None and line.real is not None
        cells.append(
            [
                line.arm,
                str(line.seeds),
                _number(line.synthetic),
                _number(line.real),
                _interval(line.over_seeds),
                _interval(line.over_queries),
                _number(line.synthetic - line.real if both else None),  # type: ignore[operator]
                *(_number(line.others.get(score)) for score in SCORES),
                _number(line.gain, "+"),
                _interval(line.gain_over_seeds, "+"),
                _interval(line.gain_over_queries, "+"),
                "-" if line.recovered is None else f"{line.recovered:.0f} %",
                *(_number(line.others.get(f"psnr_{domain}_defogged")) for domain in ("synthetic", "real")),
            ]
        )
    return cells


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def _interval(found: Interval | None, sign: str = "") -> str:
    return "-" if found is None else f"[{found[0]:{sign}.1f}, {found[1]:{sign}.1f}]"
