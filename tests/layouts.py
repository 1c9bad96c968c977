"""Small trees in the layouts of the datasets, with empty image files, as listing reads none: input for tests."""

from pathlib import Path

from fvrid_tools.pictures import AUTHORS_NAME

Tree = dict[str, str]  # content by path


def write(root: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def images(*paths: str) -> Tree:
    return dict.fromkeys(paths, "")


VERI_WILD = images("images/00001/000001.jpg", "images/00001/000002.jpg", "images/00002/000003.jpg")
VERI_WILD_LISTS = {
    "train_test_split/train_list.txt": "00001/000001.jpg 0 23\n00001/000002.jpg 0 61\n",
    "train_test_split/test_3000.txt": "00002/000003.jpg 2 23\n",
}
VEHICLE_1M = images("image/000007/000001.jpg", "image/000007/000002.jpg", "image/000008/000003.jpg")
VEHICLE_1M_LISTS = {
    "train-test-split/train_list.txt": "000007/000001.jpg 40 399\n000007/000002.jpg 40 399\n",
    "train-test-split/test_1000.txt": "000008/000003.jpg 41 12\n",
    "train-test-split/test_full.txt": "000008/000003.jpg 41 12\n",
}
VERI = images(
    "image_train/0001_c001_00016450_0.jpg",
    "image_query/0002_c002_00030600_0.jpg",
    "image_test/0002_c002_00030600_0.jpg",
    "image_test/0002_c016_00030610_1.jpg",
)
VEHICLEID = images("image/0000001.jpg", "image/0000002.jpg", "image/0000003.jpg")
VEHICLEID_LISTS = {
    "train_test_split/train_list.txt": "0000001 17\n0000002 17\n",
    "train_test_split/test_list_800.txt": "0000003 18\n",
    "train_test_split/test_list_13164.txt": "0000003 18\n",
}
FVRID_SYN = images(
    *(f"train_{kind}/00000_c001_000001_0.jpg" for kind in ("clear", "foggy")),
    *(f"query_{kind}/05000_c000_000002_0.jpg" for kind in ("clear", "foggy")),
    *(f"gallery_{kind}/05000_c174_000003_0.jpg" for kind in ("clear", "foggy")),
    f"Depth/train_clear/00000_c001_000001_0/{AUTHORS_NAME}",
)
FVRID_REAL = images("train_foggy/20000_c012_000004_0.jpg", "query_foggy/20156_c000_000005_0.jpg")


def below(folder: str, tree: Tree) -> Tree:
    return {f"{folder}/{path}": content for path, content in tree.items()}


def renamed(tree: Tree, old: str, new: str) -> Tree:
    """The tree with another beginning of its paths, where they begin with `old`."""
    return {new + path.removeprefix(old) if path.startswith(old) else path: tree[path] for path in tree}


FVRID = below("FVRID_syn", FVRID_SYN) | below("FVRID_real", FVRID_REAL)
VARIANTS: dict[str, tuple[str, Tree]] = {  # --src and tree
    "VERI-Wild": ("veri-wild", VERI_WILD | VERI_WILD_LISTS),
    "VERI-Wild without lists": ("veri-wild", VERI_WILD),
    "VERI-Wild nested": ("veri-wild", renamed(VERI_WILD, "images/", "images/images/")),
    "VERI-Wild in ROOT": ("veri-wild", renamed(VERI_WILD, "images/", "")),
    "Vehicle-1M": ("vehicle-1m", VEHICLE_1M | VEHICLE_1M_LISTS),
    "Vehicle-1M without lists": ("vehicle-1m", VEHICLE_1M),
    "Vehicle-1M with digits as VERI-Wild has": ("vehicle-1m", renamed(VEHICLE_1M, "image/0", "image/")),
    "Vehicle-1M image_jpg": ("vehicle-1m", renamed(VEHICLE_1M, "image/", "image_jpg/")),
    "Vehicle-1M nested": ("vehicle-1m", renamed(VEHICLE_1M, "image/", "image/image/")),
    "Vehicle-1M, other folder of lists": (
        "vehicle-1m",
        VEHICLE_1M | renamed(VEHICLE_1M_LISTS, "train-test-split/", "train_test_split/"),
    ),
    "Vehicle-1M in ROOT": (
        "vehicle-1m",
        renamed(VEHICLE_1M, "image/", "") | renamed(VEHICLE_1M_LISTS, "train-test-split/", ""),
    ),
    "Vehicle-1M in ROOT with digits as VERI-Wild has": (
        "vehicle-1m",
        renamed(VEHICLE_1M, "image/0", "")
        | {
            path.rpartition("/")[2]: text.replace("00000", "0000").replace("/0000", "/00000")
            for path, text in VEHICLE_1M_LISTS.items()
        },
    ),
    "VeRi-776": ("veri", VERI),
    "VeRi-776 training only": ("veri", images("image_train/0001_c001_00016450_0.jpg")),
    "VehicleID": ("vehicleid", VEHICLEID | VEHICLEID_LISTS),
    "VehicleID without lists": ("vehicleid", VEHICLEID),
    "VehicleID nested": ("vehicleid", renamed(VEHICLEID, "image/", "image/image/") | VEHICLEID_LISTS),
    "FVRID": ("fvrid", FVRID),
    "FVRID_syn": ("fvrid", FVRID_SYN),
    "FVRID_real": ("fvrid", FVRID_REAL),
    "FVRID_clear": ("fvrid", images("FVRID_clear/train_clear/30000_c001_000001_0.jpg")),
}
