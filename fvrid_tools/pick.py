"""Which images were taken in fog: what `fvrid pick` writes. All are ranked; a person looks at the foggiest and picks.

OUT/density.csv     every image, foggiest first: SOURCE,ORI_NAME,vehicle_id,camera_id,density
OUT/rejects.csv     what was refused, and why
OUT/pick.html       the foggiest as a contact sheet; it saves picked.csv, which `fvrid build-real --labels` takes

Images are read twice, so that memory holds a number an image and only the pictures that are shown.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import files, images, manifest, page, pictures, pool
from .density import FOGGY, fog_density
from .progress import Progress, silent
from .records import FvridError, ImageRecord, ImageRefused, Listing, Reject

TABLE, PAGE = "density.csv", "pick.html"
COLUMNS = ("SOURCE", "ORI_NAME", "vehicle_id", "camera_id", "density")
SAVE = "FVRID_real"  # where picked images belong, as FVRID_Label.csv says it
_TASK = 64  # images
_SHOWN_PX, _QUALITY = 176, 82  # of the pictures on the page
_DIGITS = 4  # of a density: those that look alike are ordered by image_id


class Picked(NamedTuple):
    """What became of all images."""

    ranked: int
    foggy: int  # above FOGGY
    shown: int
    rejects: int


class _Scores(NamedTuple):
    """Of a task's images; a density is nan where the image was refused."""

    densities: NDArray[np.float64]
    rejects: list[Reject]


def pick(
    listings: Sequence[Listing],
    out: Path,
    top: int = 200,
    min_density: float = 0.0,
    workers: int = 1,
    progress: Progress = silent,
) -> Picked:
    """Rank all images, and show the `top` foggiest, of at least `min_density`, on a page in the folder `out`.

    progress: counts images ranked.  Raises FvridError where `out` cannot be written or holds a dataset, or where a file
    cannot be read; files that are no usable images are written down there.
    """
    files.make_folder(out)
    if (out / manifest.DATASET).exists():
        raise FvridError(f"{out} holds a dataset, with a {manifest.REJECTS} of its own; name another --out.")
    records = sorted(record for listing in listings for record in listing.records)
    densities, refused = _rank(records, workers, progress)
    order = _order(densities)
    _write_table(out / TABLE, records, densities, order)
    rejects = [*refused, *(reject for listing in listings for reject in listing.rejects)]
    manifest.write_rejects(out, rejects)
    best = [index for index in order[:top].tolist() if densities[index] >= min_density]
    cards = _cards([records[index] for index in best], densities[best].tolist(), workers)
    found = densities[order]
    picked = Picked(len(order), int((found > FOGGY).sum()), len(cards), len(rejects))
    files.write_atomic(out / PAGE, _page(out.name, picked, found, cards, max(FOGGY, min_density)))
    return picked


def _rank(records: list[ImageRecord], workers: int, progress: Progress) -> tuple[NDArray[np.float64], list[Reject]]:
    """The density of each record, and what was refused."""
    done = pool.run([_RankTask(records[i : i + _TASK]) for i in range(0, len(records), _TASK)], workers, progress)
    densities = np.concatenate([scores.densities for scores in done]) if done else np.empty(0)
    return densities, [reject for scores in done for reject in scores.rejects]


def _order(densities: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of what was read, foggiest first; what looks alike stays in order."""
    order = np.argsort(-densities, kind="stable")  # nan comes last
    return order[: int(np.count_nonzero(~np.isnan(densities)))]


def _write_table(
    path: Path, records: list[ImageRecord], densities: NDArray[np.float64], order: NDArray[np.intp]
) -> None:
    """A line at a time, as there may be many."""
    with files.atomic_path(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index in order.tolist():
            record = records[index]
            cells = record.source, record.source_path, record.vehicle_id, record.camera_id or ""
            writer.writerow((*cells, f"{densities[index]:.{_DIGITS}f}"))


def _page(
    name: str, picked: Picked, densities: NDArray[np.float64], cards: list[dict[str, Any]], threshold: float
) -> str:
    return page.render(
        "fvrid_tools",
        "pick.html.j2",
        title=f"Foggy images: {name}",
        picked=picked,
        threshold=round(threshold, 2),
        foggy=FOGGY,
        save=SAVE,
        chart=page.histogram(densities, "fog density of all images", 0, 1),
        cards=cards,
    )


def _cards(records: list[ImageRecord], densities: list[float], workers: int) -> list[dict[str, Any]]:
    """What the page shows of each image; those that have been spoilt since they were ranked are left out."""
    shown = pool.run([_ShowTask(records[i : i + _TASK]) for i in range(0, len(records), _TASK)], workers, silent)
    uris = [uri for part in shown for uri in part]
    return [
        {
            "source": record.source,
            "path": record.source_path,
            "name": record.source_path.rpartition("/")[2],
            "vehicle": record.vehicle_id,
            "camera": record.camera_id or "",
            "density": f"{density:.{_DIGITS}f}",
            "picture": uri,
        }
        for record, density, uri in zip(records, densities, uris, strict=True)
        if uri
    ]


def _read(record: ImageRecord) -> images.Uint8Image:
    image = images.decode(pictures.read_image(record))
    images.check_size(image)
    return image


@dataclass(frozen=True)
class _RankTask(pool.Task[_Scores, _Scores]):
    """Some images, read and rated."""

    records: list[ImageRecord]

    def make(self, progress: Progress) -> _Scores:
        densities, rejects = np.full(len(self.records), np.nan), []
        for i, record in enumerate(self.records):
            try:
                densities[i] = round(fog_density(_read(record)), _DIGITS)
            except ImageRefused as error:
                rejects.append(Reject(record.source, record.source_path, str(error)))
            progress(1)
        return _Scores(densities, rejects)


@dataclass(frozen=True)
class _ShowTask(pool.Task[list[str], list[str]]):
    """Some images, read again and shrunk for the page: data URIs, "" where one is no image any more."""

    records: list[ImageRecord]

    def make(self, progress: Progress) -> list[str]:
        return [self._uri(record) for record in self.records]

    def _uri(self, record: ImageRecord) -> str:
        try:
            shrunk = np.ascontiguousarray(images.shrink(_read(record), _SHOWN_PX))
        except ImageRefused:
            return ""
        return page.data_uri(images.encode_jpeg(shrunk, _QUALITY, "420"))
