"""Training recipes: frozen dataclasses, TOML in and out, one-off changes by KEY=VALUE. A misspelt key is an error."""

import copy
import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from fvrid_tools.files import MANIFESTS, find_manifest
from fvrid_tools.fog import PRESETS
from fvrid_tools.records import FvridError, OptionError

RESTORATION_NORMS = ("l2", "mse")
SELF_CONSTRAINTS = ("global", "phase")
IMAGES = ("foggy", "clear")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")

# terms about the defogged image: where the clear one is known, and where not
SUPERVISED_TERMS = ("restoration",)
UNSUPERVISED_TERMS = ("color_entropy", "dark_channel", "total_variation", "self_constraint")
IMAGE_TERMS = (*SUPERVISED_TERMS, *UNSUPERVISED_TERMS)


class ConfigError(OptionError):
    """One sentence for the user: which key or file is wrong, and how to mend it."""


class DataError(FvridError, ValueError):
    """One sentence for the user: what the data lacks, and how to mend it."""


def first_line(error: Exception) -> str:
    """What to quote of an error of others in such a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Factors of the terms of Eqs. 5, 11 and 12; a term of weight 0 is not computed."""

    triplet: float = 1.0
    identity: float = 1.0
    restoration: float = 1.0  # lambda1
    color_entropy: float = 1.0
    dark_channel: float = 1e-5  # lambda2
    total_variation: float = 1e-5  # lambda3
    self_constraint: float = 300.0  # lambda4
    agreement_shared: float = 0.0  # of a clear image and its foggy twin, at the shared stage; not of the paper
    agreement_embedding: float = 0.0  # the same at the embedding


