"""The command `sjdl`: parse, delegate, print. torch is imported inside the commands, so that --help is fast."""

import json
import os
import signal
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fvrid_tools.command import Sentences
from fvrid_tools.progress import bar

from . import cli_images
from .cli_images import PATH

if TYPE_CHECKING:
    from fvrid_tools.dataset import Dataset

    from .rerank import Rerank
    from .results import Scoring

_FEW = 20  # queries
CONDITIONS = ("foggy", "clear", "defogged")  # as in evaluate.py, which needs torch


_CHANGES = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; may repeat."
)
_SMALLER = "lower p, k or image_size, or set precision=bfloat16"
_OTHER_DEVICE = "lower --batch or --workers, or name another --device"
_COUNTERPARTS = click.option(
    "--counterparts",
    type=PATH,
    help="Dataset of the clear images of --real's scenes (fvrid render --counterparts): restoration towards the truth.",
)


class _Sentences(Sentences):
    """And losses that are not finite, and packages that are not there."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FloatingPointError as error:
            raise click.ClickException(str(error)) from None
        except ImportError as error:
            raise click.ClickException(
                f"{error}; install the model's packages with pip install 'fvrid[model]'."
            ) from None


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="fvrid", prog_name="sjdl")
def cli() -> None:
    """Train and evaluate SJDL, semi-supervised joint defogging learning for foggy vehicle re-identification."""


@cli.command()
@click.option("--data", type=PATH, default="data/fvrid-syn", show_default=True, help="Synthetic dataset, split.")
@click.option(
    "--real", type=PATH, help="Real dataset, split; without it the network learns from synthetic pairs alone."
)
@_COUNTERPARTS
@click.option("--recipe", default="default", show_default=True, help="A name in manifests/ or a TOML file.")
@_CHANGES
@click.option("--run", type=PATH, required=True, help="A new folder for everything the training leaves.")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint; without one, start.")
@cli_images.enough_memory(_SMALLER)
def train(
    data: Path,
    real: Path | None,
    counterparts: Path | None,
    recipe: str,
    changes: tuple[str, ...],
    run: Path,
    resume: bool,
) -> None:
    """Train the network into the folder RUN.

    On several GPUs: torchrun --nproc-per-node N -m -- sjdl_model train ... (the -- keeps torchrun from taking --run for
    an option of its own). After SIGTERM or Ctrl-C the step under way is finished, a checkpoint written, and the exit
    code is 143; the same command with --resume goes on.
    """
    from .config import read_recipe

    resolved = read_recipe(recipe, changes)
    from fvrid_tools.dataset import open_dataset

    from .report import REPORT
    from .train import TerminatedError
    from .train import train as run_training

    clear, foggy, of_foggy = (None if path is None else open_dataset(path) for path in (data, real, counterparts))
    assert clear is not None
    if foggy is None and os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first
        click.echo("no --real: trained on synthetic images alone", err=True)
    try:
        run_training(clear, foggy, resolved, run, counterparts=of_foggy, resume=resume)
    except TerminatedError as error:
        raise _terminated(error, "go on with --resume") from None
    click.echo(f"{run / REPORT}")


def _terminated(error: Exception, mend: str) -> SystemExit:
    click.echo(f"{error}; {mend}.", err=True)
    return SystemExit(128 + signal.SIGTERM)


def _scoring_options(command: Any) -> Any:
    """--queries, --protocol, --feature, --rerank, --device, --workers and --batch, as a `Scoring`."""

    @wraps(command)
    def called(
        queries: str,
        protocol: str,
        feature: str,
        rerank: str | None,
        device: str,
        workers: int,
        batch: int,
        **others: Any,
    ) -> Any:
        from .results import Scoring

        settings = None if rerank is None else _rerank(rerank)
        scoring = Scoring(
            queries=queries,
            protocol=protocol,
            before_bn=feature == "before-bn",
            rerank=settings,
            device=device,
            workers=workers,
            batch=batch,
        )
        return command(scoring=scoring, **others)

    options = (
        click.option(
            "--queries",
            type=click.Choice(("one", "all")),
            default="one",
            show_default=True,
            help="One a vehicle, as in the paper, or every test image in turn: steadier where vehicles are few.",
        ),
        click.option(
            "--protocol",
            type=click.Choice(("auto", "camera-aware", "camera-less", "vehicleid")),
            default="auto",
            show_default=True,
            help="Leave out gallery images of the query's vehicle by its camera, or not; auto: where cameras are known;"
            " vehicleid: ten random galleries of one image a vehicle.",
        ),
        cli_images.FEATURE,
        click.option(
            "--rerank",
            is_flag=False,
            flag_value="20,6,0.3",
            metavar="K1,K2,LAMBDA",
            help="Rank by k-reciprocal distances (Zhong et al. 2017); alone 20,6,0.3.",
        ),
        cli_images.DEVICE,
        cli_images.WORKERS,
        cli_images.BATCH,
    )
    for option in reversed(options):
        called = option(called)
    return called


def _rerank(text: str) -> "Rerank":
    from .rerank import Rerank

    try:
        k1, k2, lam = text.split(",")
        numbers = int(k1), int(k2), float(lam)
    except ValueError:
        raise click.UsageError(f"--rerank {text}: three numbers needed, as in 20,6,0.3.") from None
    return Rerank(*numbers)


def _open(path: Path, domain: str | None) -> "Dataset":
    """A dataset, of the given domain. Raises DataError."""
    from fvrid_tools.dataset import open_dataset

    from .config import DataError

    dataset = open_dataset(path)
    if domain not in (None, dataset.domain):
        raise DataError(f"{path} is of the {dataset.info['domain']} domain, not {domain}; name another.")
    return dataset


@cli.command("eval")
@click.option("--run", type=PATH, help="A run: its weights are scored, and the result joins its report.")
@click.option("--weights", type=PATH, help="A weights file, instead of a run.")
@click.option("--data", type=PATH, default="data/fvrid-syn", show_default=True, help="A dataset, split.")
@click.option("--domain", type=click.Choice(("synthetic", "real")), help="Refuse a dataset of the other domain.")
@click.option("--images", type=click.Choice(CONDITIONS), default="foggy", show_default=True, help="What to embed.")
@click.option(
    "--gallery-images",
    type=click.Choice((*CONDITIONS, "mixed")),
    help="The same of the gallery; mixed: each image foggy or clear.  [default: --images]",
)
@_scoring_options
@click.option("--json", "as_json", is_flag=True, help="Print everything about the result as JSON.")
@cli_images.enough_memory(_OTHER_DEVICE)
def evaluate(
    run: Path | None,
    weights: Path | None,
    data: Path,
    domain: str | None,
    images: str,
    gallery_images: str | None,
    scoring: "Scoring",
    as_json: bool,
) -> None:
    """Score the ranking of a dataset's gallery: mAP, CMC and mINP with 95 % intervals, and the protocol."""
    if (run is None) == (weights is None):
        raise click.UsageError("name either --run or --weights.")
    dataset = _open(data, domain)
    from . import processes
    from .devices import pick_device
    from .results import evaluate_run, evaluate_weights

    with processes.joined(pick_device(scoring.device)):
        if run is not None:
            result = evaluate_run(run, dataset, images, gallery_images, scoring)
        else:
            assert weights is not None
            result = evaluate_weights(weights, dataset, images, gallery_images, scoring)
        if processes.rank():
            return
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1))
        return
    scores = "  ".join(
        f"{name} {100 * value:.2f} [{100 * result.intervals[name][0]:.1f}, {100 * result.intervals[name][1]:.1f}]"
        for name, value in result.scores.items()
    )
    click.echo(f"{result.domain}, {result.images} (%): {scores}\n{result.protocol}; feature {result.feature}")
    if result.queries - result.unmatched < _FEW:
        more = "" if scoring.queries == "all" or scoring.protocol == "vehicleid" else "; --queries all has more"
        click.echo(f"fewer than {_FEW} queries: neither scores nor intervals tell much{more}", err=True)


