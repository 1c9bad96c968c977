"""What the commands share: errors as sentences, and options. No heavy import, so that --help is fast."""

import math
import os
from typing import TYPE_CHECKING, Any

import click

from .records import FvridError, OptionError

if TYPE_CHECKING:
    from .depth import DepthEstimator


class Sentences(click.Group):
    """Turns the errors that a user can mend into one sentence: exit code 2 for options, 1 for data."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OptionError as error:
            raise click.UsageError(str(error)) from None
        except FvridError as error:
            raise click.ClickException(_own_words(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            from .files import sentence_of

            raise click.ClickException(sentence_of(error)) from None


def _own_words(error: FvridError) -> str:
    """Where a DataLoader wrapped the error with its worker's traceback, too."""
    text = str(error).strip()
    return text.splitlines()[-1].partition("Error: ")[2] if "Original Traceback" in text else text


class FiniteRange(click.FloatRange):
    """click's range, which lets nan pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


def _cores() -> int:
    """Those that this process may use, as a scheduler allows it; the most that Windows can wait for."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return min(os.cpu_count() or 1, 60)


def open_depth(spec: str, refine: Any, polarity: Any) -> "DepthEstimator":
    """What --depth, --refine and --polarity name; what is doubtful about it is said. Raises as `open_estimator`."""
    from .depth import open_estimator
    from .depth.files import DepthFiles

    estimator = open_estimator(spec, refine, polarity)
    if isinstance(estimator, DepthFiles) and estimator.doubt:
        click.echo(estimator.doubt, err=True)
    return estimator


SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of every draw.")
WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=_cores,
    show_default="one a core",
    help="Processes; their number changes no byte.",
)
SPECS = "dcnf[:FILE] | source | planar | constant[:D] | files:DIR | hf:MODEL | dcnf-mat:FILE"
REFINE = click.option(
    "--refine",
    type=click.Choice(("guided", "levin", "none")),
    help="From superpixels to pixels.  [default: guided, the fast one; for dcnf-mat levin, the original's]",
)
POLARITY = click.option(
    "--polarity",
    type=click.Choice(("far-white", "near-white")),
    help="Of the pictures of files:DIR.  [default: far-white]",
)
