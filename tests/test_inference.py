"""Trained weights on ordinary images: sjdl embed, search and defog, and the functions below them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from scipy.spatial.distance import cdist

import fvrid_tools
from fvrid_tools import images
from fvrid_tools.records import FvridError
from sjdl_model.checkpoint import save_weights
from sjdl_model.cli import cli
from sjdl_model.config import ConfigError, DataError
from sjdl_model.data import ImageSet, foggy, image_batches
from sjdl_model.evaluate import embed
from sjdl_model.inference import (
    Embeddings,
    _found,
    check_picture,
    defog_image,
    embed_images,
    find_images,
    load_trained,
    search,
)
from sjdl_model.network import SJDL, Architecture

SIZE = 64
ARCHITECTURE = Architecture(3, 2, "resnet18", 2, 2, SIZE)


def random_network(seed: int, architecture: Architecture = ARCHITECTURE) -> SJDL:
    """Untrained, but with batch norms that do something."""
    torch.manual_seed(seed)
    net = architecture.build().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for name, value in module.named_buffers():
                if name.endswith("mean"):
                    value.uniform_(-0.5, 0.5)
                elif name.endswith("var"):
                    value.uniform_(0.5, 2)
    return net


@pytest.fixture(scope="module")
def net() -> SJDL:
    return random_network(0)


@pytest.fixture(scope="module")
def run(net: SJDL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with the weights of `net`."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    folder.mkdir()
    save_weights(folder, net, ARCHITECTURE, {})
    return folder


@pytest.fixture(scope="module")
def folder(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of two vehicles in fog. Not to be changed."""
    root = tmp_path_factory.mktemp("images") / "photos"
    for vehicle in ("01000", "01001"):
        shutil.copytree(laid_out / "foggy" / vehicle, root / vehicle)
    return root


def sjdl(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in (*arguments, "--workers", 0)])


def test_a_defogger_that_collapsed_is_named_before_its_pictures(net: SJDL, folder: Path, tmp_path: Path) -> None:
    for verdict in ("collapsed: the output no longer shows the image (PSNR 9)", "defogs (PSNR 27)"):
        save_weights(tmp_path, net, ARCHITECTURE, {"verdict": verdict})
        done = sjdl("defog", "--weights", tmp_path, folder, "--out", tmp_path / "out")
        assert done.exit_code == 0, done.output
        assert ("its training said of the defogging: collapsed" in done.output) == verdict.startswith("collapsed")


