"""VERI-Wild (Lou et al. 2019) in every state its users have it in.

    ROOT/images/<vehicle>/<image>.jpg      also ROOT/images/images/..., or the vehicles' folders right in ROOT
    lists (in ROOT or ROOT/train_test_split), told apart by content, as the same names hold different columns:
      vehicle/image                        first era, no suffix; the camera is in vehicle_info.txt
      vehicle/image.jpg identity camera    later eras; the identity is relabelled in training lists: never used
      vehicle/image.jpg identity ...       VERI-Wild 2.0, which tells no camera
    vehicle_info.txt                       vehicle/image;camera;time;model;type;colour, with or without a header

The vehicle is the folder's name. Without lists, every image found is taken. Lists of queries and of galleries name test
vehicles; which of their images is the query is drawn, as FVRID's protocol has one a vehicle.
"""

import re
from pathlib import Path

from ..records import Listing
from . import recognise
from .lists import NAME, SUFFIX, Entry, find_images, folder_of, join, key_of, lines, texts

SOURCE = "veri-wild"
_LISTS = re.compile(r"(train_list.*|test_\d+.*|(A|B|All)_(query|gallery))\.txt")
_INFO = re.compile(r"vehicle_info\.txt")
_IMAGE = re.compile(rf"(?:images/)*+(?P<key>{NAME}/{NAME}){SUFFIX}")


def read(root: Path) -> Listing:
    """List what the lists name, or, where there are none, what is on disk.

    Listed images that are not on disk become rejects. Raises FvridError where `root` is another dataset, or a list
    has a line of another form.
    """
    recognise.check(root, SOURCE)
    below = folder_of(root, ("images",))
    found = find_images(SOURCE, root, [below], _IMAGE, "<vehicle>/<image>")
    cameras = _read_vehicle_info(root)
    listed, eras = _read_lists(root)
    entries = {
        image_id: Entry(split, image_id.split("/")[1], cameras.get(image_id, camera))
        for image_id, (split, camera) in (listed or dict.fromkeys(found.paths, (None, None))).items()
    }
    return join(SOURCE, root, found, entries, note=eras or "no lists", below=below)


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


def _read_lists(root: Path) -> tuple[dict[str, tuple[str | None, str | None]], str]:
    """(split, camera) by image_id, and the eras the lists belong to."""
    listed: dict[str, tuple[str | None, str | None]] = {}
    eras = set()
    for path in texts(root, _LISTS):
        split = "train" if path.name.startswith("train") else "test"
        for number, line in lines(path):
            image_id = f"{SOURCE}/{key_of(path, number, line, _IMAGE, 'vehicle/image')}"
            cells = line.split()
            with_camera = len(cells) == 3 and cells[2].isdigit()
            eras.add("lists with cameras" if with_camera else "lists of names")
            listed[image_id] = split, str(int(cells[2])) if with_camera else listed.get(image_id, (None, None))[1]
    return listed, " and ".join(sorted(eras))
