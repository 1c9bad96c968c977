"""Pictures of what a ranking found: rank lists (Fig. 5), and the embeddings in two dimensions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from fvrid_tools import page
from fvrid_tools.dataset import Dataset

from .distances import Euclidean, embeddings
from .evaluate import CPU, TestSet

RANKS = 10
LISTS = 60  # of a page: half of them the worst, the others evenly spaced over what is left
VEHICLES = 20  # of the picture in two dimensions: those with most images
PICTURE = 96  # pixels
_JUNK = 3  # images of the query's own camera that are shown at most


@dataclass(frozen=True)
class Shown:
    """An image in a list. mark: "query", "right", "wrong", or "junk", which the protocol leaves out."""

    image_id: str
    vehicle: str
    camera: str
    picture: str  # a data URI
    mark: str
    rank: int  # 0 of a query and of junk
    distance: float


@dataclass(frozen=True)
class RankList:
    query: Shown
    matches: list[Shown]
    average_precision: float  # nan where the query has no match
    first_match: int  # rank, 0 where there is none


def rank_lists(test: TestSet, found: NDArray[np.float32], size: int, device: torch.device = CPU) -> list[RankList]:
    """Of up to LISTS queries, worst first, those without a match last, by Euclidean distance.

    found: (N, D) embeddings of `test.data`.  size: pixels, of the square images that the network sees.
    device: that multiplies.
    """
    if test.protocol == "vehicleid":  # whose galleries are drawn anew in each fold: shown as if cameras were not known
        test = TestSet(test.data, "all", "camera-less")
    every = np.arange(len(test.data))
    query, gallery = every[test.query], every[test.gallery]
    scores = test.score(found, found, device=device)
    order = np.argsort(np.where(np.isnan(scores.average_precision), 2, scores.average_precision), kind="stable")
    worst, rest = order[: LISTS // 2], order[LISTS // 2 :]
    spaced = np.unique(np.linspace(0, len(rest) - 1, min(LISTS - len(worst), len(rest))).round().astype(int))
    chosen = np.concatenate([worst, rest[spaced]])
    rows = embeddings(found, "test")
    euclidean = Euclidean(rows[query[chosen]], rows[gallery])
    pictures = _Pictures(test, min(size, PICTURE), _names(test.data))
    made = []
    for i, row in euclidean.rows():
        q = int(query[chosen[i]])
        near = np.argsort(row, kind="stable")
        distances = np.sqrt(euclidean.squared(i, row))
        made.append(
            RankList(
                query=pictures.shown(q, "query", 0, 0.0),
                matches=pictures.matches(q, gallery[near], distances[near]),
                average_precision=float(scores.average_precision[chosen[i]]),
                first_match=int(scores.first_match[chosen[i]]),
            )
        )
    return made


def _names(data: Dataset) -> list[tuple[str, str]]:
    """Vehicle and camera of each image, with the source where there are several, which may have the same names."""
    several = len({row.source for row in data.rows}) > 1
    found = [(row.source, row.vehicle_id, row.camera_id or "unknown") for row in data.rows]
    return [(f"{of}/{vehicle}", f"{of}/{camera}") if several else (vehicle, camera) for of, vehicle, camera in found]


@dataclass(frozen=True)
class _Pictures:
    test: TestSet
    size: int  # pixels
    names: list[tuple[str, str]]

    def matches(self, query: int, near: NDArray[np.intp], distances: NDArray[np.float64]) -> list[Shown]:
        """The first RANKS that count, and what of the left out lies among them."""
        labels, cameras = self.test.labels, self.test.cameras
        shown: list[Shown] = []
        rank = junk = 0
        for i, distance in zip(near.tolist(), distances.tolist(), strict=True):
            if i == query:
                continue
            same = labels[i] == labels[query]
            if same and cameras[i] == cameras[query] >= 0:
                junk += 1
                if junk <= _JUNK:
                    shown.append(self.shown(i, "junk", 0, distance))
                continue
            rank += 1
            shown.append(self.shown(i, "right" if same else "wrong", rank, distance))
            if rank == RANKS:
                break
        return shown

    def shown(self, i: int, mark: str, rank: int, distance: float) -> Shown:
        vehicle, camera = self.names[i]
        return Shown(
            image_id=self.test.data.rows[i].image_id,
            vehicle=vehicle,
            camera=camera,
            picture=page.picture(self.test.data[i].foggy, self.size),
            mark=mark,
            rank=rank,
            distance=distance,
        )


def scatter(test: TestSet, found: NDArray[np.float32]) -> Any:
    """A chart of the images of the VEHICLES with most, by t-SNE (van der Maaten and Hinton 2008) from a principal
    component start: near is alike, far means little.  found: (N, D) embeddings of `test.data`."""
    labels, counts = np.unique(test.labels, return_counts=True)
    kept = labels[np.argsort(-counts, kind="stable")[:VEHICLES]]
    chosen = np.flatnonzero(np.isin(test.labels, kept))
    if len(chosen) < 5:
        return ""
    perplexity = min(10.0, (len(chosen) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(found[chosen].astype(np.float64))
    names = _names(test.data)
    groups: dict[str, list[page.Point]] = {}
    for (x, y), i in zip(places.tolist(), chosen.tolist(), strict=True):
        vehicle, camera = names[i]
        groups.setdefault(vehicle, []).append(page.Point(x, y, {"vehicle": vehicle, "camera": camera}))
    return page.scatter(groups, f"{len(chosen)} foggy images of {len(groups)} vehicles, a colour a vehicle")