@cli.command()
@click.option("--run", type=PATH, required=True, help="A run; results.json and results.html are written into it.")
@click.option("--data", type=PATH, help="Synthetic dataset, split.")
@click.option("--real", type=PATH, help="Real dataset, split.")
@click.option(
    "--betas",
    default="0,0.4,0.8,1.2,1.6,2.4,3.2,5",
    show_default=True,
    metavar="BETA,...",
    help="Fog to draw afresh, for the scores by visibility.",
)
@_scoring_options
@cli_images.enough_memory(_OTHER_DEVICE)
def report(run: Path, data: Path | None, real: Path | None, betas: str, scoring: "Scoring") -> None:
    """Score a run under every condition and write RUN/results.html to look at.

    Queries and gallery foggy, clear and defogged, in every combination; mAP and CMC@1 in thicker and thinner fog; PSNR
    and SSIM of the defogged images; rank lists with the worst queries first; the embeddings in two dimensions. Prints
    the scores as a row of the paper's Table 4.
    """
    if data is None and real is None:
        raise click.UsageError("name --data, --real or both.")
    try:
        drawn = tuple(float(beta) for beta in betas.split(","))
    except ValueError:
        drawn = (-1.0,)
    if not all(0 <= beta < 1e6 for beta in drawn):
        raise click.UsageError(f"--betas {betas}: numbers from 0 on needed, as in 0,0.4,1.6.")
    datasets = [_open(path, domain) for path, domain in ((data, "synthetic"), (real, "real")) if path is not None]
    from . import processes
    from .devices import pick_device
    from .results import RESULTS_PAGE, study, summary_table
    from .tables import as_text

    with processes.joined(pick_device(scoring.device)):
        found = study(run, datasets, scoring, drawn)
        if processes.rank():
            return
    click.echo(as_text(summary_table(run, found)))
    click.echo(f"{run / RESULTS_PAGE}")


