"""The command `sjdl`: parse, delegate, print. torch is imported inside the commands, so that --help is fast."""

import json
import signal
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


class _Sentences(click.Group):
    """Turns the errors a user can mend into one sentence: exit code 2 for recipes and options, 1 for data."""

    def invoke(self, ctx: click.Context) -> Any:
        from fvrid_tools.records import FvridError

        from .config import ConfigError, DataError

        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
        except (FvridError, DataError, FloatingPointError) as error:
            raise click.ClickException(_sentence(error)) from None
        except ImportError as error:
            raise click.ClickException(
                f"{error}; install the model's packages with pip install 'fvrid[model]'."
            ) from None


def _sentence(error: Exception) -> str:
    """The error's own words, where a DataLoader wrapped it with a worker's traceback."""
    text = str(error).strip()
    return text.splitlines()[-1].partition("Error: ")[2] if "Original Traceback" in text else text


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="fvrid", prog_name="sjdl")
def cli() -> None:
    """Train and evaluate SJDL, semi-supervised joint defogging learning for foggy vehicle re-identification."""


@cli.command()
@click.option("--data", type=PATH, default="data/fvrid-syn", show_default=True, help="Synthetic dataset, split.")
@click.option("--real", type=PATH, help="Real dataset, split; without it defogging is learned with clear images only.")
@click.option("--recipe", default="default", show_default=True, help="A name in manifests/ or a TOML file.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; may repeat.")
@click.option("--run", type=PATH, required=True, help="A new folder for everything the training leaves.")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint; without one, start.")
def train(data: Path, real: Path | None, recipe: str, changes: tuple[str, ...], run: Path, resume: bool) -> None:
    """Train the network into the folder RUN.

    On several GPUs: torchrun --nproc-per-node N -m -- sjdl_model train ... (the -- keeps torchrun from taking --run for
    an option of its own). After SIGTERM the step under way is finished, a checkpoint written, and the exit code is 143;
    the same command with --resume goes on.
    """
    from .config import read_recipe

    resolved = read_recipe(recipe, changes)
    from fvrid_tools.dataset import open_dataset

    from .report import REPORT
    from .train import TerminatedError
    from .train import train as run_training

    datasets = open_dataset(data), None if real is None else open_dataset(real)
    try:
        run_training(*datasets, resolved, run, resume=resume)
    except TerminatedError as error:
        click.echo(str(error), err=True)
        raise SystemExit(128 + signal.SIGTERM) from None
    click.echo(f"{run / REPORT}")


@cli.command("eval")
@click.option("--run", type=PATH, help="A run: its weights are scored, and the result joins its report.")
@click.option("--weights", type=PATH, help="A weights file, instead of a run.")
@click.option("--data", type=PATH, default="data/fvrid-syn", show_default=True, help="A dataset, split.")
@click.option("--domain", type=click.Choice(("synthetic", "real")), help="Refuse a dataset of the other domain.")
@click.option(
    "--images",
    type=click.Choice(("foggy", "clear", "defogged")),
    default="foggy",
    show_default=True,
    help="What to embed.",
)
@click.option(
    "--queries",
    type=click.Choice(("one", "all")),
    default="one",
    show_default=True,
    help="One a vehicle, as in the paper, or every test image in turn: steadier where vehicles are few.",
)
@click.option(
    "--feature",
    type=click.Choice(("after-bn", "before-bn")),
    default="after-bn",
    show_default=True,
    help="What to rank by.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Processes that decode images.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything about the result as JSON.")
def evaluate(
    run: Path | None,
    weights: Path | None,
    data: Path,
    domain: str | None,
    images: str,
    queries: str,
    feature: str,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Score the ranking of a dataset's gallery: mAP, CMC and mINP, with the protocol."""
    if (run is None) == (weights is None):
        raise click.UsageError("name either --run or --weights.")
    from fvrid_tools.dataset import open_dataset

    from .config import DataError

    dataset = open_dataset(data)
    if domain not in (None, dataset.info["domain"]):
        raise DataError(f"{data} is of the {dataset.info['domain']} domain, not {domain}; name another --data.")
    from . import processes
    from .train import evaluate_run, evaluate_weights, pick_device

    options: dict[str, Any] = {
        "condition": images,
        "queries": queries,
        "before_bn": feature == "before-bn",
        "device": device,
        "workers": workers,
    }
    with processes.joined(pick_device(device)):
        if run is not None:
            result = evaluate_run(run, dataset, **options)
        else:
            assert weights is not None
            result, _, _ = evaluate_weights(weights, dataset, **options)
        if processes.rank():
            return
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1))
    else:
        scores = "  ".join(f"{name} {100 * value:.2f}" for name, value in result.scores.items())
        click.echo(f"{result.domain}, {result.images} (%): {scores}\n{result.protocol}; feature {result.feature}")
