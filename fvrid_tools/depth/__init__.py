"""Depth of an image: d in [0, 1], log-normalised distance, d = log(z / 1 m) / log(81), 0 nearest, 1 farthest.

One module an estimator. To add one: write its module, and a line of _ESTIMATORS.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from ..images import FloatArray, Uint8Image
from ..records import ImageRecord, OptionError

Refinement = Literal["guided", "levin", "none"]  # from superpixels to pixels
REFINEMENTS: tuple[Refinement, ...] = ("guided", "levin", "none")
Polarity = Literal["far-white", "near-white"]  # of depth pictures


class DepthEstimator(Protocol):
    """What build.py asks of an estimator. It is sent to worker processes, so it must pickle."""

    @property
    def name(self) -> str:
        """As a shell passes it to `--depth`, with other options where they were given; the manifest keeps it."""

    @property
    def versions(self) -> dict[str, str]:
        """What decides its depths beside the images: packages by version, files by SHA-256. dataset.json keeps it."""

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) uint8 -> (H, W) float32 in [0, 1]. One by one, as what a network makes of an image depends, in the
        last digit, on how many are in its batch. Raises ImageRefused, with the reason."""


def part_of(estimator: DepthEstimator, records: Sequence[ImageRecord]) -> DepthEstimator:
    """What a task for some images is sent: of depth files, which may be millions, theirs alone."""
    from .files import DepthFiles

    return estimator.of(records) if isinstance(estimator, DepthFiles) else estimator


def open_estimator(spec: str, refine: Refinement | None = None, polarity: Polarity | None = None) -> DepthEstimator:
    """The estimator that `--depth SPEC` names, with `--refine` where it has superpixels and `--polarity` for pictures.

    OptionError where there is none of that name, or what it is given is bad. FvridError where what it needs cannot be
    loaded: all of it is loaded here, so that nothing is begun in vain.
    """
    name, _, argument = spec.partition(":")
    if name not in _ESTIMATORS:
        raise OptionError(f"--depth {spec}: not known; take one of {', '.join(_ESTIMATORS)}.")
    if refine and name not in ("dcnf", "dcnf-mat"):
        raise OptionError(f"--refine {refine} works only with --depth dcnf or dcnf-mat; {name} has no superpixels.")
    if polarity and name != "files":
        raise OptionError(f"--polarity {polarity} works only with --depth files:DIR; leave it out.")
    given = {name: value for name, value in (("refine", refine), ("polarity", polarity)) if value}
    try:
        return _ESTIMATORS[name](argument, **given)
    except ValueError as error:
        raise OptionError(f"--depth {spec}: {error}.") from None


def _dcnf(argument: str, refine: Refinement = "guided") -> DepthEstimator:
    from .dcnf.estimator import DCNF

    estimator = DCNF(Path(argument) if argument else None, refine)
    estimator.load()
    return estimator


def _original(argument: str, refine: Refinement = "levin") -> DepthEstimator:
    if not argument:
        raise ValueError("name the original model's file, as in dcnf-mat:FILE")
    from .dcnf.estimator import OriginalDCNF

    estimator = OriginalDCNF(Path(argument), refine)
    estimator.load()
    return estimator


def _source(argument: str) -> DepthEstimator:
    from .source import SourceDepth

    if argument:
        raise ValueError("source takes no argument")
    return SourceDepth()


def _planar(argument: str) -> DepthEstimator:
    from .planar import Planar

    if argument:
        raise ValueError("planar takes no argument")
    return Planar()


def _constant(argument: str) -> DepthEstimator:
    from .constant import Constant

    return Constant(float(argument)) if argument else Constant()


def _files(argument: str, polarity: Polarity | None = None) -> DepthEstimator:
    from .files import DepthFiles

    if not argument:
        raise ValueError("name the folder of depth pictures, as in files:DIR")
    return DepthFiles.index(Path(argument), polarity)


def _transformers(argument: str) -> DepthEstimator:
    from .transformers import TransformersDepth

    if not argument:
        raise ValueError("name a model, as in hf:depth-anything/Depth-Anything-V2-Small-hf, or a folder that holds one")
    estimator = TransformersDepth(argument)
    estimator.load()  # what is wrong with it is said before anything is written
    return estimator


_ESTIMATORS: dict[str, Callable[..., DepthEstimator]] = {
    "dcnf": _dcnf,
    "source": _source,
    "planar": _planar,
    "constant": _constant,
    "files": _files,
    "hf": _transformers,
    "dcnf-mat": _original,
}
