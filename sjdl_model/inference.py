"""Trained weights on ordinary images: find files, embed them, search among them, take the fog away.

An image that cannot be used stops nothing where the caller takes `refused`: it is told there and left out.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fvrid_tools import images
from fvrid_tools.files import atomic_path, is_text, make_folder, not_written, paths_below, sha256_file
from fvrid_tools.images import Uint8Image
from fvrid_tools.progress import Progress, silent
from fvrid_tools.records import ImageRefused

from . import transforms
from .config import ConfigError, DataError
from .data import to_float
from .distances import Euclidean
from .distances import embeddings as checked
from .evaluate import BATCH, embed
from .network import SJDL, check_defogs, load_network, weights_file

MAX_SIDE = 2048  # pixels: a longer side is shrunk before the network defogs the image
_STRIDE = 32  # the network takes sides that are multiples of it
_TILE, _GAP = 128, 6  # pixels, of a picture of results
_LONGEST_PICTURE = 65_000  # pixels: JPEG's limit, near enough

Refused = Callable[[Path, str], None]  # an image that cannot be used, and why


def _stop(path: Path, reason: str) -> None:
    raise DataError(f"{path}: {reason}; mend or leave out the file.")


class Trained(NamedTuple):
    """A network with its weights, in eval mode."""

    net: SJDL
    size: int  # pixels, of the square images it was trained with
    sha256: str  # of the weights file


def load_trained(weights: Path, device: torch.device | None = None) -> Trained:
    """The network of a weights file, or of a run's folder that holds one. Raises DataError where it is not ours."""
    path = weights_file(weights)
    net, architecture = load_network(path)
    return Trained(net.to(device or torch.device("cpu")), architecture.image_size, sha256_file(path))


# --- files


def find_images(named: Iterable[str | Path]) -> list[Path]:
    """Image files, and those below folders (as the folder was named, then the path in it), sorted, each once.

    A file that is named is taken for an image whatever its suffix; hidden files and folders are left out of folders,
    links are followed. Raises DataError where a path does not exist or a folder holds no image.
    """
    return [path for path, _ in _found(named)]


def _found(named: Iterable[str | Path], out: Path | None = None) -> list[tuple[Path, Path]]:
    """(path, path below the folder that was named), sorted; what lies in a folder `out` below that one is left out."""
    found: dict[Path, tuple[Path, Path]] = {}
    for one in map(Path, named):
        if one.is_dir():
            root, below = one, paths_below(one, images.SUFFIXES, without=out)
        elif one.is_file():
            root, below = one.parent, [one.name]
        else:
            raise DataError(f"{one}: no such file or folder; name images, or folders of images.")
        if not below:
            raise DataError(f"{one}: no image in this folder ({', '.join(sorted(images.SUFFIXES))}); name another.")
        for path in below:
            whole = root / path
            if not is_text(str(whole)):
                raise DataError(f"{str(whole)!a}: the name has control characters or is not UTF-8; rename it.")
            found.setdefault(whole.absolute(), (whole, Path(path)))
    return sorted(found.values())


