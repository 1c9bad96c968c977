"""Rendered vehicles with exact depth: a folder that `fvrid render` wrote, or the dataset inside the package.

    ROOT/views.csv                           image_id, vehicle_id, camera_id, split, fog, pair, ...; a row an image
    ROOT/images/<vehicle>/<image>.jpg        clear or foggy: a folder holds one of the two
    ROOT/depth/<vehicle>/<image>.png         16 bits, log-normalised distance: of clear views and of pairs
    ROOT/clear/<vehicle>/<image>.jpg         the clear counterpart of a foggy view, where pair is 1

The same packed by mini_pack.py, as it lies in the package, read in place and never unpacked:

    ROOT/mini.json                           what was packed, and each shard's hash; appears last
    ROOT/views.csv                           of all parts, with the column part: clear or real
    ROOT/clear-00000.h5 ...                  clear, depth        shards of shards.py
    ROOT/real-00000.h5 ...                   foggy
    ROOT/pairs-00000.h5 ...                  foggy, clear, depth of the real views whose pair is 1
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .. import files
from ..records import FvridError, ImageRecord, InShard, Listing, Part, Place, Reject
from ..shards import Shard

SOURCE = "mini"
EMBEDDED = Path(__file__).parents[1] / "mini"
FORMAT = 1
INDEX, VIEWS = "mini.json", "views.csv"
RECIPE = "render.json"  # of a rendered folder
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_CELLS = {
    "image_id": _NAME,
    "vehicle_id": _NAME,
    "camera_id": r"[A-Za-z0-9._-]*",
    "split": "train|test",
    "fog": "[a-z]*",
    "pair": "[01]",
}


class Places(NamedTuple):
    """Where the pictures of a view lie, as in an ImageRecord."""

    image: InShard | None = None
    depth: Place | None = None
    clear: Place | None = None


class View(NamedTuple):
    """A line of views.csv; `cells` has all its columns."""

    image_id: str  # "mini/<vehicle>/<image>"
    path: str  # "<vehicle>/<image>", below images/, depth/ and clear/, without suffix
    cells: dict[str, str]

    @property
    def foggy(self) -> bool:
        return self.cells["fog"] != ""

    def is_in(self, part: Part) -> bool:
        return self.foggy == (part != "clear") and (part != "pairs" or self.cells["pair"] == "1")


def read(root: Path, part: Part) -> Listing:
    """List a part of a rendered folder or of a packed one. Rendered images that are not there become rejects.

    Raises FvridError where it holds no such part, where it is neither, or where it is packed and damaged.
    """
    views = find_views(root, part)
    find = _in_shards(root, part) if _is_packed(root) else _in_files(root, part)
    records, rejects = [], []
    for view in views:
        source_path = f"images/{view.path}.jpg"
        places = find(view)
        if places is None:
            rejects.append(Reject(SOURCE, source_path, f"in {VIEWS}, but not on disk: the render is not finished"))
            continue
        vehicle_id, camera_id, split = (view.cells[name] for name in ("vehicle_id", "camera_id", "split"))
        records.append(
            ImageRecord(view.image_id, SOURCE, source_path, vehicle_id, camera_id or None, split, root, *places)
        )
    vehicles = len({record.vehicle_id for record in records})
    cameras = len({record.camera_id for record in records if record.camera_id is not None})
    summary = (
        f"mini: {part}, {len(records)} images of {vehicles} vehicles, {cameras or 'no'} cameras known,"
        f" {len(rejects)} not rendered"
    )
    return Listing(records, rejects, summary)


def find_views(root: Path, part: Part) -> list[View]:
    """The views of a part, sorted by image_id, rendered or not yet. Raises FvridError as `read` does."""
    if _is_packed(root):
        (path,) = _checked(root, VIEWS)
        views = _read_views(path)
    else:
        views = _read_views(root / VIEWS)
        if len({view.foggy for view in views}) > 1:
            raise FvridError(f"{root / VIEWS}: clear and foggy views in one folder; render them into two.")
    wanted = [view for view in views if view.is_in(part)]
    if not wanted:
        raise FvridError(_none_of(root, part, views))
    return wanted


def recipe_of(root: Path) -> Any:
    """How a folder, or what was packed of it, was rendered; None where it does not say.

    Raises FvridError where it cannot be read.
    """
    path = root / (INDEX if _is_packed(root) else RECIPE)
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise FvridError(f"{path}: not readable ({error}); run fvrid render again.") from None
    return found["recipe"] if path.name == INDEX else found


def _is_packed(root: Path) -> bool:
    return root == EMBEDDED or (root / INDEX).exists()


def _none_of(root: Path, part: Part, views: list[View]) -> str:
    if not views:
        return f"{root / VIEWS}: no view is in it; render again."
    if not any(view.foggy for view in views):
        return f"{root} holds clear views, no fog; fvrid build-syn takes them."
    if part == "clear":
        return f"{root} holds foggy views, no clear ones; fvrid build-real takes them."
    return f"{root} holds no pair, a foggy view with a clear counterpart; build-real takes it without --pairs."


def _read_views(path: Path) -> list[View]:
    """The lines of views.csv, sorted by image_id. Raises FvridError naming the line that is wrong."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in _CELLS if name not in (reader.fieldnames or ())]
            if missing:
                raise FvridError(f"{path}: the column {missing[0]} is missing; render again.")
            views = [_to_view(cells, f"{path}, line {reader.line_num}") for cells in reader]
    except FileNotFoundError:
        raise FvridError(
            f"{path} is missing: neither a folder that fvrid render wrote nor a packed one; name another --root."
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise FvridError(f"{path}: not readable ({error}); render again.") from None
    names = Counter((view.foggy, view.cells["image_id"]) for view in views)
    for (_, name), count in names.items():
        if count > 1:
            raise FvridError(f"{path}: {name} is in it {count} times; render again.")
    return sorted(views, key=lambda view: view.image_id)


def _to_view(cells: dict[str, str], where: str) -> View:
    if len(cells.keys() - {None}) < len(cells):
        raise FvridError(f"{where}: more cells than columns; render again.")
    for name, form in _CELLS.items():
        if not re.fullmatch(form, cells[name]):
            raise FvridError(f"{where}: {cells[name][:60]!r} cannot be a {name}; render again.")
    path = f"{cells['vehicle_id']}/{cells['image_id']}"
    return View(f"{SOURCE}/{path}", path, cells)


def _in_files(root: Path, part: Part) -> Callable[[View], Places | None]:
    """What finds a view's pictures in a rendered folder; None where the image is not rendered yet."""

    def find(view: View) -> Places | None:
        if not (root / "images" / f"{view.path}.jpg").is_file():
            return None
        return Places(
            depth=root / "depth" / f"{view.path}.png" if part != "real" else None,
            clear=root / "clear" / f"{view.path}.jpg" if part == "pairs" else None,
        )

    return find


def _in_shards(root: Path, part: Part) -> Callable[[View], Places]:
    """What finds a view's pictures in the shards of a part, whose hashes are checked."""
    found: dict[str, tuple[Path, int]] = {}
    for path in _checked(root, f"{part}-"):
        rows, _ = Shard(path).read_rows()
        found.update({row.image_id: (path, row.row) for row in rows})

    def find(view: View) -> Places:
        if view.image_id not in found:
            raise _damaged(root, f"{view.image_id} is in no {part} shard")
        path, row = found[view.image_id]
        return Places(
            image=InShard(path, "clear" if part == "clear" else "foggy", row),
            depth=InShard(path, "depth", row) if part != "real" else None,
            clear=InShard(path, "clear", row) if part == "pairs" else None,
        )

    return find


def _checked(root: Path, prefix: str) -> Iterator[Path]:
    """The files of mini.json whose names begin so. Raises FvridError where one is not what was packed."""
    for name, sha256 in _read_index(root).items():
        if name.startswith(prefix):
            path = files.inside(root, name)
            if not path.is_file():
                raise _damaged(root, f"{name} is missing")
            if files.sha256_file(path) != sha256:
                raise _damaged(root, f"{name} is not what was packed")
            yield path


def _read_index(root: Path) -> dict[str, str]:
    """The hash of each file that mini.json names. Raises FvridError where it is missing or of another form."""
    try:
        index = json.loads((root / INDEX).read_text(encoding="utf-8"))
        hashes = {str(entry["name"]): str(entry["sha256"]) for entry in index["files"]}
        if index["format"] != FORMAT or VIEWS not in hashes:
            raise ValueError(f"not of format {FORMAT}")
    except FileNotFoundError:
        raise _damaged(root, f"{INDEX} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(root, f"{INDEX} is not readable: {error}") from None
    return hashes


def _damaged(root: Path, what: str) -> FvridError:
    whose = "the dataset inside the package" if root == EMBEDDED else "the packed dataset"
    mend = "install fvrid again, or name a rendered folder with --root"
    return FvridError(f"{root}: {whose} is incomplete or damaged ({what}); {mend}.")