@dataclass(frozen=True, slots=True, kw_only=True)
class Fog:
    """Where the fog of synthetic training images comes from."""

    redraw: bool = False  # beta and A drawn anew for every visit, from the dataset's ranges, instead of the stored fog
    noise: float = 0.0  # grey levels: the most of the camera noise (a deviation, drawn at every visit) of redrawn fog
    preset: str = ""  # from the ranges of one of fog.PRESETS instead of the dataset's


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training run. The defaults are the paper's, see manifests/paper.toml."""

    backbone: str = "resnet50"  # any timm model with four feature stages
    pretrained: bool | str = True  # ImageNet weights from timm's hub, none, or those in a local file
    shared_stage: int = 2  # the CFSM is conv_1 .. conv_<shared_stage>, 2 to 5
    last_stride: int = 1  # of conv_5: 1 or 2
    image_size: int = 384  # pixels, square, a multiple of 32
    p: int = 6  # vehicles a batch
    k: int = 6  # images a vehicle
    real_every: int = 1  # a real batch in every real_every-th step
    epochs: int = 120
    steps_per_epoch: int = 0  # 0: as many as one pass over the synthetic training images has
    lr: float = 1e-4  # at the end of the warm-up
    weight_decay: float = 5e-4
    margin: float = 0.3  # of the triplet loss, Eq. 2
    label_smoothing: float = 0.0
    restoration_norm: str = "l2"  # of Eq. 4: "l2" as printed, or "mse"
    self_constraint: str = "global"  # reading of Eq. 10: "global" as printed, or "phase"
    images: str = "foggy"  # what identities are learned from; "clear" is for bounds, see ablation.py
    domain_statistics: bool = False  # batch norm keeps running statistics of its own for each domain
    edge_padding: bool = False  # random crops go on beyond an image with the pixels of its edge, not with black
    unit_triplet: bool = False  # the triplet loss compares embeddings of length 1, not the features before BN
    all_positives: bool = False  # the triplet loss has each image of the same vehicle in turn, not the farthest alone
    unit_embedding: bool = False  # embeddings have a length of 1: Euclidean distance ranks as the cosine does
    transreid: bool = False  # the backbone is a vision transformer, with camera embedding and jigsaw branch
    ibn: bool = False  # half of the channels of a ResNet's first norms by instance (IBN-a)
    local_contrast: bool = False  # the backbone sees local contrast (norms.py), not the image normalised as ImageNet's
    whole_contrast: bool = False  # and contrast over the whole image beside it, in three more channels
    seed: int = 0
    workers: int = 2  # processes that decode images; their number changes no number
    cache: bool = False  # keep the decoded training images on the device, for small ones; changes no number
    precision: str = "float32"  # of the network's products in training; losses and weights are float32 in any case
    compile: bool = False  # torch.compile the network: minutes at the start, faster steps where it helps
    device: str = "auto"  # "auto" takes a GPU where there is one
    save_every: int = 0  # steps between checkpoints within an epoch; 0: only at its end
    weights: Weights = field(default_factory=Weights)
    fog: Fog = field(default_factory=Fog)

    def __post_init__(self) -> None:
        amounts = (self.lr, self.weight_decay, self.margin, *dataclasses.astuple(self.weights))
        checks = {
            "shared_stage must be 2 to 5": 2 <= self.shared_stage <= 5,
            "last_stride must be 1 or 2": self.last_stride in (1, 2),
            "image_size must be a multiple of 32": self.image_size > 0 and self.image_size % 32 == 0,
            "p must be at least 2 and k at least 2": self.p >= 2 and self.k >= 2,
            "epochs, steps_per_epoch, workers and save_every must not be negative": all(
                count >= 0 for count in (self.epochs, self.steps_per_epoch, self.workers, self.save_every)
            ),
            "real_every must be at least 1": self.real_every >= 1,
            "seed must be 0 to 2**63 - 1": 0 <= self.seed < 2**63,
            "lr, weight_decay, margin and weights must be finite and not negative": all(
                math.isfinite(amount) and amount >= 0 for amount in amounts
            ),
            "weights.triplet and weights.identity must not both be 0": self.weights.triplet or self.weights.identity,
            "transreid needs last_stride=2, ibn=false and a shared_stage of 2 to 4": not self.transreid
            or (self.last_stride == 2 and not self.ibn and self.shared_stage < 5),
            "transreid knows an image's camera, which defogging does not; set the weights of the image terms to 0": (
                not self.transreid or not any(getattr(self.weights, name) for name in IMAGE_TERMS)
            ),
            "whole_contrast comes beside local_contrast; set local_contrast=true": self.local_contrast
            or not self.whole_contrast,
            "label_smoothing must be in [0, 1)": 0 <= self.label_smoothing < 1,
            f"precision must be one of {PRECISIONS}": self.precision in PRECISIONS,
            f"images must be one of {IMAGES}": self.images in IMAGES,
            f"fog.preset must be one of {('', *PRESETS)}": self.fog.preset in ("", *PRESETS),
            "fog.noise must be 0 to 255, and is for fog that is drawn anew": 0 <= self.fog.noise <= 255
            and (self.fog.redraw or not self.fog.noise),
            "fog.preset is for fog that is drawn anew; set fog.redraw=true": self.fog.redraw or not self.fog.preset,
            "restoration is towards the clear image; with images=clear set the weights of the image terms to 0": (
                self.images == "foggy" or not any(getattr(self.weights, name) for name in IMAGE_TERMS)
            ),
            f"restoration_norm must be one of {RESTORATION_NORMS}": self.restoration_norm in RESTORATION_NORMS,
            f"self_constraint must be one of {SELF_CONSTRAINTS}": self.self_constraint in SELF_CONSTRAINTS,
        }
        for sentence, holds in checks.items():
            if not holds:
                raise ConfigError(f"{sentence}.")


# What may differ when a run is resumed: where it is computed and how often it is saved, not what.
_CIRCUMSTANCES = {"workers", "cache", "compile", "device", "save_every"}

_TABLES: dict[str, type] = {"weights": Weights, "fog": Fog}


