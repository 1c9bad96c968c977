"""The depth that the source itself carries; no estimate."""

from dataclasses import dataclass, field

from .. import pictures
from ..images import FloatArray, Uint8Image
from ..records import ImageRecord


@dataclass(frozen=True)
class SourceDepth:
    """What lies at each record's `depth`."""

    name: str = "source"
    versions: dict[str, str] = field(default_factory=dict, compare=False)

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32. Raises as `pictures.read_depth`."""
        return pictures.read_depth(record, *image.shape[:2])
