"""Depth that exists already: the authors' `<stem>/predict_depth_gray.png` trees, or one picture an image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..images import FloatArray, Uint8Image, decode_depth, resize_map
from ..records import FvridError, ImageRecord, ImageRefused

AUTHORS_NAME = "predict_depth_gray.png"
AUTHORS_STEM = 19  # characters of the image's name that the authors' scripts keep: 00000_c001_000001_0


@dataclass(frozen=True)
class DepthFiles:
    """Depth pictures of a folder, far is white, 8-bit or 16-bit, resized to the image where they differ in size.

    An image `a/b.jpg` finds `a/b/predict_depth_gray.png`, `b/predict_depth_gray.png`, the same with the first
    19 characters of b, `a/b.png` or `b.png`, below any number of further folders (the authors' scripts write
    Depth/train_clear/train_clear/<stem>/ and read Depth/train_clear/<stem>/).
    """

    folder: Path
    paths: dict[str, list[str]] = field(repr=False)  # stem -> paths below the folder
    batch_size: int = 1

    @property
    def name(self) -> str:
        return f"files:{self.folder}"

    @classmethod
    def index(cls, folder: Path) -> "DepthFiles":
        """Raises FvridError where the folder is missing or holds no depth picture."""
        if not folder.is_dir():
            raise FvridError(f"--depth files:{folder}: no such folder.")
        paths: dict[str, list[str]] = {}
        for path in sorted(path.relative_to(folder) for path in folder.rglob("*.png")):
            if path.name == AUTHORS_NAME:
                paths.setdefault(path.parent.name, []).append(path.as_posix())
            elif not path.name.startswith("predict_depth"):
                paths.setdefault(path.stem, []).append(path.as_posix())
        if not paths:
            raise FvridError(f"--depth files:{folder}: no <image>/{AUTHORS_NAME} and no <image>.png is in the folder.")
        return cls(folder, paths)

    def find(self, record: ImageRecord) -> Path:
        """The depth picture of an image. Raises ImageRefused where there is none or more than one fits."""
        source = PurePosixPath(record.source_path).with_suffix("")
        found = self.paths.get(source.name) or self.paths.get(source.name[:AUTHORS_STEM]) or []
        if len(found) > 1:
            below = f"{source.parent.name}/{source.name}"
            found = [path for path in found if f"/{below}/" in f"/{path}" or f"/{below}." in f"/{path}"]
            if len(found) != 1:
                raise ImageRefused(f"{len(found) or 'several'} depth pictures named {source.name} in {self.folder}")
        if not found:
            raise ImageRefused(f"no depth picture for {source.name} in {self.folder}")
        return self.folder / found[0]

    def predict(self, images: Sequence[Uint8Image], records: Sequence[ImageRecord]) -> list[FloatArray]:
        """(H, W, 3) each -> (H, W) float32 each. Raises ImageRefused, saying which picture is missing or unreadable."""
        return [self._read(image, record) for image, record in zip(images, records, strict=True)]

    def _read(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        path = self.find(record)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ImageRefused(f"the depth picture {path} cannot be read ({error.strerror})") from None
        return resize_map(decode_depth(content), *image.shape[:2])
