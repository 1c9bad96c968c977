"""fvrid depth: pictures, contact sheet, refusals; and what build-syn makes of the estimator's options."""

import functools
import json

import numpy as np
import pytest
from click.testing import CliRunner
from mini_layouts import jpeg, picture
from PIL import Image
from safetensors import safe_open

from fvrid_tools import build, estimate, open_dataset
from fvrid_tools.cli import cli
from fvrid_tools.depth import open_estimator
from fvrid_tools.depth.accuracy import correlation, measure
from fvrid_tools.depth.dcnf import training
from fvrid_tools.depth.planar import planar_depth
from fvrid_tools.records import FvridError, ImageRecord
from fvrid_tools.sources import read_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    (root / "cars").mkdir()
    for i in range(3):
        (root / "cars" / f"{i}.jpg").write_bytes(jpeg(picture(i, 0)))
    (root / "top.jpg").write_bytes(jpeg(picture(4, 0)))
    return root


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_depth_pictures_lie_where_files_finds_them(folder, tmp_path):
    result = run("depth", folder, folder / "top.jpg", "--out", tmp_path / "d", "--depth", "planar")
    assert result.exit_code == 1  # top.jpg is named twice
    assert "would have depth pictures of one name" in result.output
    result = run("depth", "--depth", "planar", folder, "--out", tmp_path / "d", "--workers", 1)
    assert result.exit_code == 0, result.output
    assert "depth of 4 images" in result.output
    for name in ("cars/0", "top"):
        with Image.open(folder / f"{name}.jpg") as image:
            width, height = image.size
        sixteen = np.asarray(Image.open(tmp_path / "d" / f"{name}.png"))
        eight = np.asarray(Image.open(tmp_path / "d" / name / "predict_depth_gray.png"))
        assert sixteen.dtype == np.uint16
        assert eight.dtype == np.uint8
        expected = planar_depth(height, width)
        assert np.abs(sixteen / 65535 - expected).max() <= 0.5 / 65535 + 1e-7
        assert np.abs(eight / 255 - expected).max() <= 0.5 / 255 + 1e-7
        assert eight[0].mean() > eight[-1].mean()  # far is white
    record = ImageRecord("x", "folder", "cars/0.jpg", "cars", None, None, folder)
    image = np.zeros((*np.asarray(Image.open(folder / "cars/0.jpg")).shape[:2], 3), np.uint8)
    again = open_estimator(f"files:{tmp_path / 'd'}").predict(image, record)
    assert again == pytest.approx(planar_depth(*image.shape[:2]), abs=1e-5)
    page = (tmp_path / "d/contact-sheet.html").read_text()
    assert page.count("<figure>") == 4 + 2  # and the histograms
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_its_own_pictures_are_not_taken_for_images(folder, tmp_path):
    (tmp_path / "a.jpg").write_bytes((folder / "top.jpg").read_bytes())
    for _ in range(2):
        result = run("depth", tmp_path, "--out", tmp_path / "d", "--depth", "constant")
        assert "depth of 1 images" in result.output


def test_an_image_is_not_overwritten_by_its_depth(folder, tmp_path):
    picture(0, 0).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    result = run("depth", tmp_path / "a.png", "--out", tmp_path / "up" / "..", "--depth", "planar")
    assert result.exit_code == 1
    assert "a.png: an image would be overwritten by its depth; name another --out." in " ".join(result.output.split())
    assert (tmp_path / "a.png").read_bytes() == content


def test_names_that_could_not_be_written_are_said_first(folder, tmp_path):
    content = (folder / "top.jpg").read_bytes()
    for name in ("a.jpg", "a.png.jpg", "caf\udce9.jpg"):
        (tmp_path / name).write_bytes(content)
    result = run("depth", tmp_path / "caf\udce9.jpg", "--out", tmp_path / "d", "--depth", "planar")
    assert result.exit_code == 1
    assert "is not UTF-8; rename it" in result.output
    result = run("depth", tmp_path / "a.png.jpg", tmp_path / "a.jpg", "--out", tmp_path / "d", "--depth", "planar")
    assert result.exit_code == 1
    assert "would have depth pictures of one name" in result.output
    assert not (tmp_path / "d").exists()


