"""The order of an evaluation: weights -> embeddings -> scores -> files to read. The only module that knows it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fvrid_tools import page
from fvrid_tools.dataset import Dataset
from fvrid_tools.files import sha256_file, write_atomic
from fvrid_tools.progress import bar

from . import processes
from .card import write_card
from .checkpoint import read_facts
from .conditions import BETAS, conditions_of, defogging_quality, matrix, visibility_curve
from .config import ConfigError
from .devices import pick_device, set_precision
from .evaluate import BATCH, Embedder, Result, TestSet, check_conditions, embedded, evaluate_dataset
from .network import SJDL, WEIGHTS, check_defogs, load_network, weights_file
from .ranklists import rank_lists, scatter
from .report import read_text, write_examples, write_report
from .rerank import Rerank
from .tables import Compared, table

RESULTS, RESULTS_PAGE = "results.json", "results.html"


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How test images are embedded and ranked."""

    queries: str = "one"
    protocol: str = "auto"
    before_bn: bool = False
    rerank: Rerank | None = None
    device: str = "auto"
    workers: int = 0
    batch: int = BATCH  # images at once in the network

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if self.protocol == "vehicleid" and self.rerank:
            raise ConfigError("VehicleID's protocol is without re-ranking; leave --rerank out.")

    def name(self, domain: str, images: str, gallery_images: str) -> str:
        """Of the file that keeps a result: eval-<domain>-<images>, and whatever else is not the default."""
        parts = ["eval", domain, images, *([f"to-{gallery_images}"] if gallery_images != images else [])]
        parts += ["all-queries"] * (self.queries == "all") + [self.protocol] * (self.protocol != "auto")
        parts += ["before-bn"] * self.before_bn + ([] if self.rerank is None else [self.rerank.name])
        return "-".join(parts) + ".json"


def evaluate_weights(
    weights: Path, data: Dataset, images: str = "foggy", gallery_images: str | None = None, scoring: Scoring = Scoring()
) -> Result:
    """Score a weights file on a dataset, with a progress bar on stderr. Raises DataError, ConfigError."""
    test = TestSet(data, scoring.queries, scoring.protocol)
    conditions = embedded(images, gallery_images)
    if scoring.protocol == "vehicleid" and len(conditions) > 1:
        raise ConfigError("VehicleID's protocol is for one condition; leave --gallery-images out.")
    check_conditions(test.data, conditions)
    net, size = _load(weights)
    if "defogged" in conditions:
        check_defogs(net)
    with _embedding(net, size, scoring, len(conditions) * len(test.data)) as embedder:
        result = evaluate_dataset(embedder, test, images, gallery_images, scoring.rerank)
    return _marked([result], weights)[0]


def evaluate_run(
    run: Path, data: Dataset, images: str = "foggy", gallery_images: str | None = None, scoring: Scoring = Scoring()
) -> Result:
    """Score a run's weights on a dataset, store the result beside them, and write its report and card anew."""
    result = evaluate_weights(run / WEIGHTS, data, images, gallery_images, scoring)
    if processes.rank() == 0:
        _keep(run, result, scoring)
        net, size = _load(run / WEIGHTS)
        write_examples(run, net, data, size, pick_device(scoring.device))
        _write_pages(run)
    return result


def study(
    run: Path, datasets: list[Dataset], scoring: Scoring = Scoring(), betas: tuple[float, ...] = BETAS
) -> dict[str, Any]:
    """Score a run under every condition, and write results.json and results.html into it.

    datasets: the synthetic, the real, or both. Per dataset the matrix {foggy, clear, defogged} x the same and mixed;
    the curve over fog redrawn with each beta, where the airlight is known; PSNR and SSIM where there are clear images;
    rank lists and the embeddings in two dimensions. -> what results.json holds, by domain.
    """
    tests = [TestSet(data, scoring.queries, scoring.protocol) for data in datasets]
    net, size = _load(run / WEIGHTS)
    found: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    passes = sum(_passes(test, net.defogs, betas) * len(test.data) for test in tests)
    with _embedding(net, size, scoring, passes) as embedder:
        for test in tests:
            domain = test.data.domain
            scored, embeddings = matrix(embedder, test, net.defogs, scoring.rerank)
            results = _marked(scored, run / WEIGHTS)
            found[domain] = {
                "matrix": [result.to_json() for result in results],
                "curve": [],
                "quality": defogging_quality(embedder, test.data, net.defogs) if test.data.has_clear else {},
            }
            if test.data.fog:
                curve = visibility_curve(embedder, test, embeddings["clear"], betas, scoring.rerank)
                found[domain]["curve"] = [
                    point | {name: getattr(results[0], name) for name in _ORIGIN} for point in curve
                ]
            if processes.rank() == 0:
                foggy = embeddings["foggy"]
                ranks = rank_lists(test, foggy, size, embedder.device)
                shown[domain] = {"ranks": ranks, "scatter": scatter(test, foggy)}
                write_examples(run, net, test.data, size, embedder.device)
            for result in results:
                if result.images == result.gallery_images:
                    _keep(run, result, scoring)
    if processes.rank() == 0:
        write_atomic(run / RESULTS, json.dumps(found, indent=1, allow_nan=False) + "\n")
        write_atomic(run / RESULTS_PAGE, _page(run, found, shown, reranked=scoring.rerank is not None))
        _write_pages(run)
    return found


