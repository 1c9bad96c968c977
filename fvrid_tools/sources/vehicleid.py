"""VehicleID, of PKU (Liu et al. 2016).

    ROOT/image/<image>.jpg    also the images right in ROOT
    lists (in ROOT/train_test_split or ROOT): train_list, test_list_800 to test_list_13164.txt, which overlap
      image vehicle           no suffix

Only the lists know vehicles, so images that are not listed cannot be used. No camera is known.
"""

import re
from pathlib import Path

from ..records import Listing
from . import recognise
from .lists import NAME, SUFFIX, find_images, folder_of, join, read_vehicles

SOURCE = "vehicleid"
_LISTS = re.compile(r"(train|test)_list.*\.txt")
_IMAGE = re.compile(rf"(?:image/)*+(?P<key>{NAME}){SUFFIX}")


def read(root: Path) -> Listing:
    """List what the lists name; what is not on disk becomes rejects.

    Raises FvridError where `root` is another dataset, or a list has a line of another form or lists contradict each
    other.
    """
    recognise.check(root, SOURCE)
    below = folder_of(root, ("image",))
    found = find_images(SOURCE, root, [below], _IMAGE, "<image>")
    entries, note = read_vehicles(SOURCE, root, _LISTS, _IMAGE, "image vehicle")
    return join(SOURCE, root, found, entries, note=note, below=below)