def spoil(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the folder with a file that is no image in it, and that file."""
    copy = Path(shutil.copytree(folder, tmp_path / "spoilt"))
    broken = copy / "01000/broken.jpg"
    content = (folder / "01000/c1_0.jpg").read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    return copy, broken


# --- files


def test_images_are_found_sorted_each_once(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/10.png", "a/x.webp", ".hidden/no.jpg", "b/.no.jpg", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in/b/loop").symlink_to(tmp_path / "in")
    names = ["a/x.webp", "b/10.png", "b/2.JPG"]
    expected = [tmp_path / "in" / name for name in names]
    assert find_images([tmp_path / "in"]) == expected
    assert find_images([expected[2], tmp_path / "in", expected[0]]) == expected
    assert find_images([tmp_path / "in/notes.txt"]) == [tmp_path / "in/notes.txt"]  # as it is named
    for missing in (tmp_path / "nothing.jpg", tmp_path / "in/.hidden/empty"):
        with pytest.raises(DataError, match=r"no such file or folder; name images"):
            find_images([tmp_path / "in", missing])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no image in this folder"):
        find_images([tmp_path / "in", tmp_path / "empty"])
    (tmp_path / "empty/a\nb.jpg").touch()
    with pytest.raises(FvridError, match=r"a\\nb\.jpg' has control characters"):
        find_images([tmp_path / "empty"])


# --- embedding


def test_embeddings_of_files_are_those_that_eval_ranks_by(net: SJDL, built: Path, tmp_path: Path) -> None:
    data = fvrid_tools.open_dataset(built)[:10]
    paths = [tmp_path / f"{i}.jpg" for i in range(len(data))]
    for path, sample in zip(paths, data, strict=True):
        path.write_bytes(sample.encoded("foggy"))
    expected = {}
    for defog in (False, True):
        for before_bn in (False, True):
            batches = image_batches(ImageSet(data, SIZE, foggy), 4, 0, torch.device("cpu"))
            how = net.defog if defog else None
            expected[defog, before_bn] = embed(net, batches, len(data), defog=how, before_bn=before_bn)
            found = embed_images(net, paths, SIZE, defog=defog, before_bn=before_bn, batch=4)
            assert found.dtype == np.float32
            assert np.array_equal(found, expected[defog, before_bn])
    assert len({values.tobytes() for values in expected.values()}) == 4  # or the options do nothing


def test_embed_writes_vectors_and_paths(net: SJDL, run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/embeddings.npz"
    arguments = ("--weights", run, folder / "01001", folder / "01000/c2_1.jpg", "-o", out, "--batch", 3)
    result = CliRunner().invoke(cli, ["embed", *map(str, arguments), "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 5 embeddings of 512 dimensions\n"
    with np.load(out, allow_pickle=False) as file:
        embeddings, names = file["embeddings"], file["images"].tolist()
    assert names == [str(folder / "01000/c2_1.jpg"), *(str(folder / f"01001/c{i + 1}_{i}.jpg") for i in range(4))]
    assert embeddings.shape == (5, 512)
    assert embeddings.dtype == np.float32
    for name, row in zip(names, embeddings, strict=True):  # one by one, with another decoder and resize
        image = Image.open(name).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        with torch.inference_mode():
            alone = net.embed(torch.from_numpy(np.asarray(image) / np.float32(255)).permute(2, 0, 1)[None])[0]
        assert np.linalg.norm(row - alone.numpy()) < 0.02 * np.linalg.norm(row)
    assert [path.name for path in out.parent.iterdir()] == ["embeddings.npz"]


def test_options_of_embed_reach_the_network(net: SJDL, run: Path, folder: Path, tmp_path: Path) -> None:
    options = ("--feature", "before-bn", "--images", "defogged")
    assert sjdl("embed", "--weights", run, folder, "-o", tmp_path / "e.npz", *options).exit_code == 0
    expected = embed_images(net, find_images([folder]), SIZE, defog=True, before_bn=True)
    assert np.array_equal(np.load(tmp_path / "e.npz")["embeddings"], expected)


def test_statistics_are_those_of_the_domain_that_is_named(folder: Path, tmp_path: Path) -> None:
    architecture = ARCHITECTURE._replace(domain_statistics=True)
    net = random_network(0, architecture)
    net.neck.real_mean.fill_(1.0)
    (tmp_path / "run").mkdir()
    save_weights(tmp_path / "run", net, architecture, {})
    found = {}
    for domain in ("synthetic", "real"):
        out = tmp_path / f"{domain}.npz"
        assert sjdl("embed", "--weights", tmp_path / "run", folder, "-o", out, "--domain", domain).exit_code == 0
        found[domain] = Embeddings.load(out)
        net.use_statistics_of(domain)
        assert np.array_equal(found[domain].embeddings, embed_images(net, find_images([folder]), SIZE))
        assert found[domain].made_by["domain"] == domain
    assert not np.allclose(found["synthetic"].embeddings, found["real"].embeddings)
    image = next(folder.rglob("*.jpg"))
    other = sjdl("search", "--weights", tmp_path / "run", "--gallery", tmp_path / "synthetic.npz", image)
    assert other.exit_code == 1
    assert "domain" in other.stderr


def test_an_image_that_cannot_be_used_is_named_and_the_rest_is_embedded(
    net: SJDL, run: Path, folder: Path, tmp_path: Path
) -> None:
    copy, broken = spoil(folder, tmp_path)
    result = sjdl("embed", "--weights", run, copy, "-o", tmp_path / "e.npz", "--batch", 2)
    assert result.exit_code == 1
    assert f"left out: {broken}: unreadable: truncated" in result.stderr
    assert "1 of 9 images could not be used" in result.stderr
    found = Embeddings.load(tmp_path / "e.npz")
    assert found.images == [str(path) for path in find_images([copy]) if path != broken]
    alone = embed_images(net, [Path(name) for name in found.images], SIZE)
    assert found.embeddings == pytest.approx(alone, abs=1e-4)  # each row is its own image's
    with pytest.raises(DataError, match=r"broken\.jpg: unreadable: truncated"):
        embed_images(net, [broken], SIZE)


def test_where_no_image_can_be_used_nothing_is_written(run: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    result = sjdl("embed", "--weights", run, tmp_path / "notes.txt", "-o", tmp_path / "e.npz")
    assert result.exit_code == 1
    assert "notes.txt: not an image" in result.stderr
    assert "none of the 1 images could be used" in result.stderr
    assert not (tmp_path / "e.npz").exists()


def test_broken_weights_are_said(net: SJDL, folder: Path, tmp_path: Path) -> None:
    broken = random_network(0)
    broken.neck.weight.data[3] = torch.nan
    with pytest.raises(DataError, match=r"c1_0\.jpg: the embedding is not finite"):
        embed_images(broken, find_images([folder]), SIZE)
    broken.firm.enhance.out.bias.data[0] = torch.nan
    with pytest.raises(DataError, match="defogged image is not finite"):
        defog_image(broken, np.zeros((40, 40, 3), np.uint8))


# --- searching


def test_the_nearest_come_first_and_equal_ones_in_order() -> None:
    gallery = np.array([[6, 8], [0, 0], [3, 4], [0, 0], [-3, -4]], np.float32)
    (hits,) = search([[0.0, 0.0]], gallery, top=4)
    assert [tuple(hit) for hit in hits] == [(1, 0.0), (3, 0.0), (2, 5.0), (4, 5.0)]
    (hits,) = search([[0.0, 0.0]], gallery, top=9)
    assert [hit.position for hit in hits] == [1, 3, 2, 4, 0]
    paths = [Path(name) for name in "abcba"]
    first, second = search([[0.0, 0.0], [6.0, 8.0]], gallery, 2, [Path("b"), Path("x/../a")], paths)
    assert [tuple(hit) for hit in first] == [(2, 5.0), (4, 5.0)]
    assert [hit.position for hit in second] == [2, 1]
    with pytest.raises(DataError, match="same dimensions"):
        search([[0.0, 0.0, 1.0]], gallery)
    with pytest.raises(DataError, match="not finite"):
        search([[0.0, np.nan]], gallery)


@pytest.mark.parametrize("offset", [0, 100])
def test_search_is_that_of_the_whole_matrix(offset: int) -> None:
    """Also where rounding decides: far from the origin, and with every image there twice."""
    draws = np.random.default_rng(0)
    once = draws.normal(offset, 1, (1500, 20)).astype(np.float32)
    gallery, query = np.concatenate([once, once]), draws.normal(offset, 1, (60, 20)).astype(np.float32)
    distances = cdist(query.astype(np.float64), gallery.astype(np.float64))
    order = np.argsort(distances, axis=1, kind="stable")[:, :7]
    found = search(query, gallery, 7)
    assert [[hit.position for hit in hits] for hits in found] == order.tolist()
    measured = np.array([[hit.distance for hit in hits] for hits in found])
    assert measured == pytest.approx(np.take_along_axis(distances, order, axis=1), rel=1e-9)


def test_search_ranks_a_folder_and_what_embed_made_of_it_alike(run: Path, folder: Path, tmp_path: Path) -> None:
    assert sjdl("embed", "--weights", run, folder, "-o", tmp_path / "e.npz").exit_code == 0
    query = folder / "01000/c2_1.jpg"
    answers = []
    for gallery in (folder, tmp_path / "e.npz"):
        result = sjdl("search", "--weights", run, "--gallery", gallery, query, "--top", 3, "--json")
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout))
    for (one,) in answers:
        assert one["query"] == str(query)
        assert [hit["rank"] for hit in one["results"]] == [1, 2, 3]
        with np.load(tmp_path / "e.npz") as file:
            names, rows = file["images"].tolist(), file["embeddings"].astype(np.float64)
        own = names.index(str(query))
        distances = {name: np.linalg.norm(row - rows[own]) for name, row in zip(names, rows, strict=True)}
        del distances[str(query)]  # it does not find itself
        expected = sorted(distances, key=lambda name: distances[name])[:3]
        assert [hit["image"] for hit in one["results"]] == expected
        found = [hit["distance"] for hit in one["results"]]
        assert found == pytest.approx([distances[name] for name in expected], rel=1e-3)
    shown = sjdl("search", "--weights", run, "--gallery", tmp_path / "e.npz", query, "--top", 2).stdout
    first, second = answers[1][0]["results"][:2]
    assert [line.split() for line in shown.splitlines()] == [
        [str(query)],
        ["1", f"{first['distance']:.4f}", first["image"]],
        ["2", f"{second['distance']:.4f}", second["image"]],
    ]


def test_a_gallery_file_knows_where_its_images_lie(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert sjdl("embed", "--weights", run, "01000", "-o", tmp_path / "e.npz").exit_code == 0
    monkeypatch.chdir(folder / "01000")
    result = sjdl("search", "--weights", run, "--gallery", tmp_path / "e.npz", "c2_1.jpg", "--json")
    images = {hit["image"] for hit in json.loads(result.stdout)[0]["results"]}
    assert images == {f"01000/c{i + 1}_{i}.jpg" for i in (0, 2, 3)}


def test_the_picture_has_a_row_a_query(run: Path, folder: Path, tmp_path: Path) -> None:
    queries = [folder / "01000/c1_0.jpg", folder / "01001/c1_0.jpg"]
    options = ("--top", 2, "--json", "--picture", tmp_path / "found.png")
    result = sjdl("search", "--weights", run, "--gallery", folder, *queries, *options)
    assert result.exit_code == 0, result.output
    picture = np.asarray(Image.open(tmp_path / "found.png"))
    assert picture.shape == (128 + 6 + 128, 128 + 30 + 128 + 6 + 128, 3)
    for i, answer in enumerate(json.loads(result.stdout)):
        for left, name in zip(
            (0, 158, 292), (answer["query"], *(hit["image"] for hit in answer["results"])), strict=True
        ):
            tile = images.stretch(images.decode(Path(name).read_bytes()), 128)
            assert np.array_equal(picture[134 * i : 134 * i + 128, left : left + 128], tile)
    assert (picture[:, 128:158] == 255).all()


def test_a_picture_beyond_what_a_file_can_hold_is_refused() -> None:
    check_picture(Path("found.jpg"), 300, 11)
    for rows, columns in ((600, 2), (1, 600), (400, 400)):
        with pytest.raises(ConfigError, match="too many for a picture"):
            check_picture(Path("found.jpg"), rows, columns)


def test_search_leaves_out_what_cannot_be_used(run: Path, folder: Path, tmp_path: Path) -> None:
    copy, broken = spoil(folder, tmp_path)
    query = folder / "01000/c1_0.jpg"
    result = sjdl("search", "--weights", run, "--gallery", copy, query, broken, "--json", "--top", 20)
    assert result.exit_code == 1
    assert result.stderr.count(f"left out: {broken}") == 1
    (answer,) = json.loads(result.stdout)
    assert answer["query"] == str(query)
    assert {hit["image"] for hit in answer["results"]} == {str(path) for path in find_images([copy])} - {str(broken)}
    assert answer["results"][0]["image"] == str(copy / "01000/c1_0.jpg")  # another file with the same image
    assert answer["results"][0]["distance"] == pytest.approx(0, abs=1e-3)


def other(**arrays: object) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)  # type: ignore[arg-type]


NAMES, ROWS = np.array(["a.jpg", "b.jpg"]), np.zeros((2, 512), np.float32)
WITHOUT_A_NUMBER = np.where(np.arange(2)[:, None] == 1, np.nan, ROWS)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text("text"), "not embeddings of sjdl embed"),
        (lambda path: path.write_bytes(b""), "not embeddings of sjdl embed"),
        (lambda path: path.write_bytes(ROWS.tobytes()), "not embeddings of sjdl embed"),
        (other(vectors=ROWS, images=NAMES), "not embeddings of sjdl embed"),
        (other(embeddings=ROWS, images=NAMES[:1]), "not embeddings of sjdl embed"),
        (other(embeddings=ROWS[0], images=NAMES), "not embeddings of sjdl embed"),
        (other(embeddings=ROWS[:0], images=NAMES[:0]), "not embeddings of sjdl embed"),
        (other(embeddings=ROWS, images=NAMES.astype(object)), "not embeddings of sjdl embed"),
        (other(embeddings=ROWS[:, :7], images=NAMES), "7 dimensions, those of these weights 512"),
        (other(embeddings=WITHOUT_A_NUMBER, images=NAMES), "the embedding of b.jpg is not finite"),
        (other(embeddings=ROWS, images=NAMES, made_by='{"feature": "before-bn"}'), "feature before-bn, not after-bn"),
        (other(embeddings=ROWS, images=NAMES, made_by='{"weights_sha256": "abc"}'), "weights_sha256 abc, not "),
    ],
)
def test_a_gallery_that_cannot_be_compared_is_said(
    run: Path, folder: Path, tmp_path: Path, write: Callable[[Path], None], words: str
) -> None:
    write(tmp_path / "gallery.npz")
    result = sjdl("search", "--weights", run, "--gallery", tmp_path / "gallery.npz", folder / "01000/c1_0.jpg")
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_gallery_is_never_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "owned",)

    np.savez(tmp_path / "gallery.npz", embeddings=ROWS, images=np.array([Evil(), Evil()], object))
    with pytest.raises(DataError, match="not embeddings of sjdl embed"):
        Embeddings.load(tmp_path / "gallery.npz")
    assert not (tmp_path / "owned").exists()


# --- defogging


class Copier(torch.nn.Module):
    """Stands for a network: its defogging changes nothing, and it keeps the shapes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shapes: list[tuple[int, ...]] = []

    def defog(self, foggy: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(foggy.shape))
        return foggy


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [(64, 96, (64, 96)), (65, 33, (96, 64)), (1, 1, (32, 32)), (5, 200, (32, 224)), (300, 290, (320, 320))],
)
def test_an_image_comes_back_at_its_own_size(height: int, width: int, seen: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    copier = Copier()
    assert np.array_equal(defog_image(copier, image), image)  # type: ignore[arg-type]
    assert copier.shapes == [(1, 3, *seen)]


def test_a_large_image_is_shrunk_for_the_network_only() -> None:
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    image = np.stack([np.tile(ramp, (200, 1)), np.tile(ramp[::-1], (200, 1)), np.full((200, 400), 7, np.uint8)], axis=2)
    copier = Copier()
    found = defog_image(copier, image, max_side=128)  # type: ignore[arg-type]
    assert copier.shapes == [(1, 3, 64, 128)]
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - image).max() <= 3


