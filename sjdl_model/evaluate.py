"""Embed the test images of a dataset and score the ranking."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fvrid_tools.dataset import Dataset
from fvrid_tools.progress import Progress, silent
from fvrid_tools.records import Row

from . import data as images_of
from . import processes
from .config import ConfigError, DataError
from .data import ImageSet, Pick, camera_number, image_batches
from .metrics import FOLDS, RetrievalScores, check_matches, evaluate, evaluate_vehicleid, numbered
from .network import SJDL
from .rerank import Rerank

BATCH = 64
CPU = torch.device("cpu")
CONDITIONS = ("foggy", "clear", "defogged")
MIXED = "mixed"  # weather, of a gallery: see `mixed`

Defogger = Callable[[Tensor], Tensor]  # (B, 3, H, W) in [0, 1] -> the same without fog


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores with everything one must know to compare them."""

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]  # 95 %, over the queries
    cmc: list[float]
    domain: str
    images: str  # "foggy", "clear" or "defogged"
    gallery_images: str  # the same, or "mixed"
    feature: str
    queries: int
    unmatched: int  # queries without a match, which no score counts
    gallery: int
    protocol: str
    dataset: str  # name of its folder
    data_sha256: str  # of the manifest
    built: str = ""  # the command that builds the dataset: its sources, depth, ranges of fog, seed
    trained_on: str = ""  # those that build what the weights learned from, a line each
    trained_on_sha256: str = ""  # of its manifests
    weights_sha256: str = ""  # of their file

    def to_json(self) -> dict[str, Any]:
        """The scores by name, and the rest."""
        facts = asdict(self)
        return {**facts.pop("scores"), **facts}