def read_image(path: str | Path) -> Uint8Image:
    """(H, W, 3) uint8 RGB, upright. Raises ImageRefused where the file cannot be read or is no image."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageRefused(f"cannot be read ({error.strerror})") from None
    return images.decode(content)


def check_output(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Make the folder of a file that is to be written.

    Raises DataError where the path is a folder or one of the inputs, FvridError where its folder cannot be written to.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file to write.")
    if path.exists() and any(one.exists() and path.samefile(one) for one in inputs):
        raise DataError(f"{path}: is an input and would be overwritten; name another file to write.")
    make_folder(path.parent)


@contextmanager
def writing(path: Path, durable: bool = True) -> Iterator[Path]:
    """`atomic_path`, with FvridError where the file cannot be written."""
    try:
        with atomic_path(path, durable) as unfinished:
            yield unfinished
    except OSError as error:
        raise not_written(path, error) from None


# --- embedding


@dataclass(frozen=True)
class _Resized(Dataset[tuple[Tensor | None, str]]):
    """Files as (3, size, size) uint8, as `sjdl eval` resizes the images of a dataset; or None and why not."""

    paths: Sequence[Path]
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor | None, str]:
        try:
            image = torch.from_numpy(read_image(self.paths[index])).permute(2, 0, 1)
        except ImageRefused as error:
            return None, str(error)
        return transforms.resize(image, self.size), ""


def _collate(items: list[tuple[Tensor | None, str]]) -> tuple[Tensor | None, list[str]]:
    """The usable images as one tensor, and of each the reason why not."""
    usable = [image for image, _ in items if image is not None]
    return torch.stack(usable) if usable else None, [reason for _, reason in items]


def embed_images(
    net: SJDL,
    paths: Sequence[str | Path],
    size: int,
    *,
    defog: bool = False,
    before_bn: bool = False,
    batch: int = BATCH,
    workers: int = 0,
    progress: Progress = silent,
    refused: Refused = _stop,
) -> NDArray[np.float32]:
    """(N, D) embeddings of image files resized to size x size, on the network's device; what `sjdl eval` ranks by,
    of images of the domain that `net.use_statistics_of` was told last (a loaded network: real).

    defog: of the images that the FIRM makes of them.  workers: processes that decode.  Rows are those of the paths that
    were not refused; (0, 0) where all were.
    Raises DataError where an image is refused and the caller does not take it, an embedding is not finite, or the
    weights learned no defogging that is asked for.
    """
    if defog:
        check_defogs(net)
    device = next(net.parameters()).device
    used: list[Path] = []

    def batches() -> Iterator[Tensor]:
        files = _Resized([Path(path) for path in paths], size)
        waiting = iter(files.paths)
        for loaded, reasons in DataLoader(files, batch_size=batch, num_workers=workers, collate_fn=_collate):
            for reason in reasons:
                path = next(waiting)
                if reason:
                    refused(path, reason)
                else:
                    used.append(path)
            progress(sum(map(bool, reasons)))
            if loaded is not None:
                yield to_float(loaded, device)

    found = embed(
        net, batches(), len(paths), defog=net.defog if defog else None, before_bn=before_bn, progress=progress
    )
    for path, row in zip(used, found, strict=True):
        if not np.isfinite(row).all():
            raise DataError(f"{path}: the embedding is not finite, so the weights are broken; take others.")
    return found


@dataclass(frozen=True)
class Embeddings:
    """Images and their embeddings, as they lie in the .npz files of `sjdl embed`."""

    images: list[str]  # paths, as they were named
    embeddings: NDArray[np.float32]  # (N, D)
    made_by: dict[str, str] = field(default_factory=dict)  # weights_sha256, feature, images, folder, fvrid_version

    @classmethod
    def of(cls, paths: Sequence[Path], embeddings: NDArray[np.float32], **made_by: str) -> "Embeddings":
        """made_by: what decided the embeddings, such as feature="after-bn"; folder and version are added."""
        facts = {**made_by, "folder": str(Path.cwd()), "fvrid_version": version("fvrid")}
        return cls([str(path) for path in paths], embeddings, facts)

    def save(self, path: Path) -> None:
        """Write an .npz of `embeddings`, `images` and `made_by` (JSON). Raises DataError where that is not possible."""
        names, made_by = np.array(self.images), np.array(json.dumps(self.made_by))
        with writing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, embeddings=self.embeddings, images=names, made_by=made_by)

    @classmethod
    def load(cls, path: Path) -> "Embeddings":
        """What `save` wrote. Raises DataError for another file, and where an embedding is not finite."""
        stranger = DataError(f"{path}: not embeddings of sjdl embed; make them anew, or name a folder.")
        try:
            with path.open("rb") as file, np.errstate(over="ignore"):
                found = np.load(file, allow_pickle=False)
                embeddings, names = found["embeddings"], found["images"]
                made_by = dict(json.loads(str(found["made_by"]))) if "made_by" in found else {}
                known = embeddings.dtype.kind == "f" and names.dtype.kind == "U"
                embeddings = embeddings.astype(np.float32, copy=False)
        except Exception:  # NumPy raises many kinds for a file that is not its own
            raise stranger from None
        if not (known and embeddings.ndim == 2 and len(names) and names.shape == embeddings.shape[:1]):
            raise stranger
        broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(broken):
            raise DataError(f"{path}: the embedding of {names[broken[0]]} is not finite; embed the images anew.")
        return cls([str(name) for name in names], embeddings, {name: str(fact) for name, fact in made_by.items()})

    def check_same(self, path: Path, dimensions: int, **made_by: str) -> None:
        """Raise DataError where they cannot be compared with embeddings of so many dimensions that were made so."""
        if self.embeddings.shape[1] != dimensions:
            raise DataError(
                f"{path}: its embeddings have {self.embeddings.shape[1]} dimensions, those of these weights "
                f"{dimensions}; embed the gallery with the same weights."
            )
        for name, value in made_by.items():
            other = self.made_by.get(name, value)
            if other != value:
                raise DataError(
                    f"{path}: was embedded with {name} {other[:12]}, not {value[:12]}; embed it again in the same way."
                )

    def places(self) -> list[Path]:
        """Where the images lie, whatever the folder we are in."""
        return [Path(self.made_by.get("folder", ""), name) for name in self.images]


# --- searching


class Hit(NamedTuple):
    """A gallery image that a search found."""

    position: int  # in the gallery
    distance: float  # Euclidean


def search(
    query: ArrayLike,
    gallery: ArrayLike,
    top: int = 10,
    query_paths: Sequence[Path] = (),
    gallery_paths: Sequence[Path] = (),
) -> list[list[Hit]]:
    """For each query the `top` nearest of the gallery, nearest first; equal distances in the order of the gallery.

    query: (Q, D).  gallery: (G, D).  paths: of each row, or none; an image is not found by itself, that is by a query
    whose path is the same file. A block of queries at a time; distances are float64, of differences.
    Raises DataError where the dimensions differ or a number is not finite.
    """
    queries, rows = checked(query, "query"), checked(gallery, "gallery")
    places: dict[Path, list[int]] = {}
    for position, path in enumerate(gallery_paths):
        places.setdefault(path.resolve(), []).append(position)
    own = [places.get(path.resolve(), []) for path in query_paths]
    found = []
    metric = Euclidean(queries, rows)
    for i, row in metric.rows():
        if own:
            row[np.array(own[i], np.intp)] = np.inf
        known = np.isfinite(row)
        if known.sum() > top:  # what is as near as the last of them up to rounding is measured exactly
            known &= row <= np.partition(row, top - 1)[top - 1] + metric.tolerance
        near = np.flatnonzero(known)
        distance = np.linalg.norm(rows[near].astype(np.float64) - queries[i], axis=1)
        order = np.argsort(distance, kind="stable")[:top]
        found.append([Hit(int(near[j]), float(distance[j])) for j in order])
    return found


def check_picture(path: Path, rows: int, columns: int) -> None:
    """Raise ConfigError where a picture of so many tiles cannot be written to that file."""
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ConfigError(f"{path}: a picture is a .jpg or a .png file; name one.")
    step = _TILE + _GAP
    if max(rows, columns + 1) * step > _LONGEST_PICTURE or rows * columns * step**2 > images.MAX_PIXELS:
        raise ConfigError(f"{path}: {rows} x {columns} images are too many for a picture; name fewer, or lower --top.")


def write_picture(path: Path, rows: Sequence[Sequence[Path]], refused: Refused = _stop) -> None:
    """Write a picture with a row of images a query, the query first and apart; a refused one is left white.

    Raises FvridError where the file cannot be written.
    """
    step, apart = _TILE + _GAP, 4 * _GAP
    width = apart + step * max(len(row) for row in rows) - _GAP
    canvas = np.full((step * len(rows) - _GAP, width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, one in enumerate(row):
            try:
                tile = images.stretch(read_image(one), _TILE)
            except ImageRefused as error:
                refused(one, str(error))
                continue
            left = j * step + (apart if j else 0)
            canvas[i * step : i * step + _TILE, left : left + _TILE] = tile
    with writing(path) as unfinished:
        unfinished.write_bytes(images.encode(canvas, "png" if path.suffix.lower() == ".png" else "jpeg"))


# --- defogging


def defog_image(net: SJDL, image: Uint8Image, max_side: int = MAX_SIDE) -> Uint8Image:
    """(H, W, 3) uint8 RGB -> the same without fog, on the network's device.

    The network sees the image at its own size, mirrored at the right and the bottom to multiples of 32 pixels; where a
    side is longer than `max_side` it sees a smaller one, and its result is enlarged again.
    Raises DataError where the weights learned no defogging or give what is not a number, or the backbone takes images
    of one size only.
    """
    return _defog(net, images.shrink(image, max_side), *image.shape[:2])


@torch.inference_mode()
def _defog(net: SJDL, image: Uint8Image, height: int, width: int) -> Uint8Image:
    """(h, w, 3) -> (height, width, 3)."""
    check_defogs(net)
    h, w = image.shape[:2]
    padded = np.pad(image, ((0, -h % _STRIDE), (0, -w % _STRIDE), (0, 0)), mode="symmetric")
    device = next(net.parameters()).device
    foggy = torch.from_numpy(padded).to(device).permute(2, 0, 1)[None].float() / 255
    try:
        clear = net.eval().defog(foggy)[..., :h, :w].float()
    except AssertionError:  # of timm, where a backbone takes one size
        raise DataError(
            f"the network's backbone takes images of {net.image_size} pixels a side only, and {h} x {w} would be"
            " defogged; take weights of another backbone."
        ) from None
    if not torch.isfinite(clear).all():
        raise DataError("the defogged image is not finite, so the weights are broken; take others.")
    if (h, w) != (height, width):
        clear = torch.nn.functional.interpolate(clear, (height, width), mode="bilinear", align_corners=False)
    return images.to_uint8(np.ascontiguousarray(clear[0].permute(1, 2, 0).cpu().numpy()))


def defog_targets(named: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where in the folder `out` each image goes, as a PNG: folders below one that was named are kept.

    Images in `out` itself are no inputs, where it lies below a folder that was named.
    Raises DataError where two images would be one file, or one would be written over an input.
    """
    sources: dict[Path, Path] = {}  # of each target
    for path, below in _found(named, out):
        target = out / below.with_suffix(".png")
        other = sources.setdefault(target, path)
        if other is not path:
            raise DataError(f"{other} and {path} would both be {target}; name one alone, or the folder above both.")
    inputs = {path.resolve(): path for path in sources.values()}
    for target, path in sources.items():
        if target.resolve() in inputs:
            raise DataError(f"{path} would be written over the input {inputs[target.resolve()]}; name another --out.")
        if target.is_dir():
            raise DataError(f"{target}: is a folder where {path} would be written; name another --out.")
    return {path: target for target, path in sources.items()}


