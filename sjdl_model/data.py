"""Datasets of fvrid_tools as batches of tensors. Images stay uint8 until they are on the training device."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fvrid_tools.dataset import Dataset as FvridDataset
from fvrid_tools.dataset import Sample
from fvrid_tools.fog import FogRange, relative_distance
from fvrid_tools.images import Uint8Image
from fvrid_tools.records import Row

from . import transforms
from .config import DataError
from .samplers import Steps, Visit

VALIDATION = 8  # images looked at after each epoch
SPARE_FROM = 800  # images: from so many on, those eight are held out of training


class Batch(NamedTuple):
    """Images of one domain. They are uint8 before `to`, float32 in [0, 1] after."""

    domain: str  # "synthetic" or "real"
    foggy: Tensor  # (B, 3, S, S); before `to` the clear ones where the fog is to be drawn anew
    label: Tensor  # (B,) int64, 0..N-1
    position: Tensor  # (B,) int64, in the training set
    clear: Tensor | None = None  # (B, 3, S, S), of synthetic ones, where a loss looks at them
    depth: Tensor | None = None  # (B, 1, S, S) float32 in [0, 1], where the fog is to be drawn anew
    fog: Tensor | None = None  # (B, 2) float32, beta and A, where it is
    noise: Tensor | None = None  # (B,) float32, deviation of the camera noise that comes after that fog
    counterpart: Tensor | None = None  # (B, 3, S, S), the true clear images of real ones; for the oracle only
    camera: Tensor | None = None  # (B,) int64, numbers as in SJDL.cameras, -1 where not known

    def to(self, device: torch.device) -> "Batch":
        """Move to the device; there, where it is cheap, turn images to float (channels last) and add fog."""
        clear = None if self.clear is None else to_float(self.clear, device)
        label, position = (tensor.to(device, non_blocking=True) for tensor in (self.label, self.position))
        if clear is None or self.depth is None or self.fog is None:
            counterpart = None if self.counterpart is None else to_float(self.counterpart, device)
            found = Batch(self.domain, to_float(self.foggy, device), label, position, clear, counterpart=counterpart)
        else:
            depth, fog = (tensor.to(device, non_blocking=True) for tensor in (self.depth, self.fog))
            foggy = add_fog(clear, depth, fog)
            if self.noise is not None:  # fog takes contrast from the vehicle, not noise from the camera
                deviation = self.noise.to(device, non_blocking=True)[:, None, None, None]
                foggy = (foggy + deviation * torch.randn_like(foggy)).clamp_(0, 1)
            found = Batch(self.domain, foggy, label, position, clear)
        return found if self.camera is None else found._replace(camera=self.camera.to(device, non_blocking=True))


def add_fog(clear: Tensor, depth: Tensor, fog: Tensor) -> Tensor:
    """`fvrid_tools.add_fog` (Eq. 1) of a batch. clear: (B, 3, H, W). depth: (B, 1, H, W). fog: (B, 2), beta and A."""
    beta, airlight = fog[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1)
    t = torch.exp(-beta * depth)
    return clear * t + airlight * (1 - t)


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 in [0, 1] on the device, channels last."""
    images = images.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
    return images.div_(255)


