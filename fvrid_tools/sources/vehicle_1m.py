"""Vehicle-1M (Guo et al. 2018): 936,051 images of 55,527 vehicles of 400 models.

    ROOT/image/<folder>/<image>.jpg     also ROOT/image_jpg/..., ROOT/image/image/..., or the folders right in ROOT
    lists (in ROOT/train-test-split, ROOT/train_test_split or ROOT): train_list, test_1000, test_2000, test_3000 and
    test_full.txt, which overlap
      folder/image.jpg vehicle model    the model is no camera, though some loaders take it for one: never used

The vehicle is the second column: that the folder is it, too, is nowhere said. Only without lists, when every image
found is taken, the folder stands for it. No camera is known. Training and test may each count their vehicles from 0;
lists.read_vehicles keeps them apart.
"""

import re
from pathlib import Path

from ..records import Listing
from . import recognise
from .lists import NAME, SUFFIX, Entry, find_images, folder_of, join, read_vehicles

SOURCE = "vehicle-1m"
_LISTS = re.compile(r"(train_list|test_(\d+|full)).*\.txt")
_IMAGE = re.compile(rf"(?:image(?:_jpg)?/)*+(?P<key>{NAME}/{NAME}){SUFFIX}")


def read(root: Path) -> Listing:
    """List what the lists name, or, where there are none, what is on disk.

    Listed images that are not on disk become rejects. Raises FvridError where `root` is another dataset, or a list
    has a line of another form or lists contradict each other.
    """
    recognise.check(root, SOURCE)
    below = folder_of(root, ("image", "image_jpg"))
    found = find_images(SOURCE, root, [below], _IMAGE, "<folder>/<image>")
    entries, note = read_vehicles(SOURCE, root, _LISTS, _IMAGE, "folder/image.jpg vehicle model")
    if not entries:
        entries = {image_id: Entry(None, image_id.split("/")[1]) for image_id in found.paths}
    return join(SOURCE, root, found, entries, note=note, below=below)
