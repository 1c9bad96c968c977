"""VERI-Wild (Lou et al. 2019) in every state its users have it in.

    ROOT/images/<vehicle>/<image>.jpg      also images/images/..., images_all/..., images.part07/images/... where the
                                           archive's parts were unpacked one by one, or the vehicles' folders in ROOT
    ROOT/images_all/<image>.jpg            without folders: the lists, or vehicle_info.txt, tell the vehicles
    ROOT/gallery/..., ROOT/query/...       the test images of VERI-Wild 2.0
    lists (in ROOT or ROOT/train_test_split), told apart by content, as the same names hold different columns:
      vehicle/image                        first era, no suffix; the camera is in vehicle_info.txt
      vehicle/image.jpg identity camera    later eras; the identity is relabelled in training lists: never used
    test_split_V2/A_query.txt, ...         of VERI-Wild 2.0 (or test_split/): path identity; no camera
    vehicle_info.txt                       vehicle/image;camera;time;model;type;colour, with or without a header

The vehicle is the folder's name, of 2.0's own images "v2-" and the identity. Without lists, every image found is taken.
Lists of queries and of galleries name test vehicles; which of their images is the query is drawn, as FVRID's protocol
has one a vehicle.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..records import FvridError, Listing, Reject
from . import recognise
from .folder import image_paths
from .lists import NAME, SUFFIX, Entry, Found, bad_line, find_images, folder_of, join, key_of, lines, texts

SOURCE = "veri-wild"
_LISTS = re.compile(r"(train_list.*|test_\d+.*)\.txt")
_SECOND = re.compile(r"(A|B|All)_(query|gallery)\.txt")
_INFO = re.compile(r"vehicle_info\.txt")
_FOLDERS = r"(?:images(?:_all|\.part\d+)?/)*+"
_IMAGE = re.compile(rf"{_FOLDERS}(?P<key>{NAME}/{NAME}){SUFFIX}")
_FLAT = re.compile(rf"{_FOLDERS}(?P<name>{NAME}){SUFFIX}")
_OF_SECOND = ("query", "gallery")
_STEM = re.compile(rf"(?P<stem>.*?){SUFFIX}")


def read(root: Path) -> Listing:
    """List what the lists name, or, where there are none, what is on disk.

    Listed images that are not on disk become rejects, but for the lists of VERI-Wild 2.0 where none of its images is
    there. Raises FvridError where `root` is another dataset, or a list has a line of another form.
    """
    recognise.check(root, SOURCE)
    below = folder_of(root, ("images", "images_all"))
    parts = sorted(path.name for path in root.glob("images.part*") if path.is_dir()) if below else []
    found = find_images(SOURCE, root, [below, *parts], _IMAGE, "<vehicle>/<image>")
    cameras, lists = _read_vehicle_info(root), texts(root, _LISTS)
    listed = _read_lists(lists)
    found = _with_flat(found, listed or cameras)
    second, found = _read_second(root, found, cameras)
    names = [path.name for path in (*lists, *(texts(root, _SECOND) if second else ()), *texts(root, _INFO))]
    if not listed and not second:
        listed = dict.fromkeys(found.paths, (None, None))
    entries = {
        image_id: Entry(split, image_id.split("/")[1], cameras.get(image_id, camera))
        for image_id, (split, camera) in listed.items()
    }
    listing = join(SOURCE, root, found, second | entries, note=", ".join(names) or "no lists", below=below)
    return replace(listing, rejects=[_in_place(reject, below) for reject in listing.rejects])


def _in_place(reject: Reject, below: str) -> Reject:
    """An image of VERI-Wild 2.0 that is missing is not missing among those of the first."""
    path = reject.source_path.removeprefix(f"{below}/")
    return replace(reject, source_path=path) if path.split("/")[0] in _OF_SECOND else reject


def _with_flat(found: Found, known: Iterable[str]) -> Found:
    """With images that lie in no vehicle's folder, where `known` ids tell whose they are: names are unique."""
    flat = {match["name"]: reject for reject in found.passed if (match := _FLAT.fullmatch(reject.source_path))}
    if not flat:
        return found
    ids = {name: image_id for image_id in known if (name := image_id.rpartition("/")[2]) in flat}
    placed = {image_id: flat[name].source_path for name, image_id in ids.items() if image_id not in found.paths}
    used = set(placed.values())
    return Found(found.paths | placed, [reject for reject in found.passed if reject.source_path not in used])