@dataclass(frozen=True)
class _Shrunk(Dataset[tuple[Uint8Image | None, tuple[int, ...], str]]):
    """Files as the network is to see them, with their own sizes; or None and why not."""

    paths: Sequence[Path]
    max_side: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Uint8Image | None, tuple[int, ...], str]:
        try:
            image = read_image(self.paths[index])
        except ImageRefused as error:
            return None, (), str(error)
        return images.shrink(image, self.max_side), image.shape[:2], ""


def _first(items: list[Any]) -> Any:
    return items[0]


def defog_files(
    net: SJDL,
    targets: dict[Path, Path],
    *,
    max_side: int = MAX_SIDE,
    workers: int = 0,
    progress: Progress = silent,
    refused: Refused = _stop,
) -> None:
    """Write the defogged image of each file to its target, a PNG, one after the other. Raises DataError."""
    paths = list(targets)
    loader = DataLoader(_Shrunk(paths, max_side), batch_size=1, num_workers=workers, collate_fn=_first)
    writes: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as disk:  # a PNG may take longer than the network, on a GPU
        for path, (image, size, reason) in zip(paths, loader, strict=True):
            if image is None:
                refused(path, reason)
            else:
                while len(writes) > 1:
                    writes.popleft().result()
                writes.append(disk.submit(_write_png, targets[path], _defog(net, image, *size)))
            progress(1)
        for write in writes:
            write.result()


def _write_png(path: Path, image: Uint8Image) -> None:
    make_folder(path.parent)
    content = images.encode(image, "png")
    with writing(path, durable=False) as unfinished:
        unfinished.write_bytes(content)