def test_defogging_is_the_networks(net: SJDL) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    mirrored = np.concatenate([image, image[:15:-1]])  # 24 more rows
    with torch.inference_mode():
        whole = net.defog(torch.from_numpy(mirrored / np.float32(255)).permute(2, 0, 1)[None])
    expected = whole[0].permute(1, 2, 0).numpy()[:40] * 255
    assert np.abs(defog_image(net, image) - expected).max() <= 0.51  # rounded to nearest


def test_defog_keeps_folders_sizes_and_inputs(net: SJDL, run: Path, folder: Path, tmp_path: Path) -> None:
    inside = Path(shutil.copytree(folder, tmp_path / "photos"))
    before = {path: path.read_bytes() for path in find_images([inside])}
    for _ in range(2):  # what was written is no input the second time
        result = sjdl("defog", "--weights", run, inside, "--out", inside / "clear")
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{inside / 'clear'}: 8 images defogged\n"
    written = {path.relative_to(inside / "clear") for path in (inside / "clear").rglob("*.*")}
    assert written == {path.relative_to(inside).with_suffix(".png") for path in before}
    for path, content in before.items():
        assert path.read_bytes() == content
        image = np.asarray(Image.open((inside / "clear" / path.relative_to(inside)).with_suffix(".png")))
        assert np.array_equal(image, defog_image(net, images.decode(content)))


