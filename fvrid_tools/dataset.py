"""A finished dataset as a Python sequence of samples; what training, evaluation and reports read."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

from . import images, manifest
from .files import inside
from .fog import FogRange, PerDistance
from .images import FloatArray, Uint8Image
from .records import SPLITS, Domain, FvridError, ImageRefused, OptionError, Row
from .shards import Shard, unpack_depth

PAIRS_A_TASK = 8  # that a thread reads at a time: fewer would spend their time on handing over


class Sample:
    """One image of a dataset; pictures are read and decoded when they are asked for, and then kept."""

    def __init__(self, row: Row, shard: Shard, by_distance: bool = False) -> None:
        """by_distance: of the fog, see fog.py."""
        self.row = row
        self.image_id = row.image_id
        self.vehicle_id = row.vehicle_id
        self.camera_id = row.camera_id
        self.source = row.source
        self.domain = row.domain
        self.split = row.split
        self.beta = PerDistance(row.beta) if by_distance else row.beta
        self.airlight = row.airlight
        self._shard = shard

    def __repr__(self) -> str:
        return f"Sample({self.image_id}, {self.row.width} x {self.row.height}, split={self.split})"

    def encoded(self, column: str) -> bytes:
        """The stored file of the "clear" or "foggy" image."""
        return bytes(self._shard.read(column, self.row.row))

    def _decode(self, column: str) -> Uint8Image:
        try:
            return images.decode(self._shard.read(column, self.row.row))
        except ImageRefused as error:
            raise self._damaged(column, error) from None

    def _damaged(self, column: str, error: Exception) -> FvridError:
        return FvridError(f"{self._shard.path}, {column} of {self.image_id}: {error}; run fvrid verify.")

    @cached_property
    def foggy(self) -> Uint8Image:
        """(H, W, 3) uint8 RGB."""
        return self._decode("foggy")

    @cached_property
    def clear(self) -> Uint8Image | None:
        """(H, W, 3) uint8 RGB; None in the real domain, but for the pairs of `build-real --pairs`."""
        return self._decode("clear") if self._shard.has("clear") else None

    @cached_property
    def depth(self) -> FloatArray | None:
        """(H, W) float32 in [0, 1], 0 nearest, 1 farthest; None in the real domain, but for pairs."""
        if not self._shard.has("depth"):
            return None
        packed = self._shard.read("depth", self.row.row)
        try:
            return images.depth_of_levels(unpack_depth(packed, self.row.height, self.row.width))
        except ValueError as error:
            raise self._damaged("depth", error) from None


class Dataset(Sequence[Sample]):
    """The images of a dataset folder, in the order of the manifest; `select` gives a part of it."""

    def __init__(self, folder: Path, rows: list[Row], info: dict[str, Any]) -> None:
        self.folder = folder
        self.rows = rows
        self.info = info  # dataset.json
        self._shards: dict[str, Shard] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    def __getitem__(self, index: int | slice) -> "Sample | Dataset":
        if isinstance(index, slice):
            return self.take(self.rows[index])
        row = self.rows[index]
        shard = self._shards.get(row.shard)
        if shard is None:
            shard = self._shards[row.shard] = Shard(inside(self.folder, row.shard))
        return Sample(row, shard, self.fog is not None and self.fog.by_distance)

    @property
    def domain(self) -> Domain:
        """Synthetic fog, or real."""
        domain: Domain = self.info["domain"]
        return domain

    @cached_property
    def fog(self) -> FogRange | None:
        """Where beta and airlight come from; None of real fog, and of fog that a source brought."""
        described = self.info.get("fog")
        if not isinstance(described, dict):
            return None
        try:
            return FogRange.read(described)
        except (LookupError, TypeError, ValueError, OptionError):
            where = self.folder / manifest.DATASET
            raise FvridError(f"{where}: its fog is no range of beta and airlight; rebuild the dataset.") from None

    @property
    def has_clear(self) -> bool:
        """Whether there are clear images beside the foggy ones: of the synthetic domain, and of pairs."""
        return self.domain == "synthetic" or bool(self.info.get("pairs"))

    def __repr__(self) -> str:
        splits = {split: sum(row.split == split for row in self.rows) for split in ("train", "query", "gallery")}
        vehicles = len({row.identity for row in self.rows})
        return f"Dataset({self.folder}: {len(self)} images of {vehicles} vehicles, {splits})"

    def take(self, rows: list[Row]) -> "Dataset":
        """The samples of some of the rows, in the given order."""
        part = Dataset(self.folder, rows, self.info)
        part._shards = self._shards
        return part

    def select(self, **wanted: str | None) -> "Dataset":
        """The samples whose manifest columns have the given values: select(split="gallery", source="veri-wild").

        Raises ValueError for a name that is no column, and for a split that there is not.
        """
        if (split := wanted.get("split")) not in (None, *SPLITS):
            raise ValueError(f"{split!r} is not a split: {', '.join(SPLITS)}, or None")
        for name in wanted:
            if name not in manifest.COLUMNS:
                raise ValueError(f"{name!r} is not a column of the manifest: {', '.join(manifest.COLUMNS)}")
        return self.take(
            [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]
        )

    def read_pairs(
        self, indices: Sequence[int], threads: int | None = None
    ) -> Iterator[tuple[Uint8Image, Uint8Image | None]]:
        """Yield (foggy, clear) of the given images, decoded ahead by a few threads (default: one a core)."""

        def pairs(part: Sequence[int]) -> list[tuple[Uint8Image, Uint8Image | None]]:
            samples = (self[index] for index in part)
            return [(sample.foggy, sample.clear) for sample in samples]

        threads = threads or os.cpu_count() or 1
        parts = [indices[start : start + PAIRS_A_TASK] for start in range(0, len(indices), PAIRS_A_TASK)]
        if threads == 1:
            for part in parts:
                yield from pairs(part)
            return
        with ThreadPoolExecutor(threads) as pool:
            rest = iter(parts)
            waiting = deque(pool.submit(pairs, part) for part in islice(rest, 2 * threads))
            while waiting:
                yield from waiting.popleft().result()
                waiting.extend(pool.submit(pairs, part) for part in islice(rest, 1))


def open_dataset(path: str | Path) -> Dataset:
    """Open the dataset in a folder that `fvrid build-syn` or `build-real` finished.

    Raises FvridError where there is none, or where its manifest is damaged.
    """
    folder = Path(path)
    info = manifest.read_dataset(folder)
    rows = manifest.read_manifest(folder)
    for name in {row.shard for row in rows}:
        inside(folder, name)
    return Dataset(folder, rows, info)
