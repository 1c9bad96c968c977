"""Depth that exists already: the authors' `<stem>/predict_depth_gray.png` trees, or one picture an image."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..files import paths_below, sha256_bytes
from ..images import FloatArray, Uint8Image, decode_depth
from ..pictures import AUTHORS_NAME, AUTHORS_STEM, fit_depth
from ..records import FvridError, ImageRecord, ImageRefused
from . import Polarity

_NO_VEHICLE = ("", "Depth", *(f"{split}_clear" for split in ("train", "query", "gallery", "all")))
_SPLIT = re.compile(r"(train|test|query|gallery|all)(_clear|_foggy)?")  # folders of the authors, or after them
_AUTHORS_FORM = re.compile(r"\d+_c\d+_\d+_\d")  # of the names of FVRID's images
_KINDS = ("", "image", "images", "depth", "depths")
_LOOKED_AT = 32  # pictures, for their polarity
_SLOPE = 0.02  # of depth from the top third to the bottom third: less says nothing


@dataclass(frozen=True)
class DepthFiles:
    """Depth pictures of a folder, 8-bit or 16-bit, resized to the image where they differ in size, not in shape.

    The image `a/b.jpg` has its depth in `a/b/predict_depth_gray.png` or `a/b.png`; or without `a`, as the authors
    have it: `b/predict_depth_gray.png`, at the top or below folders of a split or of depth (train_clear/,
    train_clear/train_clear/, Depth/), also for the first 19 characters of b where these are a name of theirs; or
    `b.png` at the top. Another vehicle's `c/b.png` is never taken, nor `c/b/predict_depth_gray.png`, nor `x/a/b.png`
    of the image `y/a/b.jpg`, unless x or y is a folder such as images/ or depth/.
    """

    folder: Path
    paths: dict[str, list[str]] = field(repr=False)  # stem -> paths below the folder
    polarity: Polarity | None = None  # None: not said, far is white
    versions: dict[str, str] = field(default_factory=dict, compare=False)
    doubt: str = field(default="", compare=False)  # a sentence, where white seems to be near and nothing was said

    @property
    def name(self) -> str:
        return shlex.quote(f"files:{self.folder}") + (f" --polarity {self.polarity}" if self.polarity else "")

    @classmethod
    def index(cls, folder: Path, polarity: Polarity | None = None) -> "DepthFiles":
        """Raises FvridError where the folder is missing or holds no depth picture."""
        if not folder.is_dir():
            raise FvridError(f"--depth files:{folder}: no such folder.")
        paths: dict[str, list[str]] = {}
        for path in map(Path, paths_below(folder, [".png"])):
            if path.name == AUTHORS_NAME:
                paths.setdefault(path.parent.name, []).append(path.as_posix())
            elif not path.name.startswith("predict_depth"):
                paths.setdefault(path.stem, []).append(path.as_posix())
        if not paths:
            raise FvridError(f"--depth files:{folder}: no <image>/{AUTHORS_NAME} and no <image>.png is in the folder.")
        own = [each for several in paths.values() for each in several if not _is_authors(each)]
        doubt = ""
        if polarity is None and _white_seems_near(folder, own):
            doubt = (
                f"--depth files:{folder}: white is taken for far, but most of these pictures get whiter downwards, as"
                " if it were near: stop, and say --polarity near-white, where that is so."
            )
        sizes = sorted((path, _size(folder / path)) for several in paths.values() for path in several)
        return cls(folder, paths, polarity, {"pictures": sha256_bytes(repr(sizes).encode())}, doubt)

    def of(self, records: Iterable[ImageRecord]) -> "DepthFiles":
        """With the pictures of some images alone, as they are sent to another process."""
        stems = {stem for record in records for stem in _stems(record)}
        return replace(self, paths={stem: self.paths[stem] for stem in stems & self.paths.keys()})

    def find(self, record: ImageRecord) -> Path:
        """The depth picture of an image. Raises ImageRefused where there is none or more than one fits."""
        folder, _ = _folder_and_stem(record.source_path)
        stem, cut = _stems(record)
        found = self.paths.get(stem, [])
        if not found and _AUTHORS_FORM.match(cut):
            found = [path for path in self.paths.get(cut, []) if _is_authors(path)]
        of_folder = [path for path in found if _ends_alike(_folder_of(path), folder)]
        whole = [path for path in of_folder if _folder_of(path) == folder]
        loose = [path for path in found if _is_of_no_vehicle(path) or (_is_authors(path) and not folder)]
        # a folder of no vehicle is the image's own only where all of it agrees
        fitting = sorted(whole or of_folder or loose, key=lambda path: path.count("/"))
        if not fitting:
            raise ImageRefused(f"no depth picture for {record.source_path} in {self.folder}")
        if len(fitting) > 1 and fitting[0].count("/") == fitting[1].count("/"):
            raise ImageRefused(f"several depth pictures for {stem} in {self.folder}, as {' and '.join(fitting[:2])}")
        return self.folder / fitting[0]

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32. Raises ImageRefused, saying which picture is missing or unreadable."""
        path = self.find(record)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FvridError(f"{path}: cannot be read ({error.strerror}); mend it, and run again.") from None
        depth = decode_depth(content)
        d = fit_depth(depth, *image.shape[:2])
        if d is None:
            sizes = (" x ".join(str(side) for side in reversed(shape[:2])) for shape in (depth.shape, image.shape))
            raise ImageRefused("the depth picture {} has {} pixels, the image {}".format(path, *sizes))
        return 1 - d if self.polarity == "near-white" else d


