"""A training set that lies decoded on the device, where batches are cut out of it: the same bytes as data.py's loaders
make of it, without their work at every visit. For images that are small, or more than the cores can decode in time."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fvrid_tools.progress import bar

from . import processes, transforms
from .config import ConfigError
from .data import Batch, TrainingSet, collate, leave_signals_to_the_trainer
from .samplers import Visit

DECODED = 32  # images at a time


class CachedImages:
    """The images of a training set, resized, on a device."""

    def __init__(self, training: TrainingSet, workers: int, device: torch.device) -> None:
        """workers: processes that decode.  Raises ConfigError where the device has not the memory."""
        self._training, self._device = training, device
        self._images: dict[str, Tensor] = {}  # of the fields of a Batch: (N, S, S, C)
        loader = DataLoader(
            _AsTheyAre(training),
            DECODED,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=leave_signals_to_the_trainer,
        )
        done = 0
        with bar(len(training), "decoding", shown=processes.rank() == 0) as shown:
            for batch in loader:
                for name, images in _images_of(batch).items():
                    self._room(name, images)[done : done + len(images)] = images
                done += len(batch.label)
                shown.update(len(batch.label))
        self._domain = training.data.rows[0].domain
        self._labels = torch.tensor(training.labels).to(device)
        self._cameras = training.camera_numbers().to(device) if training.cameras else None

    def batches(self, steps: Iterable[list[Visit]]) -> Iterator[Batch]:
        """A batch of each list of visits; images are uint8 on the device."""
        for visits in steps:
            positions = torch.tensor([visit.image for visit in visits]).to(self._device, non_blocking=True)
            views = [transforms.draw_view(visit.seed) for visit in visits]
            seen = {
                name: transforms.look_at(images, positions, views, self._training.edge_padding)
                for name, images in self._images.items()
            }
            drawn = [self._training.draw_fog(visit.seed) for visit in visits]
            fog = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
            depth = seen.get("depth")
            yield Batch(
                self._domain,
                seen["foggy"] if depth is None else seen["clear"],
                self._labels[positions],
                positions,
                seen.get("clear"),
                None if depth is None else depth.clamp(0, 1),
                fog.get("fog"),
                fog.get("noise"),
                seen.get("counterpart"),
                None if self._cameras is None else self._cameras[positions],
            )

    def _room(self, name: str, images: Tensor) -> Tensor:
        if name not in self._images:
            shape = (len(self._training), *images.shape[1:])
            try:
                self._images[name] = torch.empty(shape, dtype=images.dtype, device=self._device)
            except RuntimeError:  # torch.OutOfMemoryError of a GPU is one
                gigabytes = torch.Size(shape).numel() * images.element_size() / 1e9
                raise ConfigError(
                    f"cache=true asks for {gigabytes:.1f} GB at once on {self._device}, which are not there; "
                    "set cache=false."
                ) from None
        return self._images[name]


class _AsTheyAre(torch.utils.data.Dataset[Batch]):
    def __init__(self, training: TrainingSet) -> None:
        self._training = training

    def __len__(self) -> int:
        return len(self._training)

    def __getitem__(self, position: int) -> Batch:
        return self._training.resized(position)


def _images_of(batch: Batch) -> dict[str, Tensor]:
    """(B, S, S, C) of the fields that are there; foggy is the clear image where the fog is drawn anew."""
    names = ("foggy", "clear", "counterpart") if batch.depth is None else ("clear", "depth")
    fields = {name: getattr(batch, name) for name in names}
    return {name: field.permute(0, 2, 3, 1) for name, field in fields.items() if field is not None}