def test_defog_refuses_to_write_over_anything_it_reads(run: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in/b.png").parent.mkdir()
    for name in ("a.jpg", "a.webp", "b.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / "in" / name)
    for arguments, words in (
        ([tmp_path / "in", "--out", tmp_path / "out"], "in/a.jpg and "),
        ([folder / "01000/c1_0.jpg", folder / "01001/c1_0.jpg", "--out", tmp_path / "out"], "would both be"),
        ([tmp_path / "in/b.png", "--out", tmp_path / "in"], "over the input"),
        ([tmp_path / "in/b.png", "--out", tmp_path / "out/../in"], "over the input"),
    ):
        result = sjdl("defog", "--weights", run, *arguments)
        assert result.exit_code == 1, result.output
        assert words in result.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {"in", "a.jpg", "a.webp", "b.png"}


def test_defog_leaves_out_what_cannot_be_used(run: Path, folder: Path, tmp_path: Path) -> None:
    copy, broken = spoil(folder, tmp_path)
    result = sjdl("defog", "--weights", run, copy, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"left out: {broken}" in result.stderr
    assert "8 images defogged" in result.stdout
    assert len(list((tmp_path / "out").rglob("*.png"))) == 8


# --- what is said before the work starts


def test_what_is_wrong_is_said_in_a_sentence(run: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    image, text = folder / "01000/c1_0.jpg", tmp_path / "notes.txt"
    text.write_text("no weights")
    here = image.read_bytes()
    for arguments, code, words in (
        (["embed", "--weights", run, tmp_path / "no.jpg", "-o", tmp_path / "e"], 1, "no.jpg: no such file or folder"),
        (["embed", "--weights", run, tmp_path / "empty", "-o", tmp_path / "e"], 1, "no image in this folder"),
        (["embed", "--weights", tmp_path / "no", image, "-o", tmp_path / "e"], 1, "no such weights file"),
        (["embed", "--weights", tmp_path / "empty", image, "-o", tmp_path / "e"], 1, "no such weights file"),
        (["embed", "--weights", text, image, "-o", tmp_path / "e"], 1, "not weights of an SJDL network"),
        (["embed", "--weights", run, image, "-o", tmp_path], 1, "is a folder"),
        (["embed", "--weights", run, image, "-o", image], 1, "would be overwritten"),
        (["embed", "--weights", run, image, "-o", run / "weights.safetensors"], 1, "would be overwritten"),
        (["embed", "--weights", run, image, "-o", text / "e"], 1, "cannot be made"),
        (["embed", "--weights", run, image, "-o", tmp_path / "e", "--device", "abacus"], 2, "cannot be used"),
        (["embed", "--weights", run, "-o", tmp_path / "e"], 2, "IMAGES"),
        (["search", "--weights", run, "--gallery", tmp_path / "no", image], 1, "no such file or folder"),
        (["search", "--weights", run, "--gallery", folder, image, "--picture", text], 2, "a .jpg or a .png file"),
        (["search", "--weights", run, "--gallery", folder, image, "--picture", image], 1, "would be overwritten"),
        (["defog", "--weights", run, image, "--out", text], 1, "cannot be made"),
        (["defog", "--weights", run, tmp_path / "no", "--out", tmp_path / "e"], 1, "no such file or folder"),
    ):
        result = sjdl(*arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert words in " ".join(result.stderr.split())
        assert "Traceback" not in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "notes.txt"}
    assert image.read_bytes() == here


def test_a_full_disk_leaves_no_half_of_a_file(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    result = sjdl("embed", "--weights", run, folder / "01000", "-o", tmp_path / "e.npz")
    assert result.exit_code == 1
    assert "e.npz: cannot be written (No space left on device); free some space" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_and_its_file_are_the_same_weights(net: SJDL, run: Path) -> None:
    one, other = load_trained(run), load_trained(run / "weights.safetensors")
    assert one.sha256 == other.sha256
    assert one.size == other.size == SIZE
    assert torch.equal(one.net.neck.running_var, net.neck.running_var)


def test_only_a_folder_below_is_left_out_of_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("photos/a.jpg", "photos/out/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for out, expected in ((".", 2), ("photos/out", 1), ("photos", 2), ("elsewhere", 2)):
        assert len(_found(["photos"], Path(out))) == expected
