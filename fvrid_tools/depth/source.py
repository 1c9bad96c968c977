"""The depth that the source itself carries, exact and of the image's own size; no estimate."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import pictures
from ..images import FloatArray, Uint8Image
from ..records import ImageRecord


@dataclass(frozen=True)
class SourceDepth:
    """What lies at each record's `depth`."""

    name: str = "source"
    batch_size: int = 1
    versions: dict[str, str] = field(default_factory=dict, compare=False)

    def predict(self, images: Sequence[Uint8Image], records: Sequence[ImageRecord]) -> list[FloatArray]:
        """(H, W, 3) each -> (H, W) float32 each. Raises ImageRefused where an image has none, or not of its size."""
        sizes = [image.shape[:2] for image in images]
        return [pictures.read_depth(record, *size) for record, size in zip(records, sizes, strict=True)]
