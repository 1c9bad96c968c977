"""The training data of both domains, and the batches of any steps of a run."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch

from fvrid_tools.dataset import Dataset
from fvrid_tools.fog import PRESETS, FogRange

from . import processes
from .cache import CachedImages
from .config import ConfigError, DataError, Recipe
from .data import Batch, Counterparts, TrainingSet, camera_name, training_batches
from .engine import Step, alternate
from .network import Architecture
from .objectives import agrees, defogs
from .samplers import PKSampler, Steps


class Domains:
    """The "train" splits of a synthetic dataset and, where there is one, a real dataset, by domain: `sets` to train on,
    `validation` to look at (`TrainingSet.hold_out`)."""

    def __init__(
        self,
        data: Dataset,
        real: Dataset | None,
        recipe: Recipe,
        counterparts: Dataset | None = None,
        *,
        beside: bool = False,
    ) -> None:
        """counterparts: clear images of `real`'s scenes; they become restoration targets in place of the unsupervised
        terms, or what identities are learned from where the recipe says so.
        beside: give the clear images beside the foggy ones whatever the recipe's terms.

        Raises DataError for a dataset of the other domain, of pairs, without training images or with too few
        vehicles; ConfigError where the images of a batch cannot be shared evenly by the processes."""
        for dataset, domain in ((data, "synthetic"), (real, "real")):
            if dataset is not None and dataset.domain != domain:
                raise DataError(f"{dataset.folder} is not of the {domain} domain; --data is synthetic, --real real.")
            if dataset is not None and dataset.info.get("pairs"):
                raise DataError(
                    f"{dataset.folder} holds pairs for measuring defogging, never for training; name another."
                )
        images, count = recipe.p * recipe.k, processes.count()
        if images % count:
            raise ConfigError(f"{count} processes cannot share p x k = {images} images evenly; set p to a multiple.")
        self._recipe = recipe
        clear = recipe.images == "clear"
        if clear and real is not None and counterparts is None:
            raise DataError(f"{real.folder} has no clear images to train on; leave --real out, or add --counterparts.")
        if counterparts is not None and real is None:
            raise DataError("--counterparts are of the images of --real; name that too.")
        self.datasets = [dataset for dataset in (data, real) if dataset is not None]
        noise = recipe.fog.noise / 255
        beside = beside or defogs(recipe.weights, supervised=True) or agrees(recipe.weights)
        size, padding = recipe.image_size, recipe.edge_padding
        of = partial(TrainingSet.of, size=size, clear=clear, edge_padding=padding, beside=beside)
        drawn = of(data, fog=_redrawn(data, recipe), noise=noise)
        whole = {"synthetic": drawn}
        if real is not None:
            known = None if counterparts is None else Counterparts(counterparts, real)
            whole["real"] = of(real, counterparts=known)
        cameras: tuple[str, ...] = ()
        if recipe.transreid:
            rows = [row for training in whole.values() for row in training.data.rows]
            cameras = tuple(sorted({name for row in rows if (name := camera_name(row))}))
            numbers = {name: number for number, name in enumerate(cameras)}
            whole = {domain: replace(training, cameras=numbers) for domain, training in whole.items()}
        parts = {domain: training.hold_out() for domain, training in whole.items()}
        self.sets = {domain: training for domain, (training, _) in parts.items()}
        self.validation = {domain: held for domain, (_, held) in parts.items()}
        self._samplers = [
            PKSampler(training.labels, recipe.p, recipe.k, recipe.seed + offset, training.data.folder)
            for offset, training in enumerate(self.sets.values())
        ]
        self.steps_per_epoch = recipe.steps_per_epoch or max(1, len(self.sets["synthetic"]) // images)
        self.architecture = Architecture(
            num_synthetic=self.sets["synthetic"].num_vehicles,
            num_real=self.sets["real"].num_vehicles if real is not None else 0,
            cameras=cameras,
            defogs=defogs(recipe.weights, supervised=True)
            or (real is not None and counterparts is None and defogs(recipe.weights, supervised=False)),
            **{name: getattr(recipe, name) for name in Architecture._fields if hasattr(recipe, name)},
        )
        self.data_sha256 = data_sha256(data, real, counterparts)

    def __str__(self) -> str:
        """What is trained on, a line a domain."""
        kind = "clear images" if self._recipe.images == "clear" else "images"
        return "\n".join(
            f"{domain}: {len(training)} {kind} of {training.num_vehicles} vehicles of"
            f" {', '.join(sorted({row.source for row in training.data.rows}))} in {training.data.folder}"
            for domain, training in self.sets.items()
        )

    def steps(self, first: int, last: int, device: torch.device) -> Iterator[Step]:
        """Steps `first` to `last` - 1, this process's part of each, for a device; loaders work ahead across epochs."""
        every = self._recipe.real_every
        turns = range(-(-first // every), -(-last // every))  # of the steps that are multiples of `every`
        numbers = {"synthetic": range(first, last), "real": turns}
        batches = {
            domain: self._batches(training, sampler, numbers[domain], device)
            for (domain, training), sampler in zip(self.sets.items(), self._samplers, strict=True)
        }
        return alternate(batches["synthetic"], batches.get("real", ()), first, every)

    def _batches(
        self, training: TrainingSet, sampler: PKSampler, numbers: range, device: torch.device
    ) -> Iterable[Batch]:
        steps = Steps(sampler, numbers, processes.rank(), processes.count())
        if self._recipe.cache and len(numbers):
            return CachedImages(training, self._recipe.workers, device).batches(steps)
        return training_batches(training, steps, self._recipe.workers, pin=device.type == "cuda")

    def image_ids(self, domains: Step) -> dict[str, list[str]]:
        """Of the images that a step is made of, by domain."""
        return {
            name: [training.data.rows[int(position)].image_id for position in batch.position]
            for (name, training), batch in zip(self.sets.items(), domains, strict=False)
            if batch is not None
        }


def shared_vehicles(data: Dataset, real: Dataset | None) -> str:
    """A sentence about vehicles that one dataset trains on and the other tests; "" where there are none."""
    both = [] if real is None else [(data, real), (real, data)]
    for trained, tested in both:
        known = {row.identity for row in trained.rows if row.split == "train"}
        if found := sorted(known & {row.identity for row in tested.rows if row.split in ("query", "gallery")}):
            source, vehicle = found[0]
            return (
                f"{len(found)} vehicles that {trained.folder} trains on are tested in {tested.folder} (such as"
                f" {vehicle} of {source}); if they are the same vehicles, split one --like the other, or both by one"
                " --labels."
            )
    return ""


def data_sha256(*datasets: Dataset | None) -> str:
    """What tells a training's data from others: the hashes of the manifests that there are."""
    return " ".join(data.info["manifest_sha256"] for data in datasets if data is not None)


def _redrawn(data: Dataset, recipe: Recipe) -> FogRange | None:
    """The ranges that a recipe draws fog from anew; None where the stored fog is to be taken."""
    if not recipe.fog.redraw or recipe.images == "clear":
        return None
    if recipe.fog.preset:
        return PRESETS[recipe.fog.preset]
    if data.fog is None:
        raise DataError(f"{data.folder} came with its fog, whose ranges are not known; set fog.preset.")
    return data.fog
