"""VERI-Wild (Lou et al. 2019) in every state its users have it in.

    ROOT/images/<vehicle>/<image>.jpg      also ROOT/images/images/..., or the vehicles' folders right in ROOT
    lists (in ROOT or ROOT/train_test_split), told apart by content, as the same names hold different columns:
      vehicle/image                        first era, no suffix; the camera is in vehicle_info.txt
      vehicle/image.jpg identity camera    later eras; the identity is relabelled in training lists: never used
      vehicle/image.jpg identity ...       VERI-Wild 2.0, which tells no camera
    vehicle_info.txt                       vehicle/image;camera;time;model;type;colour, with or without a header

The vehicle is the folder's name. Without lists, every image found is taken.
"""

import re
from pathlib import Path

from ..records import FvridError, ImageRecord, Listing, Reject
from .folder import image_paths

SOURCE = "veri-wild"
_LIST_NAME = re.compile(r"(train_list.*|test_\d+.*|(A|B|All)_(query|gallery))\.txt")
_ENTRY = re.compile(r"(?P<vehicle_id>[^/\s]+)/(?P<image>[^/\s]+?)(\.(?:jpe?g|png))?", re.IGNORECASE)


def read(root: Path) -> Listing:
    """List what the lists name, or, where there are none, what is on disk.

    Listed images that are not on disk become rejects. Raises FvridError where `root` is another dataset.
    """
    if any((root / name).is_dir() for name in ("image", "image_jpg", "image_train")):
        raise FvridError(
            f"{root} is not VERI-Wild but looks like Vehicle-1M, VehicleID or VeRi-776"
            " (VERI-Wild has images/<vehicle>/<image>.jpg); name another --src or --root."
        )
    on_disk, passed = _find_images(root)
    cameras = _read_vehicle_info(root)
    listed, eras = _read_lists(root)
    records, rejects = [], []
    for key, (split, camera) in sorted(listed.items() if listed else ((key, (None, None)) for key in on_disk)):
        path = on_disk.get(key)
        if path is None:
            rejects.append(Reject(SOURCE, f"images/{key}", "listed, but not on disk"))
            continue
        vehicle_id = key.partition("/")[0]
        camera_id = cameras.get(key, camera)
        records.append(ImageRecord(f"{SOURCE}/{key}", SOURCE, path, vehicle_id, camera_id, split, root))
    vehicles = len({record.vehicle_id for record in records})
    known = {record.camera_id for record in records if record.camera_id is not None}
    unlisted = len(on_disk.keys() - listed.keys()) if listed else 0
    summary = (
        f"veri-wild: {eras or 'no lists'}, {len(records)} images of {vehicles} vehicles, {len(known) or 'no'} cameras"
        f" known, {len(rejects)} listed but not on disk, {unlisted} on disk but not listed, {len(passed)} other files"
    )
    return Listing(sorted(records), [*rejects, *passed], summary)


def _find_images(root: Path) -> tuple[dict[str, str], list[Reject]]:
    """Paths below `root` by "vehicle/image"; and the files that are passed over, with the reason."""
    found: dict[str, str] = {}
    passed = []
    base = "images/" if (root / "images").is_dir() else ""
    for path in image_paths(root / base):
        match = _ENTRY.fullmatch(path.removeprefix("images/"))
        key = f"{match['vehicle_id']}/{match['image']}" if match else ""
        if not match:
            passed.append(Reject(SOURCE, base + path, "the path is not <vehicle>/<image>"))
        elif key in found:
            passed.append(Reject(SOURCE, base + path, f"duplicate id {SOURCE}/{key}, taken from {found[key]}"))
        else:
            found[key] = base + path
    return found, passed


def _read_vehicle_info(root: Path) -> dict[str, str]:
    """Cameras by "vehicle/image". A header, or any line of another form, is passed over."""
    cameras = {}
    for path in _texts(root):
        if path.name == "vehicle_info.txt":
            for line in _lines(path):
                cells = line.split(";")
                match = _ENTRY.fullmatch(cells[0].strip())
                if match and len(cells) > 1 and cells[1].strip().isdigit():
                    cameras[f"{match['vehicle_id']}/{match['image']}"] = str(int(cells[1]))
    return cameras


def _read_lists(root: Path) -> tuple[dict[str, tuple[str | None, str | None]], str]:
    """(split, camera) by "vehicle/image", and the eras the lists belong to."""
    entries: dict[str, tuple[str | None, str | None]] = {}
    eras = set()
    for path in _texts(root):
        if not _LIST_NAME.fullmatch(path.name):
            continue
        split = "train" if path.name.startswith("train") else "test"
        for number, line in enumerate(_lines(path), start=1):
            cells = line.split()
            if not cells:
                continue
            match = _ENTRY.fullmatch(cells[0])
            if match is None:
                raise FvridError(f"{path}, line {number}: {line[:60]!r} is not vehicle/image; restore the list.")
            with_camera = len(cells) == 3 and cells[2].isdigit()
            eras.add("lists with cameras" if with_camera else "lists of names")
            key = f"{match['vehicle_id']}/{match['image']}"
            entries[key] = split, str(int(cells[2])) if with_camera else entries.get(key, (None, None))[1]
    return entries, " and ".join(sorted(eras))


def _texts(root: Path) -> list[Path]:
    folders = (root, *(root / name for name in ("train_test_split", "test_split_V2")))
    return sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*.txt"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise FvridError(f"{path}: cannot be read ({error.strerror}); restore the list.") from None
