"""VeRi-776 (Liu et al. 2016).

    ROOT/image_train/<vehicle>_c<camera>_<frame>_<index>.jpg    also image_query/ and image_test/, the gallery
    ROOT/name_train.txt, name_query.txt, name_test.txt          a file name a line

Folder and name say everything; a list tells what its folder should hold. Every query lies in image_test too, as it is
in the gallery for the queries of its vehicle's other cameras: so the folder is a part of an image's id.
"""

import re
from itertools import chain
from pathlib import Path

from ..records import Listing
from . import recognise
from .lists import SUFFIX, Entry, find_images, join, key_of, lines, texts

SOURCE = "veri"
SPLITS = {"image_train": "train", "image_query": "query", "image_test": "gallery"}
NAMED = r"(?P<vehicle_id>\d+)_c(?P<camera>\d+)_[^/\s]*?"  # an image's name, here and in FVRID
_IMAGE = re.compile(rf"(?P<key>(?P<folder>{'|'.join(SPLITS)})/{NAMED}){SUFFIX}")
_LISTED = re.compile(rf"(?P<key>{NAMED}){SUFFIX}")


def read(root: Path) -> Listing:
    """List what the lists name, and of a folder without a list what is on disk.

    Listed images that are not on disk become rejects. Raises FvridError where `root` is another dataset, or a list
    has a line of another form.
    """
    recognise.check(root, SOURCE)
    found = find_images(SOURCE, root, SPLITS, _IMAGE, "<vehicle>_c<camera>_<frame>_<index>")
    listed = {folder: ids for folder in SPLITS if (ids := _read_list(root, folder))}
    taken = chain(*listed.values(), (image_id for image_id in found.paths if image_id.split("/")[1] not in listed))
    entries = {image_id: _entry(image_id) for image_id in taken}
    return join(SOURCE, root, found, entries, note=f"{', '.join(map(_list_of, listed)) or 'no lists'}")


def camera_of(match: re.Match[str]) -> str | None:
    """The camera of a name; "c000" says that it is not known."""
    return str(int(match["camera"])) if int(match["camera"]) else None


def _entry(image_id: str) -> Entry:
    match = _IMAGE.fullmatch(image_id.removeprefix(SOURCE + "/"))
    assert match is not None  # the id was made of what it matched
    return Entry(SPLITS[match["folder"]], match["vehicle_id"], camera_of(match))


def _list_of(folder: str) -> str:
    return folder.replace("image", "name")


def _read_list(root: Path, folder: str) -> list[str]:
    """The ids of the images that a folder should hold."""
    return [
        f"{SOURCE}/{folder}/{key_of(path, number, line, _LISTED, 'the name of an image')}"
        for path in texts(root, re.compile(rf"{_list_of(folder)}\.txt"))
        for number, line in lines(path)
    ]