def test_refused_images_are_named_and_the_rest_is_done(folder, tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (15, 40)).save(tmp_path / "in/tiny.png")
    (tmp_path / "in/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "in/good.jpg").write_bytes((folder / "top.jpg").read_bytes())
    result = run("depth", tmp_path / "in", "--out", tmp_path / "d", "--depth", "dcnf", "--workers", 1)
    assert result.exit_code == 1
    assert "tiny.png: too small: 15 x 40 pixels, a side needs 16" in result.output
    assert "broken.jpg: " in result.output
    assert "depth of 1 images" in result.output
    assert (tmp_path / "d/good.png").exists()
    result = run("depth", tmp_path / "missing.jpg", "--out", tmp_path / "d")
    assert result.exit_code == 1
    assert "missing.jpg: no such file or folder" in result.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--depth", "planar", "--refine", "levin"), "planar has no superpixels"),
        (("--depth", "dcnf", "--polarity", "near-white"), "--polarity near-white works only with --depth files:DIR"),
        (("--depth", "dcnf:nowhere.safetensors"), "nowhere.safetensors: no such weights file"),
        (("--depth", "dncf"), "--depth dncf: not known; take one of dcnf,"),
    ],
)
def test_options_that_do_not_fit(folder, tmp_path, arguments, sentence):
    result = run("depth", folder, "--out", tmp_path / "d", *arguments)
    assert result.exit_code in (1, 2)
    assert sentence in " ".join(result.output.split())
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_depth_is_the_same_whatever_the_workers(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_TASK", 2)  # more tasks than workers
    for workers in (1, 2):
        assert run("depth", folder, "--out", tmp_path / str(workers), "--workers", workers).exit_code == 0
    for path in (tmp_path / "1").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()


# --- pictures of files:DIR


def white_below(folder, count=4, size=(120, 90)):
    ramp = np.linspace(0, 255, size[1]).astype(np.uint8)[:, None].repeat(size[0], 1)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(ramp).save(folder / f"{i:06d}.png")


def record(name):
    return ImageRecord(f"folder/{name}", "folder", f"{name}.jpg", "1", None, None, None)


def test_where_white_seems_near_it_is_said(tmp_path):
    white_below(tmp_path / "d")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (120, 90)).save(tmp_path / "in/000000.jpg")
    for polarity, said in ((), True), (("--polarity", "far-white"), False):
        spec = ("--depth", f"files:{tmp_path / 'd'}", *polarity)
        result = run("depth", tmp_path / "in", "--out", tmp_path / f"o{said}", *spec)
        assert result.exit_code == 0, result.output
        assert ("as if it were near: stop, and say --polarity near-white" in result.stderr) == said
    assert (tmp_path / "oTrue/000000.png").read_bytes() == (tmp_path / "oFalse/000000.png").read_bytes()
    image = np.zeros((90, 120, 3), np.uint8)
    near = open_estimator(f"files:{tmp_path / 'd'}", polarity="near-white").predict(image, record("000001"))
    far = open_estimator(f"files:{tmp_path / 'd'}", polarity="far-white").predict(image, record("000001"))
    assert near[0].mean() == pytest.approx(1)
    assert near == pytest.approx(1 - far)


def test_a_depth_picture_of_another_shape_is_refused(tmp_path):
    white_below(tmp_path / "d")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (60, 45)).save(tmp_path / "in/000000.png")  # half as large
    Image.new("RGB", (60, 60)).save(tmp_path / "in/000001.png")
    spec = ("--depth", f"files:{tmp_path / 'd'}", "--polarity", "near-white")
    result = run("depth", tmp_path / "in", "--out", tmp_path / "o", *spec)
    assert result.exit_code == 1
    assert "000001.png has 120 x 90 pixels, the image 60 x 60" in result.output
    assert "depth of 1 images" in result.output


# --- in build-syn


