import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fvrid_tools.depth import open_estimator, part_of
from fvrid_tools.depth.files import DepthFiles
from fvrid_tools.images import Uint8Image
from fvrid_tools.pictures import AUTHORS_NAME
from fvrid_tools.records import FvridError, ImageRecord, ImageRefused, OptionError

STEM = "00000_c001_000001_0"
IMAGE: Uint8Image = np.zeros((90, 120, 3), np.uint8)


def record(source_path: str = "images/00001/000002.jpg") -> ImageRecord:
    return ImageRecord("veri-wild/00001/000002", "veri-wild", source_path, "00001", None, None, Path())


def write_depth(path: Path, value: int, size: tuple[int, int] = (120, 90)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def test_planar_is_farther_at_the_top_and_never_nearer_further_up() -> None:
    depth = open_estimator("planar").predict(IMAGE, record())
    assert depth.shape == (90, 120)
    assert depth.dtype == np.float32
    assert (np.diff(depth, axis=0) <= 1e-6).all()
    # 1/z linear in the row: 20 m at the upper edge, 6 m at the lower, half a row in from both
    z_m = 81 ** depth[[0, -1], 0]
    assert 1 / z_m == pytest.approx([1 / 20 + (1 / 6 - 1 / 20) / 180, 1 / 6 - (1 / 6 - 1 / 20) / 180], rel=1e-3)


@pytest.mark.parametrize("shape", [(16, 16), (17, 300), (300, 17)])
def test_planar_takes_any_size(shape: tuple[int, int]) -> None:
    depth = open_estimator("planar").predict(np.zeros((*shape, 3), np.uint8), record())
    assert depth.shape == shape
    assert 0 < depth.min() < depth.max() < 1


def test_constant() -> None:
    estimator = open_estimator("constant:0.3")
    depth = estimator.predict(IMAGE, record())
    assert (depth == np.float32(0.3)).all()
    assert estimator.name == "constant:0.3"


@pytest.mark.parametrize(
    "place",
    [
        f"000002/{AUTHORS_NAME}",  # as the authors' fog script reads
        f"train_clear/train_clear/000002/{AUTHORS_NAME}",  # as their depth script writes
        f"FVRID_depth/000002/{AUTHORS_NAME}",
        f"depth/train/000002/{AUTHORS_NAME}",
        f"images/000002/{AUTHORS_NAME}",
        f"query_foggy/000002/{AUTHORS_NAME}",
        f"00001/000002/{AUTHORS_NAME}",
        "00001/000002.png",
        "000002.png",
    ],
)
def test_files_are_found_in_every_nesting(tmp_path: Path, place: str) -> None:
    write_depth(tmp_path / place, 51)
    depth = open_estimator(f"files:{tmp_path}").predict(IMAGE, record())
    assert depth.shape == (90, 120)
    assert depth == pytest.approx(0.2)  # 51 / 255, far is white


def test_the_authors_keep_nineteen_characters(tmp_path: Path) -> None:
    write_depth(tmp_path / f"00012_c003_000045_0/{AUTHORS_NAME}", 255)
    depth = open_estimator(f"files:{tmp_path}").predict(IMAGE, record("00012_c003_000045_0_extra.jpg"))
    assert depth == pytest.approx(1)


@pytest.mark.parametrize("place", ["IMG_20210504_121314.png", f"IMG_20210504_121314/{AUTHORS_NAME}"])
def test_of_other_names_nothing_is_cut(tmp_path: Path, place: str) -> None:
    """They have 19 characters by chance, and the next image of that second goes on with _1."""
    write_depth(tmp_path / place, 255)
    with pytest.raises(ImageRefused, match="no depth picture"):
        open_estimator(f"files:{tmp_path}").predict(IMAGE, record("IMG_20210504_121314_1.jpg"))


def test_linked_folders_are_followed_as_those_of_images_are(tmp_path: Path) -> None:
    write_depth(tmp_path / "elsewhere/000002.png", 51)
    (tmp_path / "depths").mkdir()
    (tmp_path / "depths/00001").symlink_to(tmp_path / "elsewhere")
    assert open_estimator(f"files:{tmp_path / 'depths'}").predict(IMAGE, record()) == pytest.approx(0.2)


def test_what_a_task_is_sent_has_its_own_pictures_alone(tmp_path: Path) -> None:
    for name in ("000002", "000003", f"{STEM}/predict_depth_gray"):
        write_depth(tmp_path / f"{name}.png", 9)
    estimator = DepthFiles.index(tmp_path)
    sent = part_of(estimator, [record()])
    assert isinstance(sent, DepthFiles)
    assert list(sent.paths) == ["000002"]
    assert sent.find(record()) == estimator.find(record())
    longer = record(f"train_clear/{STEM}_further.jpg")
    sent = part_of(estimator, [longer])
    assert isinstance(sent, DepthFiles)
    assert sent.find(longer) == tmp_path / STEM / AUTHORS_NAME
    assert part_of(open_estimator("planar"), [record()]) == open_estimator("planar")


def test_other_pictures_are_another_version(tmp_path: Path) -> None:
    write_depth(tmp_path / "a.png", 9)
    before = DepthFiles.index(tmp_path).versions
    assert DepthFiles.index(tmp_path).versions == before
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes() + b"x")
    (tmp_path / "b.png").symlink_to("nowhere")
    assert DepthFiles.index(tmp_path).versions != before