def read_recipe(name_or_path: str, changes: Iterable[str] = ()) -> Recipe:
    """The recipe of a TOML file, or of manifests/<name>.toml, with KEY=VALUE changes.

    A file that begins with base = "NAME" says only in what it differs from that recipe.
    Raises ConfigError where the recipe is not found, a key is unknown or a value has the wrong type.
    """
    path = _find(name_or_path)
    values = _read(path)
    passed = {path}
    while (base := values.pop("base", None)) is not None:
        below = _find(str(base))
        if below in passed:
            raise ConfigError(f"{path}: base = {str(base)!r} leads in a circle; take a base out.")
        passed.add(below)
        values = _over(_read(below), values)
    changed, said = copy.deepcopy(values), list(changes)
    for change in said:
        _set(changed, change)
    try:
        return from_dict(changed, str(path))
    except ConfigError:
        from_dict(values, str(path))  # where the file itself is at fault, that is said
        for change in said:  # or a change
            one: dict[str, Any] = {}
            _set(one, change)
            _typed(one, f"--set {change}")
        return from_dict(changed, " ".join(f"--set {change}" for change in said))


def from_toml(text: str, where: str) -> Recipe:
    """The recipe that `to_toml` wrote; `where` is named in errors."""
    try:
        return from_dict(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not a recipe ({error}).") from None


def same_run(recipe: Recipe, other: Recipe) -> bool:
    """Whether two recipes ask for the same weights: whatever they say about workers, devices and checkpoints."""
    return not differences(recipe, other)


def differences(recipe: Recipe, other: Recipe) -> list[str]:
    """In what two recipes do not ask for the same weights: "lr = 0.1, not 0.2"."""
    first, second = (dataclasses.asdict(one) for one in (recipe, other))
    for values in (first, second):
        for table in _TABLES:
            values |= {f"{table}.{key}": value for key, value in values.pop(table).items()}
    keys = [key for key in first if key not in _CIRCUMSTANCES and first[key] != second[key]]
    return [f"{key} = {first[key]}, not {second[key]}" for key in keys]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a recipe ({error}).") from None


def _over(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The values with the changes, table by table."""
    merged = values | changes
    for table in _TABLES:
        if isinstance(values.get(table), dict) and isinstance(changes.get(table), dict):
            merged[table] = values[table] | changes[table]
    return merged


def _find(name_or_path: str) -> Path:
    path = find_manifest(name_or_path)
    if path is None:
        names = {path.stem for path in MANIFESTS.glob("*.toml")} - {"fvrid_syn", "fvrid_real"}
        raise ConfigError(f"{name_or_path}: no such recipe; name a TOML file or one of {', '.join(sorted(names))}.")
    return path


def _set(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise ConfigError(f"--set {change}: write KEY=VALUE, as in epochs=10.")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {change}: {table} is not a table.")
    values[last] = value


def from_dict(values: dict[str, Any], where: str) -> Recipe:
    """A recipe of nested dicts; `where` is named in errors."""
    fields = _typed(values, where)
    try:
        return Recipe(**fields)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _typed(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a Recipe, with known keys and values of the right types."""
    values = dict(values)
    parts: dict[str, Any] = {}
    for table, kind in _TABLES.items():
        part = values.pop(table, {})
        if not isinstance(part, dict):
            raise ConfigError(f"{where}: {table} is a table; set one of its keys, as in weights.triplet=1.")
        parts[table] = kind(**_checked(kind, part, where, f"{table}."))
    return _checked(Recipe, values, where) | parts


def _checked(kind: type, values: dict[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    known = get_type_hints(kind)
    checked = {}
    for key, value in values.items():
        if key not in known or key in _TABLES:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {prefix}{nearest[0]}?" if nearest else f"; known are {', '.join(known)}."
            raise ConfigError(f"{where}: there is no key {prefix}{key}{hint}")
        expected = known[key]
        if expected is float and type(value) is int:
            value = float(value)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected in (int, float)):
            name = getattr(expected, "__name__", str(expected))
            raise ConfigError(f"{where}: {prefix}{key} = {value!r} is not {name}.")
        checked[key] = value
    return checked


def to_toml(recipe: Recipe) -> str:
    """The recipe, every key, as TOML that `read_recipe` takes."""
    values = dataclasses.asdict(recipe)
    tables = {name: values.pop(name) for name in _TABLES}
    lines = [f"{key} = {_to_toml(value)}" for key, value in values.items()]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_to_toml(value)}" for key, value in table.items())]
    return "\n".join([*lines, ""])


def _to_toml(value: bool | float | str) -> str:
    return json.dumps(value, ensure_ascii=False)  # TOML has no surrogate escapes