def test_dcnf_is_the_default_and_the_dataset_says_what_made_its_depth(laid_out, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "IMAGES_PER_SHARD", 20)
    source = ("--src", "veri-wild", "--root", laid_out / "clear")
    for workers in (1, 2):
        result = run("build-syn", *source, "--out", tmp_path / str(workers), "--workers", workers)
        assert result.exit_code == 0, result.output
    info = json.loads((tmp_path / "1/dataset.json").read_text())
    assert info["depth"] == "dcnf"
    assert len(info["depth_versions"]["dcnf.safetensors"]) == 64
    assert {"torch", "scikit-image"} < set(info["depth_versions"])
    other = json.loads((tmp_path / "2/dataset.json").read_text())
    assert [shard["sha256"] for shard in info["shards"]] == [shard["sha256"] for shard in other["shards"]]
    d = np.array([np.median(sample.depth) for sample in open_dataset(tmp_path / "1")])
    assert 0.3 < np.median(d) < 0.7


def test_refinement_is_part_of_the_command(laid_out, tmp_path):
    source = ("--src", "veri-wild", "--root", laid_out / "clear")
    assert run("build-syn", *source, "--out", tmp_path / "d", "--refine", "none").exit_code == 0
    assert "--depth dcnf --refine none" in json.loads((tmp_path / "d/dataset.json").read_text())["command"]


# --- the weights of the package, and training


def test_shipped_depth_follows_vehicles_nobody_trained_on():
    """FVRID-Mini's test vehicles have exact depth; a sample, benchmarks/depth_quality.py has them all."""
    records = [r for r in read_source("mini").records if r.source_split == "test"][::20]
    scores = measure(open_estimator("dcnf"), records)
    assert scores["correlation"] > 0.95
    assert scores["error"] < 0.1


def test_a_scene_that_cannot_be_read_is_a_sentence(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(jpeg(picture(0, 0))[:999])
    record = ImageRecord("folder/cut", "folder", "cut.jpg", "", None, None, tmp_path)
    for use in (training.Scene.of, lambda record: measure(open_estimator("source"), [record])):
        with pytest.raises(FvridError, match=r"cut\.jpg: unreadable.*mend or remove it"):
            use(record)


def test_accuracy_of_the_truth_is_perfect():
    records = read_source("mini").records[:3]
    scores = measure(open_estimator("source"), records)
    assert scores == pytest.approx(
        {"correlation": 1, "correlation_p5": 1, "error": 0, "abs_rel": 0, "within_25": 1}, abs=1e-5
    )
    a = np.random.default_rng(0).random((5, 6)).astype(np.float32)
    assert correlation(a, 2 * a + 1) == pytest.approx(1, abs=1e-5)
    assert correlation(a, -a) == pytest.approx(-1, abs=1e-5)
    assert correlation(a, np.ones_like(a)) == 0


@pytest.mark.slow
def test_training_from_a_render(tmp_path, monkeypatch):
    pytest.importorskip("mitsuba")
    scenes, weights = tmp_path / "scenes", tmp_path / "new/folder/w.safetensors"
    small = ("--vehicles", 4, "--views", 2, "--size", 32, "--samples", 4, "--workers", 1)
    assert run("render", "--wide", "--out", scenes, *small).exit_code == 0
    result = run("depth", "train", "--scenes", scenes, "--out", weights)
    assert result.exit_code == 1
    assert "6 scenes to train on are fewer than a batch of 32; render more." in result.output

    quick = functools.partial(training.DepthRecipe, batch=2, side=32)
    monkeypatch.setattr(training, "DepthRecipe", quick)
    for _ in range(2):
        result = run("depth", "train", "--scenes", scenes, "--out", weights, "--epochs", 1)
        assert result.exit_code == 0, result.output
        assert "held out: correlation" in result.output
    with safe_open(weights, "pt") as file:
        told = {name: json.loads(value) for name, value in file.metadata().items()}
    assert told["recipe"]["dense_epochs"] == 1
    assert told["scenes"][0]["wide"] is True
    assert weights.stat().st_size < 4_000_000
    assert open_estimator(f"dcnf:{weights}").name == f"dcnf:{weights}"
