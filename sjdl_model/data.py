"""Datasets of fvrid_tools as batches of tensors. Images stay uint8 until they are on the training device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fvrid_tools.dataset import Dataset as FvridDataset
from fvrid_tools.dataset import Sample

from . import transforms
from .config import DataError
from .samplers import PKSampler, Steps, Visit


class Batch(NamedTuple):
    """Images of one domain; `clear` is None in the real one."""

    foggy: Tensor  # (B, 3, S, S) float32 in [0, 1] after `to`
    clear: Tensor | None  # the same
    label: Tensor  # (B,) int64, 0..N-1
    position: Tensor  # (B,) int64, in the training set

    def to(self, device: torch.device) -> "Batch":
        """Move to the device and turn images to float there, where it is cheap; channels last, as is the network."""
        clear = None if self.clear is None else _to_float(self.clear, device)
        label, position = (tensor.to(device, non_blocking=True) for tensor in (self.label, self.position))
        return Batch(_to_float(self.foggy, device), clear, label, position)


def _to_float(images: Tensor, device: torch.device) -> Tensor:
    images = images.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
    return images.div_(255)


@dataclass(frozen=True)
class TrainingSet(Dataset[tuple[Tensor, ...]]):
    """The images of a dataset's training vehicles with contiguous labels."""

    data: FvridDataset
    labels: list[int]  # of each image
    size: int  # pixels

    @classmethod
    def of(cls, data: FvridDataset, size: int) -> "TrainingSet":
        """The "train" split of `data`. Raises DataError where it is empty."""
        train = data.select(split="train")
        if not len(train):
            raise DataError(f"{data.folder} has no training images; run fvrid split {data.folder} first")
        names = {identity: label for label, identity in enumerate(sorted({row.identity for row in train.rows}))}
        return cls(train, [names[row.identity] for row in train.rows], size)

    @property
    def num_vehicles(self) -> int:
        return max(self.labels) + 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, visit: Visit) -> tuple[Tensor, ...]:
        """(foggy and, in the synthetic domain, clear, each (3, S, S) uint8; label; position)."""
        sample = self.data[visit.image]
        scene = [sample.foggy] if sample.clear is None else [sample.foggy, sample.clear]
        channels = torch.from_numpy(np.concatenate(scene, axis=2)).permute(2, 0, 1)
        images = torch.split(transforms.augment(channels, self.size, visit.seed), 3)
        return *images, torch.tensor(self.labels[visit.image]), torch.tensor(visit.image)


def _collate(items: Sequence[tuple[Tensor, ...]]) -> Batch:
    *images, label, position = (torch.stack(column) for column in zip(*items, strict=True))
    return Batch(images[0], images[1] if len(images) > 1 else None, label, position)


def training_batches(
    training: TrainingSet, sampler: PKSampler, steps: Sequence[int], workers: int, pin: bool
) -> DataLoader[tuple[Tensor, ...]]:
    """The batches of the given steps, in order; each is the same whatever the number of workers."""
    return DataLoader(
        training,
        batch_sampler=Steps(sampler, steps),
        collate_fn=_collate,
        num_workers=workers if len(steps) else 0,
        pin_memory=pin,
    )


@dataclass(frozen=True)
class ImageSet(Dataset[Tensor]):
    """Images of a dataset in order, resized and not augmented; `pick` says which picture of a sample."""

    data: FvridDataset
    size: int
    pick: Callable[[Sample], np.ndarray]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        image = torch.from_numpy(self.pick(self.data[index])).permute(2, 0, 1)
        return transforms.resize(image, self.size)


def foggy(sample: Sample) -> np.ndarray:
    return sample.foggy


def clear(sample: Sample) -> np.ndarray:
    """Raises DataError in the real domain, which has no clear images."""
    if sample.clear is None:
        raise DataError(f"{sample.image_id} has no clear image: the real domain holds foggy ones only")
    return sample.clear


def image_batches(images: ImageSet, batch: int, workers: int, device: torch.device) -> "ImageBatches":
    return ImageBatches(DataLoader(images, batch_size=batch, num_workers=workers), device)


class ImageBatches:
    """Iterates over (B, 3, S, S) float32 in [0, 1] on the device."""

    def __init__(self, loader: "DataLoader[Tensor]", device: torch.device) -> None:
        self._loader, self._device = loader, device

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for images in self._loader:
            yield _to_float(images, self._device)
