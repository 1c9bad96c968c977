"""Depth of ordinary pictures, as files: what `fvrid depth` writes, which --depth files:OUT reads.

OUT/<image>.png                              16 bits, far is white
OUT/<image>/predict_depth_gray.png           8 bits, far is white, as the original's
OUT/contact-sheet.html                       images beside their depths
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import files, images, page, pictures, pool
from .depth import DepthEstimator, part_of
from .pictures import AUTHORS_NAME
from .progress import Progress, silent
from .records import FARTHEST_M, FvridError, ImageRecord, ImageRefused
from .sources.folder import image_paths

SHEET = "contact-sheet.html"
SHOWN = 240  # images of the sheet at most, evenly spaced
_TASK = 32  # images


@dataclass(frozen=True, slots=True)
class Estimated:
    """What became of an image: a strip of the contact sheet, or why it was refused."""

    name: str
    median: float = 0.0
    spread: float = 0.0  # of d, 95th percentile over 5th
    strip: tuple[str, str] | None = None  # data URIs: image, depth
    refused: str | None = None


def find_images(named: Sequence[Path], out: Path) -> list[ImageRecord]:
    """Records of image files, and of all image files below folders, those in `out` left out.

    Raises FvridError where a path does not exist, there is no image, two would have depth pictures of one name, or the
    picture would take an image's own name.
    """
    found: list[ImageRecord] = []
    for path in named:
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise FvridError(f"{out}: holds the images themselves; name another --out.")
            found += [_record(path, below) for below in image_paths(path, without=out)]
        elif path.exists():
            if not files.is_text(path.name):
                raise FvridError(f"{str(path)!a}: the name has control characters or is not UTF-8; rename it.")
            found.append(_record(path.parent, path.name))
        else:
            raise FvridError(f"{path}: no such file or folder; name images, or folders of images.")
    if not found:
        raise FvridError(f"{', '.join(map(str, named))}: no image in there; name images, or folders of images.")
    names: dict[str, ImageRecord] = {}
    for record in found:
        other = names.setdefault(record.image_id, record)
        if other is not record:
            raise _clash(other, record)
    for name, record in names.items():  # a.png is the picture of a.jpg, and the folder of those of a.png.jpg
        if name.endswith(".png") and (shorter := name.removesuffix(".png")) in names:
            raise _clash(names[shorter], record)
    taken = {record.path.resolve() for record in found}
    for record in found:
        if (written := _picture(out, record)).resolve() in taken:
            raise FvridError(f"{written}: an image would be overwritten by its depth; name another --out.")
    return sorted(found)


def _clash(one: ImageRecord, other: ImageRecord) -> FvridError:
    return FvridError(f"{one.path} and {other.path} would have depth pictures of one name; name one alone.")


def _picture(out: Path, record: ImageRecord) -> Path:
    """Where the depth of an image goes."""
    return out / f"{record.image_id}.png"


def _record(root: Path, below: str) -> ImageRecord:
    return ImageRecord(str(Path(below).with_suffix("")), "folder", below, "", None, None, root)


def estimate(
    records: list[ImageRecord], out: Path, estimator: DepthEstimator, workers: int = 1, progress: Progress = silent
) -> list[Estimated]:
    """Write the depth pictures of all images and the contact sheet into the folder `out`; -> one result an image.

    Raises FvridError where `out` cannot be written. Images that cannot be used are among the results.
    """
    files.make_folder(out)
    step = max(1, math.ceil(len(records) / SHOWN))
    tasks = [
        _DepthTask(part, out, part_of(estimator, part), tuple((i + j) % step == 0 for j in range(_TASK)))
        for i, part in ((i, records[i : i + _TASK]) for i in range(0, len(records), _TASK))
    ]
    done = [one for part in pool.run(tasks, workers, progress) for one in part]
    shown = [one for one in done if one.strip]
    used = [one for one in done if one.refused is None]
    charts = [
        page.histogram([one.median for one in used], "median d of an image", 0, 1),
        page.histogram([one.spread for one in used], "spread of d in an image: 95th over 5th percentile", 1, 3),
    ]
    sheet = page.render(
        "fvrid_tools",
        "depth.html.j2",
        title=f"Depth: {out.name}",
        depth=estimator.name,
        count=len(used),
        shown=shown,
        charts=charts if used else [],
        farthest=FARTHEST_M,
        refused=[one for one in done if one.refused],
    )
    files.write_atomic(out / SHEET, sheet)
    return done


@dataclass(frozen=True)
class _DepthTask(pool.Task[list[Estimated], list[Estimated]]):
    """Some images."""

    records: list[ImageRecord]
    out: Path
    estimator: DepthEstimator
    shown: tuple[bool, ...]  # on the sheet

    def make(self, progress: Progress) -> list[Estimated]:
        done = []
        for record, on_sheet in zip(self.records, self.shown, strict=False):
            try:
                image = images.decode(pictures.read_image(record))
                images.check_size(image)
                done.append(self._save(record, image, self.estimator.predict(image, record), on_sheet))
            except ImageRefused as error:
                done.append(Estimated(record.source_path, refused=f"{record.path}: {error}"))
            progress(1)
        return done

    def _save(self, record: ImageRecord, image: images.Uint8Image, d: images.FloatArray, on_sheet: bool) -> Estimated:
        path = _picture(self.out, record)
        eight = self.out / record.image_id / AUTHORS_NAME
        try:
            eight.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(eight, images.encode_depth(images.to_uint8(d)), durable=False)
            files.write_atomic(path, images.encode_depth(images.levels_of_depth(d)), durable=False)
        except OSError as error:
            raise files.not_written(path, error) from None
        first, low, high, last = (float(p) for p in np.percentile(d, (1, 5, 95, 99)))
        strip = None
        if on_sheet:
            stretched = ((d - first) / max(last - first, 1e-6)).clip(0, 1)
            strip = page.picture(image), page.picture(images.colours(stretched))
        return Estimated(record.source_path, float(np.median(d)), high / max(low, 1e-6), strip)