def _stems(record: ImageRecord) -> tuple[str, str]:
    """Of an image, whole and as the authors' scripts cut it."""
    stem = _folder_and_stem(record.source_path)[1]
    return stem, stem[:AUTHORS_STEM]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # said where it is used
        return -1


def _folder_of(path: str) -> str:
    """The folder that a depth picture, or its folder <stem>, lies in; "" at the top."""
    folder = path.rpartition("/")[0]
    return folder.rpartition("/")[0] if _is_authors(path) else folder


def _is_authors(path: str) -> bool:
    return path.endswith("/" + AUTHORS_NAME)


def _is_of_no_vehicle(path: str) -> bool:
    """Whether a depth picture lies in no vehicle's folder, by that folder's name."""
    name = _name(_folder_of(path))
    if _is_authors(path):
        name = name.lower()
        return name in _KINDS or "depth" in name or _SPLIT.fullmatch(name) is not None
    return name in _NO_VEHICLE


def _folder_and_stem(path: str) -> tuple[str, str]:
    """a/b/c.d.jpg -> a/b, c.d; a PurePosixPath would take ten times longer, for every image."""
    folder, _, name = path.rpartition("/")
    return folder, name.rpartition(".")[0] or name


def _name(folder: str) -> str:
    """a/b -> b"""
    return folder.rpartition("/")[2]


def _ends_alike(folder: str, other: str) -> bool:
    """Whether one of two folders is the end of the other, folders that say what lies in them left out."""
    one, two = ([part for part in path.split("/") if part.lower() not in _KINDS] for path in (folder, other))
    shorter = min(len(one), len(two))
    return shorter > 0 and one[-shorter:] == two[-shorter:]


def _white_seems_near(folder: Path, paths: list[str]) -> bool:
    """Whether most pictures, of up to _LOOKED_AT, get whiter downwards, as the ground comes nearer.

    The authors' own, which do not follow the ground, are to be left out.
    """
    step = max(1, len(paths) // _LOOKED_AT)
    slopes = []
    for path in paths[::step][:_LOOKED_AT]:
        try:
            depth = decode_depth((folder / path).read_bytes())
        except (OSError, ImageRefused):
            continue  # said where it is used
        third = max(1, len(depth) // 3)
        slopes.append(float(depth[-third:].mean() - depth[:third].mean()))
    return len(slopes) > 1 and float(np.mean(np.array(slopes) > _SLOPE)) > 0.75