def summary_table(run: Path, found: dict[str, Any]) -> list[list[str]]:
    """A run's scores of foggy images as a row of Table 4, with intervals; `found` as `study` gives it."""
    foggy = [_of(found[domain]["matrix"], "foggy") if domain in found else None for domain in ("synthetic", "real")]
    return table([Compared(run.resolve().name, *foggy)], intervals=True)


def _of(results: list[dict[str, Any]], images: str, gallery_images: str | None = None) -> dict[str, Any]:
    wanted = images, gallery_images or images
    return next(result for result in results if (result["images"], result["gallery_images"]) == wanted)


def _passes(test: TestSet, defogs: bool, betas: tuple[float, ...]) -> int:
    """How often each test image goes through the network."""
    conditions = len(conditions_of(test.data, defogs))
    return conditions + sum(beta > 0 for beta in betas) * (test.data.fog is not None) + test.data.has_clear


def _load(weights: Path) -> tuple[SJDL, int]:
    net, architecture = load_network(weights)
    return net, architecture.image_size


_ORIGIN = ("trained_on", "trained_on_sha256", "weights_sha256")  # of a result, see `_marked`


def _marked(results: list[Result], weights: Path) -> list[Result]:
    """The results, saying which weights they are of."""
    facts, sha256 = read_facts(weights), sha256_file(weights_file(weights))
    built, data = facts.get("built", ""), facts.get("data", "")
    return [replace(result, trained_on=built, trained_on_sha256=data, weights_sha256=sha256) for result in results]


@contextmanager
def _embedding(net: SJDL, size: int, scoring: Scoring, count: int) -> Iterator[Embedder]:
    """An embedder whose progress bar expects so many images, of all processes together."""
    device = pick_device(scoring.device)
    set_precision("float32", device)
    with bar(count // processes.count(), "embed", shown=processes.rank() == 0) as shown:
        yield Embedder(
            net=net,
            size=size,
            before_bn=scoring.before_bn,
            workers=scoring.workers,
            batch=scoring.batch,
            device=device,
            progress=shown.update,
        )


def _keep(run: Path, result: Result, scoring: Scoring) -> None:
    if processes.rank() == 0:
        path = run / scoring.name(result.domain, result.images, result.gallery_images)
        before = read_text(path)
        if before and f'"data_sha256": "{result.data_sha256}"' not in before:
            tqdm.write(f"{path}: was of another dataset, or another split of it, and is replaced", file=sys.stderr)
        write_atomic(path, json.dumps(result.to_json(), indent=1) + "\n")


def _write_pages(run: Path) -> None:
    write_report(run)
    write_card(run)


def _page(run: Path, found: dict[str, Any], shown: dict[str, Any], *, reranked: bool) -> str:
    """results.html: tables, charts and pictures in one file."""
    examples = {
        domain: page.data_uri(path.read_bytes())
        for domain in found
        if (path := run / f"examples-{domain}.jpg").exists()
    }
    cmc = {domain: _of(parts["matrix"], "foggy")["cmc"] for domain, parts in found.items()}
    curve = found.get("synthetic", {}).get("curve", [])
    return page.render(
        "sjdl_model",
        "results.html.j2",
        title=f"SJDL results: {run.resolve().name}",
        table=summary_table(run, found),
        found=found,
        shown=shown,
        cmc=page.lines(
            {domain: [(rank, 100 * share) for rank, share in enumerate(values, 1)] for domain, values in cmc.items()},
            "CMC@r, %, over the rank r",
        ),
        curve=curve,
        curve_chart=page.lines(
            {name: [(point["beta"], 100 * point[name]) for point in curve] for name in ("mAP", "CMC@1")},
            "%, over beta",
        ),
        examples=examples,
        reranked=reranked,
        defogs=any(result["images"] == "defogged" for parts in found.values() for result in parts["matrix"]),
    )