@dataclass(frozen=True)
class TrainingSet(Dataset[Batch]):
    """The images of a dataset's training vehicles with contiguous labels."""

    data: FvridDataset
    labels: list[int]  # of each image
    size: int  # pixels
    fog: FogRange | None = None  # give depth, and a draw of the fog from these ranges, as well
    noise: float = 0.0  # of that fog: the most of the camera noise, a deviation in [0, 1]
    counterparts: "Counterparts | None" = None  # of a real dataset
    clear: bool = False  # the clear images in place of the foggy ones
    edge_padding: bool = False  # of the random crops, in place of black
    beside: bool = True  # give the clear images beside the foggy ones, which not all losses look at
    cameras: dict[str, int] = field(default_factory=dict)  # their numbers

    @classmethod
    def of(
        cls,
        data: FvridDataset,
        size: int,
        fog: FogRange | None = None,
        *,
        noise: float = 0.0,
        counterparts: "Counterparts | None" = None,
        clear: bool = False,
        edge_padding: bool = False,
        beside: bool = True,
    ) -> "TrainingSet":
        """The "train" split of `data`. Raises DataError where it is empty."""
        train = data.select(split="train")
        if not len(train):
            raise DataError(f"{data.folder} has no training images; run fvrid split {data.folder} first")
        names = {identity: label for label, identity in enumerate(sorted({row.identity for row in train.rows}))}
        labels = [names[row.identity] for row in train.rows]
        return cls(train, labels, size, fog, noise, counterparts, clear, edge_padding, beside)

    def hold_out(self) -> tuple["TrainingSet", "TrainingSet"]:
        """What to train on, and VALIDATION images to look at: the last image each of vehicles evenly spaced among those
        with three or more, so that every vehicle stays in training with a pair. A small set gives none away, nor one of
        too few such vehicles: there the images looked at are trained on as well."""
        labels = np.asarray(self.labels)
        counts = np.bincount(labels)
        vehicles = np.flatnonzero(counts >= 3)
        spare = len(self) >= SPARE_FROM and len(vehicles) >= VALIDATION
        vehicles = vehicles if spare else np.flatnonzero(counts)
        spaced = np.linspace(0, len(vehicles) - 1, min(VALIDATION, len(vehicles))).round().astype(int)
        held = sorted(int(np.flatnonzero(labels == label)[-1]) for label in vehicles[spaced])
        rest = [i for i in range(len(self)) if i not in held] if spare else list(range(len(self)))
        return self._part(rest), self._part(held)

    def _part(self, positions: list[int]) -> "TrainingSet":
        rows = [self.data.rows[i] for i in positions]
        return replace(self, data=self.data.take(rows), labels=[self.labels[i] for i in positions])

    @property
    def num_vehicles(self) -> int:
        return max(self.labels) + 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, visit: Visit) -> Batch:
        """One image, without the leading B."""
        look = partial(transforms.augment, size=self.size, seed=visit.seed, edge_padding=self.edge_padding)
        found = self._batch(visit.image, look, self._scene)
        if found.depth is not None:
            found = found._replace(depth=found.depth.clamp(0, 1))
        drawn = self.draw_fog(visit.seed)
        return found._replace(fog=drawn.get("fog"), noise=drawn.get("noise"))

    def resized(self, position: int) -> Batch:
        """What a visit looks at, before it does."""
        return self._batch(position, partial(transforms.resize, size=self.size), self._scene)

    def as_it_is(self, position: int) -> Batch:
        """One image in its stored fog, and all that is known of it, resized, without the leading B."""
        return self._batch(position, partial(transforms.resize, size=self.size), self._whole_scene)

    def draw_fog(self, seed: int) -> dict[str, Tensor]:
        """`fog` and `noise` of a Batch, without the leading B, where the fog is to be drawn anew."""
        if self.fog is None:
            return {}
        draws = np.random.default_rng([seed, 1])  # another stream than the augmentation's
        fog = torch.tensor(
            [draws.uniform(*limits) for limits in (self.fog.beta, self.fog.airlight)], dtype=torch.float32
        )
        noise = {"noise": torch.tensor(draws.uniform(0, self.noise), dtype=torch.float32)} if self.noise else {}
        return {"fog": fog, **noise}

    def camera_numbers(self) -> Tensor:
        """(N,) int64, of each image."""
        return torch.tensor([camera_number(self.cameras, row) for row in self.data.rows])

    def _batch(
        self, position: int, look: Callable[[Tensor], Tensor], scene: Callable[[Sample], dict[str, Tensor]]
    ) -> Batch:
        row, sample = self.data.rows[position], self.data[position]
        depth = self._depth(sample)
        seen = {name: look(image) for name, image in scene(sample).items()}
        if "foggy" not in seen:
            seen["foggy"] = seen["clear"]
        return Batch(
            domain=row.domain,
            **seen,
            label=torch.tensor(self.labels[position]),
            position=torch.tensor(position),
            depth=None if depth is None else look(depth),
            camera=torch.tensor(camera_number(self.cameras, row)) if self.cameras else None,
        )

    def _scene(self, sample: Sample) -> dict[str, Tensor]:
        """The (3, H, W) fields of a Batch that are looked at, `clear` alone where the fog is to be drawn anew."""
        if self.fog is not None and sample.depth is not None:
            return {"clear": _tensor(clear(sample))}
        if self.clear or self.beside:
            return self._whole_scene(sample)
        return {"foggy": _tensor(sample.foggy)}

    def _whole_scene(self, sample: Sample) -> dict[str, Tensor]:
        """What identities are learned from, and the clear image where it is another that is known."""
        known = sample.clear if self.counterparts is None else self.counterparts.of(sample.image_id)
        if known is None:
            return {"foggy": _tensor(sample.foggy)}
        if self.clear:
            return {"foggy": _tensor(known)}
        name = "clear" if sample.domain == "synthetic" else "counterpart"
        return {"foggy": _tensor(sample.foggy), name: _tensor(known)}

    def _depth(self, sample: Sample) -> Tensor | None:
        """(1, H, W), as the fog that is to be drawn anew takes it."""
        if self.fog is None or sample.depth is None:
            return None
        depth = torch.from_numpy(sample.depth)[None]
        return relative_distance(depth) if self.fog.by_distance else depth