def _read_second(root: Path, found: Found, cameras: Mapping[str, str]) -> tuple[dict[str, Entry], Found]:
    """What the lists of VERI-Wild 2.0 name, by image_id, and the images with its own among them.

    Their paths begin in the root, or in the folder of queries or of the gallery.
    """
    lists = texts(root, _SECOND)
    if not lists:
        return {}, found
    own = {path for folder in _OF_SECOND if (root / folder).is_dir() for path in image_paths(root, folder)}
    on_disk = {_stem(path): path for path in own}
    entries: dict[str, Entry] = {}
    placed: dict[str, str] = {}
    for path in lists:
        phase = path.stem.rpartition("_")[2]
        for number, line in lines(path):
            cells = line.split()
            stem = _stem(cells[0])
            if len(cells) < 2 or ".." in stem.split("/") or not stem.isprintable():
                raise bad_line(path, number, line, "path identity")
            known = f"{SOURCE}/{match['key']}" if (match := _IMAGE.fullmatch(cells[0])) else ""
            if known in found.paths and found.paths[known] not in own:  # an image of the first version
                entries[known] = Entry("test", known.split("/")[1], cameras.get(known))
                continue
            places = (stem, f"{phase}/{stem}", f"{phase}/{phase}/{stem}")
            place = next((place for place in places if place in on_disk), places[0])
            image_id, entry = f"{SOURCE}/{place}", Entry("test", f"v2-{cells[1]}")
            earlier = entries.setdefault(image_id, entry)
            if place in on_disk:
                placed[image_id] = on_disk[place]
                if earlier != entry:
                    raise FvridError(
                        f"{path}, line {number}: {cells[0]} is of vehicle {cells[1]} here, but of"
                        f" {earlier.vehicle_id.removeprefix('v2-')} in another line; keep only one of the lists."
                    )
    if not placed:
        entries = {image_id: entry for image_id, entry in entries.items() if image_id in found.paths}
    others = {image_id: path for image_id, path in found.paths.items() if path not in own}
    if placed:  # what is in no list is on disk all the same, and counted so
        listed = set(placed.values())
        others |= {f"{SOURCE}/{stem}": path for stem, path in on_disk.items() if path not in listed}
    return entries, Found(others | placed, [reject for reject in found.passed if reject.source_path not in own])


def _stem(path: str) -> str:
    match = _STEM.fullmatch(path.replace("\\", "/").removeprefix("./"))
    assert match is not None  # it matches anything
    return match["stem"]


def _read_vehicle_info(root: Path) -> dict[str, str]:
    """Cameras by image_id. A header, or any line of another form, is passed over."""
    cameras = {}
    for path in texts(root, _INFO):
        for _, line in lines(path):
            cells = line.split(";", maxsplit=2)
            match = _IMAGE.fullmatch(cells[0].strip())
            if match and len(cells) > 1 and cells[1].strip().isdigit():
                cameras[f"{SOURCE}/{match['key']}"] = str(int(cells[1]))
    return cameras


def _read_lists(lists: Iterable[Path]) -> dict[str, tuple[str | None, str | None]]:
    """(split, camera) by image_id."""
    listed: dict[str, tuple[str | None, str | None]] = {}
    for path in lists:
        split = "train" if path.name.startswith("train") else "test"
        for number, line in lines(path):
            image_id = f"{SOURCE}/{key_of(path, number, line, _IMAGE, 'vehicle/image')}"
            cells = line.split()
            with_camera = len(cells) == 3 and cells[2].isdigit()
            listed[image_id] = split, str(int(cells[2])) if with_camera else listed.get(image_id, (None, None))[1]
    return listed