@cli.command()
@click.option("--data", type=PATH, required=True, help="Synthetic dataset, split.")
@click.option("--real", type=PATH, required=True, help="Real dataset, split.")
@_COUNTERPARTS
@click.option(
    "--recipe",
    default="default",
    show_default=True,
    help="What all arms have in common; past and readings are meant for ablation, as default has most of past itself.",
)
@_CHANGES
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each arm.")
@click.option(
    "--arms",
    help="Arms, or groups of them: controls,table3,table4,table5,readings,past; '' for none.  "
    "[default: controls,table4,table5]",
)
@click.option(
    "--arm",
    "own",
    multiple=True,
    metavar="NAME[@ARM]:KEY=VALUE,...",
    help="One more arm, on top of sjdl or of ARM; may repeat.",
)
@click.option("--validation", is_flag=True, help="Leave the test vehicles alone: score on a part of the others.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at once.")
@click.option("--known", type=PATH, multiple=True, help="results.json of another ablation, not to repeat; may repeat.")
@click.option("--out", type=PATH, required=True, help="A folder for the runs; the same command goes on where it was.")
@cli_images.enough_memory(f"{_SMALLER}, or lower --jobs")
def ablate(
    data: Path,
    real: Path,
    counterparts: Path | None,
    recipe: str,
    changes: tuple[str, ...],
    seeds: int,
    arms: str | None,
    own: tuple[str, ...],
    validation: bool,
    jobs: int,
    known: tuple[Path, ...],
    out: Path,
) -> None:
    """Train and score the rows of the paper's Tables 4 and 5 and their bounds, or of Table 3, the seeds in pairs.

    controls: headroom, oracle. table4: baseline, jdl, sjdl_no_sc, sjdl. table5: conv_2 to conv_5. table3: triplet_,
    bot_ and transreid_ with clear, dark_channel_prior, restorer, firm (trained clear, tested foggy or so defogged) and
    foggy.

    past: what goes past the paper, each switch alone on top of the baseline (statistics, contrast, edge_padding,
    unit_triplet, all_positives, ibn, agreement, physical), together the first five and unit_embedding, together_sjdl
    those with the paper's defogging, and further those with ibn, contrast over the whole image and more vehicles a
    batch.

    readings: sjdl with one choice made otherwise where the paper leaves it open: mse, restoration_less, global,
    self_constraint_more, no_entropy, real_every_5, redrawn, last_stride_1.

    headroom is trained and tested on clear images, oracle is given the true clear images of real fog; both need
    --counterparts for that, without which the headroom is that of synthetic data and the oracle is left out. Prints the
    comparison; OUT/results.json, figure.svg and ablation.html have it too.
    """
    from .ablation import PAGE, Data, ablate, write_page
    from .arms import chosen
    from .compare import compare, remarks, table
    from .tables import as_text
    from .train import TerminatedError

    wanted = chosen(arms, own)
    with bar(len(wanted) * seeds, "ablate", "runs", leave=True) as shown:
        datasets = Data(synthetic=data, real=real, counterparts=counterparts, validation=validation)
        try:
            results = ablate(datasets, wanted, seeds, out, recipe, changes, jobs, known, shown.update)
        except TerminatedError as error:
            raise _terminated(error, "the same command goes on") from None
        except KeyboardInterrupt:  # of several runs at once, each of which has saved
            raise click.ClickException("stopped; the same command goes on.") from None
    for name, of in results.items():
        if not of:
            click.echo(f"{name} is left out: real fog has no clear images; name their --counterparts.", err=True)
    click.echo(as_text(table(compare(results))))
    for remark in remarks(results):
        click.echo(remark)
    write_page(out, results)
    click.echo(f"{out / PAGE}")


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="[NAME=]RUN...")
@click.option("--like", type=click.Choice(("3", "4", "5")), default="4", show_default=True, help="The paper's table.")
@click.option("--results", default="foggy", show_default=True, help="Which of a run's eval-<domain>-<results>.json.")
@click.option("--intervals", is_flag=True, help="With 95 % intervals.")
@click.option("--latex", is_flag=True, help="As a LaTeX tabular.")
def table(runs: tuple[str, ...], like: str, results: str, intervals: bool, latex: bool) -> None:
    """Print the stored scores of runs as the paper's Tables 3, 4 and 5 do: synthetic, real, and in 4 the difference."""
    from . import tables

    rows = []
    for named in runs:
        name, _, path = ("", "", named) if Path(named).is_dir() else named.rpartition("=")
        rows.append(tables.read_run(name or Path(path).resolve().name, Path(path), results))
    for domain in tables.unlike(rows):
        click.echo(f"{domain}: the rows are of different test images or protocols and do not compare", err=True)
    if tables.trained_apart(rows):
        click.echo(
            "the rows were not all trained on the same data and split of it; eval-*.json says on which", err=True
        )
    cells = tables.table(rows, int(like), intervals)
    click.echo(tables.as_latex(cells) if latex else tables.as_text(cells))


for command in cli_images.COMMANDS:
    cli.add_command(command)