@torch.inference_mode()
def embed(
    net: SJDL,
    batches: Iterable[Tensor],
    count: int,
    *,
    defog: Defogger | None = None,
    before_bn: bool = False,
    cameras: Sequence[int] = (),
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """(N, D) float32 embeddings; with `defog` of the images that it makes of them.

    count: how many images there are, at most, so that memory is taken once.
    cameras: the number of each image's in `net.cameras`, for a backbone that takes them.
    """
    net.eval()
    rows = np.empty((0, 0), np.float32)
    done = 0
    for images in batches:
        camera = torch.tensor(cameras[done : done + len(images)], device=images.device) if cameras else None
        part = net.embed(defog(images) if defog else images, before_bn, camera).float().cpu().numpy()
        if not done:
            rows = np.empty((count, part.shape[1]), np.float32)
        rows[done : done + len(part)] = part
        done += len(images)
        progress(len(images))
    return rows[:done]


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """How a network embeds the images of a dataset. The processes of torchrun embed a share each, and all have all."""

    net: SJDL
    size: int  # pixels
    before_bn: bool = False
    workers: int = 0
    batch: int = BATCH  # images at once
    device: torch.device = CPU
    defogger: Defogger | None = None  # None: the network's own FIRM
    domain: str | None = None  # whose running statistics normalise, where they are kept apart; None: the dataset's own
    progress: Progress = silent

    def defog(self, foggy: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> the same without fog."""
        return (self.defogger or self.net.defog)(foggy).float()

    def make_ready_for(self, data: Dataset) -> None:
        """Move the network to the device, and have it normalise as images of a dataset need it."""
        self.net.to(self.device).eval()
        self.net.use_statistics_of(self.domain or data.domain)

    def __call__(self, data: Dataset, condition: str, pick: Pick | None = None) -> NDArray[np.float32]:
        """(N, D) of a dataset's images in one of CONDITIONS, or as `pick` makes them of the samples."""
        chosen = pick or (images_of.clear if condition == "clear" else images_of.foggy)
        mine = data.take(data.rows[processes.share(len(data))])
        self.make_ready_for(data)
        found = embed(
            self.net,
            image_batches(ImageSet(mine, self.size, chosen), self.batch, self.workers, self.device),
            len(mine),
            defog=self.defog if condition == "defogged" else None,
            before_bn=self.before_bn,
            cameras=[camera_number(self.net.cameras, row) for row in mine.rows] if self.net.cameras else (),
            progress=self.progress,
        )
        shares = [share for share in processes.objects(found) if len(share)]
        return shares[0] if len(shares) == 1 else np.concatenate(shares)


class TestSet:
    """The "query" and "gallery" images of a dataset, and how a ranking of them is scored. `data` holds the queries,
    then the gallery; embeddings are of all of it."""

    __test__ = False  # pytest is not to take it for tests

    def __init__(self, dataset: Dataset, queries: str = "one", protocol: str = "auto") -> None:
        """queries: "one" a vehicle, the paper's protocol, or "all": every test image in turn against all others.

        protocol: "camera-aware" leaves out gallery images of the query's vehicle by the query's camera, "camera-less"
        does not, "auto" does where cameras are known, "vehicleid" draws ten galleries (`metrics.evaluate_vehicleid`).
        Raises DataError where a split is empty, no query has a match, the gallery is of one vehicle, or cameras are
        asked for and not known.
        """
        if protocol == "vehicleid" and queries == "all":
            raise ConfigError("VehicleID's protocol chooses its own queries; leave --queries out.")
        parts = {split: dataset.select(split=split) for split in ("query", "gallery")}
        for split, part in parts.items():
            if not len(part):
                raise DataError(f"{dataset.folder} has no {split} images; run fvrid split {dataset.folder} first.")
        rows = [*parts["query"].rows, *parts["gallery"].rows]
        if protocol == "camera-aware" and all(row.camera_id is None for row in rows):
            raise DataError(f"{dataset.folder} knows no cameras; use --protocol camera-less.")
        self.data, self.protocol, self._every = dataset.take(rows), protocol, queries == "all"
        first = len(parts["query"])
        everything = slice(0, len(rows))
        self.query = everything if self._every else slice(0, first)
        self.gallery = everything if self._every else slice(first, len(rows))
        places: list[Any] = [None if protocol in ("camera-less", "vehicleid") else _camera(row) for row in rows]
        # an image is not to be found by itself, nor by a copy of its file, as VeRi-776's queries have one in the
        # gallery: where its camera does not count, the file is its own
        files = Counter(row.sha256 for row in rows)
        self._copies = len(files) < len(rows)
        for i, row in enumerate(rows):
            if places[i] is None and (self._every or files[row.sha256] > 1):
                places[i] = row.sha256
        self.labels = numbered([row.identity for row in rows], [])[0]
        self.cameras = numbered(places, [])[0]
        if len(np.unique(self.labels[self.gallery])) == 1:
            raise DataError(
                f"{dataset.folder}: the gallery is of one vehicle only, so any ranking is right: add images of others."
            )
        if protocol != "vehicleid":
            try:
                check_matches(
                    self.labels[self.query],
                    self.labels[self.gallery],
                    self.cameras[self.query],
                    self.cameras[self.gallery],
                )
            except DataError as error:
                raise DataError(f"{dataset.folder}: {error}.") from None

    def score(
        self,
        of_queries: NDArray[Any],
        of_gallery: NDArray[Any],
        rerank: Rerank | None = None,
        device: torch.device = CPU,
    ) -> RetrievalScores:
        """of_queries, of_gallery: (N, D) embeddings of all test images, as they are to serve as queries and gallery.
        device: that multiplies.

        Raises DataError where they are not finite; ConfigError for VehicleID's protocol re-ranked or across conditions.
        """
        if self.protocol == "vehicleid":
            if rerank or of_queries is not of_gallery:
                raise ConfigError("VehicleID's protocol is for one condition, without re-ranking.")
            _, single = np.unique([row.sha256 for row in self.data.rows], return_index=True)
            return evaluate_vehicleid(of_queries[np.sort(single)], self.labels[np.sort(single)], device=device)
        query, gallery = of_queries[self.query], of_gallery[self.gallery]
        return evaluate(
            query,
            query if self._every and of_queries is of_gallery else gallery,
            self.labels[self.query],
            self.labels[self.gallery],
            self.cameras[self.query].tolist(),
            self.cameras[self.gallery].tolist(),
            rerank=rerank,
            rule=self._rule(),
            device=device,
        )

    def _rule(self) -> str | None:
        unknown = all(row.camera_id is None for row in self.data.rows)
        if self.protocol == "camera-less" or unknown:
            own = "the query's own image" * self._every + " and " * (self._every and self._copies)
            own += "copies of the query's own file" * self._copies
            if own:
                return f"camera-less: of the query's vehicle only {own} left out"
            return None if unknown else "camera-less: cameras not looked at, so nothing is left out of the gallery"
        if not self._every:
            return None
        rule = "camera-aware: gallery images of the query's vehicle by the query's camera left out"
        if any(row.camera_id is None for row in self.data.rows):
            rule += ", an image without a known camera counting as a camera of its own"
        return rule

    def result(
        self, scores: RetrievalScores, images: str, gallery_images: str | None = None, *, before_bn: bool = False
    ) -> Result:
        """images, gallery_images: the conditions of queries and gallery."""
        gallery_images = gallery_images or images
        queries, vehicles = len(scores.first_match), len(np.unique(self.labels[self.query]))
        unmatched, gallery = scores.unmatched, len(self.labels[self.gallery])
        if self.protocol == "vehicleid":  # of one of its galleries
            gallery = len(np.unique(self.labels))
            queries, unmatched = queries // FOLDS, unmatched // FOLDS
        one = "a random image of each test vehicle is the query"
        listed = (self.data.info.get("split") or {}).get("test_list", {})
        if "queries" in listed:
            one = f"the {queries} images of {listed['queries']} are the queries"
        elif listed:
            one = f"a random image of each test vehicle of {listed['name']} is the query"
        elif queries > vehicles:  # as a source's own lists may have it
            one = f"{queries} images of {vehicles} test vehicles are the queries"
        chosen = "every test image is a query against all others" if self._every else f"{one}, the rest gallery"
        seen = f"{images} images" if images == gallery_images else f"{images} queries, {gallery_images} gallery"
        seen += " (each image foggy or clear, by a hash of its name)" * (gallery_images == MIXED)
        said = [seen, chosen, scores.protocol] if self.protocol != "vehicleid" else [seen, scores.protocol]
        return Result(
            scores=scores.summary(),
            intervals=scores.intervals(),
            cmc=scores.cmc.tolist(),
            domain=self.data.domain,
            images=images,
            gallery_images=gallery_images,
            feature="before BN" if before_bn else "after BN",
            queries=queries,
            unmatched=unmatched,
            gallery=gallery,
            protocol="; ".join(said),
            dataset=self.data.folder.resolve().name,
            data_sha256=self.data.info["manifest_sha256"],
            built=self.data.info.get("command", ""),
        )


def evaluate_dataset(
    embedder: Embedder,
    test: TestSet,
    images: str = "foggy",
    gallery_images: str | None = None,
    rerank: Rerank | None = None,
) -> Result:
    """Score a test set. images: one of CONDITIONS, of the queries.  gallery_images: another, or MIXED; None: the same.

    Raises DataError for clear images of a real dataset, and where embeddings are not finite.
    """
    conditions = embedded(images, gallery_images)
    check_conditions(test.data, conditions)
    found = {condition: embedder(test.data, condition) for condition in conditions}
    if gallery_images == MIXED:
        found[MIXED] = mixed(test.data, found["foggy"], found["clear"])
    scores = test.score(found[images], found[gallery_images or images], rerank, embedder.device)
    return test.result(scores, images, gallery_images, before_bn=embedder.before_bn)


def embedded(images: str, gallery_images: str | None) -> list[str]:
    """The conditions that images are embedded in for such queries and such a gallery."""
    gallery = ("foggy", "clear") if gallery_images == MIXED else (gallery_images or images,)
    return list(dict.fromkeys((images, *gallery)))


def mixed(data: Dataset, foggy: NDArray[np.float32], clear: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) embeddings of a dataset's images in fog and without -> of each image the one or the other, as a gallery of
    all weathers has it, by a hash of its id: a foggy query that prefers foggy strangers to a clear match loses."""
    coins = [hashlib.sha256(row.image_id.encode()).digest()[0] % 2 for row in data.rows]
    return np.where(np.array(coins, bool)[:, None], clear, foggy)


def check_conditions(data: Dataset, conditions: Iterable[str]) -> None:
    """Raises DataError for clear images that a dataset does not have."""
    if "clear" in conditions and not data.has_clear:
        raise DataError(f"{data.folder} is real and has no clear images; name another --data or --images.")


def _camera(row: Row) -> tuple[str, str] | None:
    """What is the same for two images of one camera; None where it is not known."""
    return None if row.camera_id is None else (row.source, row.camera_id)