def _tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) -> (3, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1)


def camera_name(row: Row) -> str | None:
    """What a network calls the camera of an image; None where it is not known."""
    return None if row.camera_id is None else f"{row.source}/{row.camera_id}"


def camera_number(cameras: dict[str, int], row: Row) -> int:
    """-1 for a camera that is not among them."""
    return cameras.get(camera_name(row) or "", -1)


class Counterparts:
    """The images of real fog's scenes on a clear day, which no camera has: rendered, for bounds on what is possible."""

    def __init__(self, data: FvridDataset, real: FvridDataset) -> None:
        """data: a synthetic dataset whose clear images have the ids of `real`'s. DataError where one is missing."""
        if data.domain != "synthetic":
            raise DataError(f"{data.folder} is of the real domain; --counterparts are clear images.")
        self._data = data
        self._position = {row.image_id: i for i, row in enumerate(data.rows)}
        for row in real.rows:
            if row.image_id not in self._position or row.domain != "real":
                raise DataError(f"{data.folder} has no clear counterpart of {row.image_id} of {real.folder}.")

    def of(self, image_id: str) -> Uint8Image:
        """(H, W, 3) uint8 RGB."""
        return clear(self._data[self._position[image_id]])

    def rows_of(self, real: FvridDataset) -> list[Row]:
        """Those of the counterparts of `real`'s images, in its order and split as they are."""
        return [self._data.rows[self._position[row.image_id]]._replace(split=row.split) for row in real.rows]


def collate(items: Sequence[Batch]) -> Batch:
    columns = zip(*items, strict=True)
    return Batch._make(_stacked(column) if isinstance(column[0], Tensor) else column[0] for column in columns)


def _stacked(column: Sequence[Tensor]) -> Tensor:
    """Images channels last, as they were decoded and as they are to be: else each would be turned twice."""
    if column[0].ndim != 3:
        return torch.stack(list(column))
    return torch.stack([image.permute(1, 2, 0) for image in column]).permute(0, 3, 1, 2)


def training_batches(training: TrainingSet, steps: Steps, workers: int, pin: bool) -> DataLoader[Batch]:
    """The batches of the given steps, in order, whatever the number of workers."""
    return DataLoader(
        training,
        batch_sampler=steps,
        collate_fn=collate,
        num_workers=workers if len(steps) else 0,
        worker_init_fn=leave_signals_to_the_trainer,
        pin_memory=pin,
    )


def leave_signals_to_the_trainer(worker: int) -> None:
    """SIGTERM, and Ctrl-C, may go to the whole job: the trainer is to finish its step and save, for which it needs its
    workers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


Pick = Callable[[Sample], np.ndarray]  # of a sample -> (H, W, 3) uint8


@dataclass(frozen=True)
class ImageSet(Dataset[Tensor]):
    """Images of a dataset in order, resized and not augmented; `pick` says which picture of a sample."""

    data: FvridDataset
    size: int
    pick: Pick

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return transforms.resize(_tensor(self.pick(self.data[index])), self.size)


def foggy(sample: Sample) -> np.ndarray:
    return sample.foggy


def clear(sample: Sample) -> np.ndarray:
    """Of the synthetic domain."""
    assert sample.clear is not None, "the real domain holds foggy images only"
    return sample.clear


def image_batches(images: ImageSet, batch: int, workers: int, device: torch.device) -> Iterator[Tensor]:
    """Yield (B, 3, S, S) float32 in [0, 1], on the device, in order."""
    pin = device.type == "cuda"
    for loaded in DataLoader(images, batch_size=batch, num_workers=workers, collate_fn=_stacked, pin_memory=pin):
        yield to_float(loaded, device)