def test_its_name_is_what_a_shell_takes(tmp_path: Path) -> None:
    write_depth(tmp_path / "my depth/000002.png", 51)
    name = open_estimator(f"files:{tmp_path / 'my depth'}", polarity="far-white").name
    assert shlex.split(name) == [f"files:{tmp_path / 'my depth'}", "--polarity", "far-white"]


def test_of_equal_names_the_one_of_the_vehicle_is_taken(tmp_path: Path) -> None:
    write_depth(tmp_path / "00001/000002.png", 0)
    write_depth(tmp_path / "00007/000002.png", 255)
    estimator = open_estimator(f"files:{tmp_path}")
    assert estimator.predict(IMAGE, record()).max() == 0
    assert estimator.predict(IMAGE, record("00007/000002.jpg")).min() == 1


@pytest.mark.parametrize("place", ["00007/000002.png", f"00007/000002/{AUTHORS_NAME}"])
def test_another_vehicles_depth_is_never_taken(tmp_path: Path, place: str) -> None:
    write_depth(tmp_path / place, 255)
    with pytest.raises(ImageRefused, match=r"no depth picture for \S*00001/000002\.jpg"):
        open_estimator(f"files:{tmp_path}").predict(IMAGE, record())


def test_folders_above_the_vehicle_are_heeded_where_they_tell_images_apart(tmp_path: Path) -> None:
    write_depth(tmp_path / "train/00001/000002.png", 51)
    write_depth(tmp_path / "test/00001/000002.png", 255)

    def predict(path: str) -> float:
        return float(open_estimator(f"files:{tmp_path}").predict(IMAGE, record(path)).max())

    assert predict("train/00001/000002.jpg") == pytest.approx(0.2)
    assert predict("images/test/00001/000002.jpg") == 1
    with pytest.raises(ImageRefused, match="several depth pictures for 000002"):
        predict("00001/000002.jpg")
    (tmp_path / "test/00001/000002.png").unlink()
    with pytest.raises(ImageRefused, match=r"no depth picture for \S*00001/000002\.jpg"):
        predict("test/00001/000002.jpg")
    assert predict("00001/000002.jpg") == pytest.approx(0.2)
    (tmp_path / "train").rename(tmp_path / "depth")
    assert predict("images/00001/000002.jpg") == pytest.approx(0.2)


def test_both_nestings_side_by_side_are_one_picture_and_two_beside_each_other_are_refused(tmp_path: Path) -> None:
    write_depth(tmp_path / f"train_clear/000002/{AUTHORS_NAME}", 51)
    write_depth(tmp_path / f"train_clear/train_clear/000002/{AUTHORS_NAME}", 51)
    assert open_estimator(f"files:{tmp_path}").predict(IMAGE, record()) == pytest.approx(0.2)
    write_depth(tmp_path / f"query_clear/000002/{AUTHORS_NAME}", 255)
    with pytest.raises(ImageRefused, match="several depth pictures for 000002"):
        open_estimator(f"files:{tmp_path}").predict(IMAGE, record())


def test_palette_and_one_bit_pictures_are_read_by_their_colours(tmp_path: Path) -> None:
    Image.new("1", (120, 90), 1).save(tmp_path / "000002.PNG")
    depth = open_estimator(f"files:{tmp_path}").predict(IMAGE, record())
    assert depth.min() == 1
    Image.new("L", (120, 90), 51).convert("P").save(tmp_path / "000002.PNG")
    depth = open_estimator(f"files:{tmp_path}").predict(IMAGE, record())
    assert depth == pytest.approx(0.2)


def test_another_size_is_resized(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (45, 1))
    Image.fromarray(ramp).save(tmp_path / "000002.png")
    depth = open_estimator(f"files:{tmp_path}").predict(IMAGE, record())
    assert depth.shape == (90, 120)
    assert depth.min() >= 0
    assert depth.max() <= 1
    assert np.abs(depth[40] - np.linspace(0, 1, 120)).max() < 0.02


def test_a_missing_or_broken_picture_refuses_the_image(tmp_path: Path) -> None:
    write_depth(tmp_path / "999999.png", 1)
    (tmp_path / "000003.png").write_bytes(b"no picture")
    estimator = open_estimator(f"files:{tmp_path}")
    with pytest.raises(ImageRefused, match=r"no depth picture for \S*00001/000002\.jpg"):
        estimator.predict(IMAGE, record())
    with pytest.raises(ImageRefused, match="unreadable"):
        estimator.predict(IMAGE, record("000003.jpg"))


@pytest.mark.parametrize("spec", ["nothing", "constant:2", "constant:x", "files:", "planar:1"])
def test_bad_specifications(spec: str) -> None:
    with pytest.raises(OptionError, match="--depth"):
        open_estimator(spec)


def test_a_folder_without_depth_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FvridError, match="--depth files"):
            open_estimator(f"files:{folder}")
