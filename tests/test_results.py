"""A run under every condition: scores, tables, pages in a real browser, card."""

import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import fvrid_tools
from fvrid_tools.dataset import Dataset
from fvrid_tools.split import write_split
from sjdl_model import SJDL, conditions, data, metrics, processes, ranklists, report, results, tables
from sjdl_model.checkpoint import save_weights
from sjdl_model.cli import cli
from sjdl_model.config import ConfigError, DataError, read_recipe, to_toml
from sjdl_model.distances import multiplier
from sjdl_model.evaluate import Embedder, TestSet, evaluate_dataset
from sjdl_model.network import Architecture
from sjdl_model.report import METRICS, RECIPE
from sjdl_model.rerank import Rerank
from sjdl_model.results import Scoring, evaluate_run, evaluate_weights, study

SIZE = 32
HOSTILE = '<img src=x onerror=alert(1)>"&'


def make_run(folder: Path, *, defogs: bool = True) -> Path:
    """A run as training leaves it, of a small network whose batch norms have seen images."""
    torch.manual_seed(0)
    architecture = Architecture(9, 9, "test_resnet", 2, 2, SIZE, defogs=defogs)
    net = architecture.build().train()
    for _ in range(20):
        net(torch.rand(8, 3, SIZE, SIZE) ** 2)
    folder.mkdir()
    recipe = read_recipe("demo", [f"image_size={SIZE}"])
    save_weights(folder, net, architecture, {"git": "abc", "data": "f00", "recipe": "", "versions": '{"torch": "2"}'})
    (folder / RECIPE).write_text(to_toml(recipe))
    (folder / METRICS).write_text('{"epoch": 1, "lr": 0.1, "synthetic/triplet": 1.0, "defogging/psnr": 20.0}\n')
    return folder


@pytest.fixture(scope="module")
def studied(built: Path, built_real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with results; one vehicle of the real domain has a name that is HTML."""
    run = make_run(tmp_path_factory.mktemp("studied") / "run")
    synthetic, real = (fvrid_tools.open_dataset(path) for path in (built, built_real))
    name = next(row.vehicle_id for row in real.rows if row.split == "query")
    rows = [row._replace(vehicle_id=HOSTILE) if row.vehicle_id == name else row for row in real.rows]
    study(run, [synthetic, real.take(rows)], betas=(0.0, 1.0, 4.0))
    return run


@pytest.fixture
def embedder(studied: Path) -> Embedder:
    return Embedder(net=SJDL.from_pretrained(studied), size=SIZE)


def found_in(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def test_the_matrix_is_every_pair_of_conditions(studied: Path, built: Path, embedder: Embedder) -> None:
    found = found_in(studied)
    pairs = [(result["images"], result["gallery_images"]) for result in found["synthetic"]["matrix"]]
    assert len(set(pairs)) == len(pairs) == 12
    assert len(found["real"]["matrix"]) == 4
    assert all("clear" not in (r["images"], r["gallery_images"]) for r in found["real"]["matrix"])
    # one of them by hand: foggy queries, defogged gallery
    dataset = fvrid_tools.open_dataset(built)
    queries, gallery = dataset.select(split="query"), dataset.select(split="gallery")
    with torch.inference_mode():

        def images(part: fvrid_tools.dataset.Dataset) -> torch.Tensor:
            return next(data.image_batches(data.ImageSet(part, SIZE, data.foggy), 99, 0, torch.device("cpu")))

        one, other = embedder.net.embed(images(queries)), embedder.net.embed(embedder.net.defog(images(gallery)))
    ids = metrics.numbered(*([row.identity for row in part.rows] for part in (queries, gallery)))
    cameras = ([row.camera_id for row in part.rows] for part in (queries, gallery))
    expected = metrics.evaluate(one, other, *ids, *cameras)
    stored = found["synthetic"]["matrix"][pairs.index(("foggy", "defogged"))]
    assert stored["mAP"] == pytest.approx(expected.mAP, abs=1e-5)
    assert stored["intervals"]["mAP"] == pytest.approx(expected.intervals()["mAP"], abs=1e-5)
    assert stored["protocol"].startswith("foggy queries, defogged gallery; ")
    assert "camera-aware" in stored["protocol"]


def test_fog_by_visibility(studied: Path, built: Path) -> None:
    found = found_in(studied)["synthetic"]
    clear = next(r for r in found["matrix"] if (r["images"], r["gallery_images"]) == ("clear", "clear"))
    assert [point["beta"] for point in found["curve"]] == [0, 1, 4]
    assert found["curve"][0]["mAP"] == clear["mAP"]
    transmissions = [point["transmission"] for point in found["curve"]]
    assert transmissions[0] == 1 > transmissions[1] > transmissions[2]
    assert found["curve"][0]["visibility_m"] is None  # JSON has no infinity
    # where it can be seen through, a twentieth is left: d = ln z / ln 81
    for beta in (1.0, 4.0):
        assert np.exp(-beta * np.log(conditions.visibility(beta)) / np.log(81)) == pytest.approx(0.05)
    sample = fvrid_tools.open_dataset(built)[0]
    again = conditions.InFog(sample.beta)(sample).astype(float)
    assert np.abs(again - sample.foggy).mean() < 2.5  # up to JPEG
    assert (conditions.InFog(0.0)(sample) == sample.clear).all()


def test_psnr_and_ssim_are_scikit_images(built: Path, embedder: Embedder) -> None:
    dataset = fvrid_tools.open_dataset(built)[:5]
    found = conditions.defogging_quality(embedder, dataset)
    clear, foggy = (
        next(data.image_batches(data.ImageSet(dataset, SIZE, pick), 9, 0, torch.device("cpu")))
        for pick in (data.clear, data.foggy)
    )
    with torch.inference_mode():
        shown = {"foggy": foggy, "defogged": embedder.net.defog(foggy)}
    for name, batch in shown.items():
        pairs = [(c.permute(1, 2, 0).numpy(), i.permute(1, 2, 0).numpy()) for c, i in zip(clear, batch, strict=True)]
        psnr = [peak_signal_noise_ratio(*pair, data_range=1) for pair in pairs]
        options = {"gaussian_weights": True, "use_sample_covariance": False, "sigma": 1.5}
        maps = [structural_similarity(*pair, data_range=1, channel_axis=2, full=True, **options)[1] for pair in pairs]
        ssim = [part.mean() for part in maps]  # over the whole image
        assert found[name]["psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
        assert found[name]["ssim"] == pytest.approx(np.mean(ssim), abs=1e-3)
        low, high = found[name]["psnr_interval"]
        assert min(psnr) <= low <= found[name]["psnr"] <= high <= max(psnr)


def test_vehicles_of_two_sources_with_one_name_are_two(built: Path, embedder: Embedder) -> None:
    data = fvrid_tools.open_dataset(built)
    tested = sorted({row.vehicle_id for row in data.rows if row.split != "train"})
    rows = [
        row._replace(source="other", vehicle_id=tested[0]) if row.vehicle_id == tested[1] else row for row in data.rows
    ]
    test = TestSet(data.take(rows), "all")
    found = embedder(test.data, "foggy")
    shown = [image for one in ranklists.rank_lists(test, found, SIZE) for image in (one.query, *one.matches)]
    assert {f"veri-wild/{tested[0]}", f"other/{tested[0]}"} <= {image.vehicle for image in shown}
    assert {image.camera.partition("/")[0] for image in shown} == {"veri-wild", "other"}
    assert f"foggy images of {len(tested)} vehicles" in str(ranklists.scatter(test, found))


def test_rank_lists_are_the_ranking_that_is_scored(built: Path, embedder: Embedder) -> None:
    test = TestSet(fvrid_tools.open_dataset(built), "all")
    found = embedder(test.data, "foggy")
    scores = test.score(found, found)
    lists = ranklists.rank_lists(test, found, SIZE)
    assert len(lists) == len(test.data)
    precisions = [one.average_precision for one in lists]
    assert precisions == sorted(precisions)
    assert precisions == pytest.approx(sorted(scores.average_precision))
    for one in lists:
        counted = [image for image in one.matches if image.mark != "junk"]
        assert [image.rank for image in counted] == list(range(1, len(counted) + 1))
        assert [image.distance for image in one.matches] == sorted(image.distance for image in one.matches)
        assert one.query.image_id not in [image.image_id for image in one.matches]
        assert all((image.vehicle == one.query.vehicle) == (image.mark != "wrong") for image in one.matches)
        right = [image.rank for image in counted if image.mark == "right"]
        assert (right[0] if right else 11) >= min(one.first_match, 11)
        if one.first_match <= 10:
            assert right[0] == one.first_match


@pytest.mark.parametrize("protocol", ["camera-less", "vehicleid"])
def test_protocols_are_named(built: Path, embedder: Embedder, protocol: str) -> None:
    test = TestSet(fvrid_tools.open_dataset(built), protocol=protocol)
    result = evaluate_dataset(embedder, test)
    assert protocol in result.protocol.lower()
    if protocol == "vehicleid":
        with pytest.raises(ConfigError, match="one condition"):
            evaluate_dataset(embedder, test, "foggy", "clear")
    else:
        aware = evaluate_dataset(embedder, TestSet(fvrid_tools.open_dataset(built)))
        assert aware.protocol != result.protocol
        every = evaluate_dataset(embedder, TestSet(fvrid_tools.open_dataset(built), "all", "camera-less"))
        assert "only the query's own image left out" in every.protocol
        reranked = evaluate_dataset(embedder, test, rerank=Rerank(5, 2, 0.3))
        assert "k-reciprocal (k1 = 5, k2 = 2, lambda = 0.3)" in reranked.protocol


def test_a_query_does_not_find_a_copy_of_its_own_file(built: Path, embedder: Embedder) -> None:
    """VeRi-776 has its queries in the gallery, too."""
    data = fvrid_tools.open_dataset(built)
    queries = data.select(split="query").rows
    copies = [row._replace(image_id=f"{row.image_id}-copy", split="gallery") for row in queries]
    for protocol, which in (("camera-less", "one"), ("camera-aware", "one"), ("camera-less", "all")):
        test = TestSet(data.take([*data.rows, *copies]), which, protocol)
        if (protocol, which) == ("camera-less", "one"):
            assert "only copies of the query's own file left out" in evaluate_dataset(embedder, test).protocol
        for shown in ranklists.rank_lists(test, embedder(test.data, "foggy"), SIZE):
            marks = {match.image_id: match.mark for match in shown.matches}
            assert marks.get(f"{shown.query.image_id}-copy", "junk") == "junk"


def test_processes_share_the_measuring_of_defogged_images(
    built: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of them, of which one has no image."""
    images = fvrid_tools.open_dataset(built)[:5]
    whole = conditions.defogging_quality(embedder, images)
    found: list[Any] = []
    for share in (slice(0, 2), slice(2, 2), slice(2, 5)):
        monkeypatch.setattr(processes, "share", lambda _, mine=share: mine)
        monkeypatch.setattr(processes, "objects", lambda mine: found.append(mine) or [mine or found[0]])
        conditions.defogging_quality(embedder, images)
    monkeypatch.setattr(processes, "objects", lambda _: found)
    shared = conditions.defogging_quality(embedder, images)
    for condition, measures in whole.items():
        for name in ("psnr", "ssim"):
            assert shared[condition][name] == pytest.approx(measures[name], rel=1e-4)


@pytest.mark.parametrize("queries", ["one", "all"])
def test_a_gallery_of_mixed_weather_has_each_image_foggy_or_clear(
    built: Path, built_real: Path, embedder: Embedder, queries: str
) -> None:
    test = TestSet(fvrid_tools.open_dataset(built), queries)
    foggy, clear = (embedder(test.data, condition) for condition in ("foggy", "clear"))
    heads = [int(hashlib.sha256(row.image_id.encode()).hexdigest()[1], 16) % 2 for row in test.data.rows]
    assert 0 < sum(heads) < len(heads)
    gallery = np.array([clear[i] if head else foggy[i] for i, head in enumerate(heads)])
    result = evaluate_dataset(embedder, test, "foggy", "mixed")
    assert result.scores == test.score(foggy, gallery).summary()
    assert "foggy queries, mixed gallery (each image foggy or clear" in result.protocol
    with pytest.raises(DataError, match="has no clear images"):
        evaluate_dataset(embedder, TestSet(fvrid_tools.open_dataset(built_real)), "foggy", "mixed")


def test_vehicleids_counts_are_of_one_gallery(built: Path, embedder: Embedder) -> None:
    test = TestSet(fvrid_tools.open_dataset(built), protocol="vehicleid")
    result = evaluate_dataset(embedder, test)
    vehicles = len({row.identity for row in test.data.rows})
    assert (result.gallery, result.queries, result.unmatched) == (vehicles, len(test.data) - vehicles, 0)


def test_what_cannot_be_scored_is_said_before_the_network_runs(built: Path) -> None:
    whole = fvrid_tools.open_dataset(built)
    without_cameras = whole.take([row._replace(camera_id=None) for row in whole.rows])
    with pytest.raises(DataError, match="knows no cameras; use --protocol camera-less"):
        TestSet(without_cameras, protocol="camera-aware")
    test = [row for row in whole.rows if row.split in ("query", "gallery")]
    one = [row._replace(camera_id="c1") for row in test]
    with pytest.raises(DataError, match="no query has a match"):
        TestSet(whole.take(one))
    with pytest.raises(DataError, match="one vehicle only"):
        TestSet(whole.take([row._replace(vehicle_id="7") for row in test]))
    with pytest.raises(ConfigError, match="chooses its own queries"):
        TestSet(whole, "all", "vehicleid")
    with pytest.raises(ConfigError, match="leave --rerank out"):
        Scoring(protocol="vehicleid", rerank=Rerank())
    with pytest.raises(ConfigError, match="leave --gallery-images out"):
        evaluate_weights(Path("none"), whole, "foggy", "clear", Scoring(protocol="vehicleid"))


def result_of(**scores: float) -> dict:
    return {name: scores.get(name, 0.5) for name in tables.COLUMNS} | {"intervals": {"mAP": [0.8, 0.9]}}


def test_tables_as_the_paper_prints_them() -> None:
    """The baseline's row of Table 4: mAP 81.88 and 76.17, difference 5.71."""
    row = tables.Compared("Baseline", result_of(mAP=0.8188), result_of(mAP=0.7617))
    cells = tables.table([row, tables.Compared("R & D", None, result_of())])
    assert cells[0][:5] == ["Module", "mAP", "", "", "CMC@1"]
    assert cells[1][:5] == ["", "S", "R", "Δ", "S"]
    assert cells[2][:4] == ["Baseline", "81.88", "76.17", "5.71"]
    assert cells[3][:4] == ["R & D", "-", "50.00", "-"]
    lines = tables.as_text(cells).splitlines()
    assert [line.split()[:4] for line in lines[2:3]] == [["Baseline", "81.88", "76.17", "5.71"]]
    assert len(tables.table([row], 5)[0]) == 9
    assert tables.table([row], 3, intervals=True)[2][1] == "81.88 [80.0, 90.0]"
    latex = tables.as_latex(cells).splitlines()
    assert latex[0] == r"\begin{tabular}{lrrrrrrrrrrrr}"
    assert latex[1].count(r"\multicolumn{3}{c}") == 4
    assert latex[5].startswith(r"R \& D & - & 50.00")


def test_commands(studied: Path, built: Path, built_real: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(studied, tmp_path / "run"))

    def called(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, [*arguments], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    common = ["--run", str(run), "--workers", "0"]
    printed = called("report", *common, "--data", str(built), "--betas", "0.5", "--protocol", "camera-less")
    assert "results.html" in printed
    assert [point["beta"] for point in found_in(run)["synthetic"]["curve"]] == [0.5]
    printed = called("eval", *common, "--data", str(built_real), "--rerank")
    assert "k1 = 20" in printed
    assert re.search(r"mAP \d+\.\d\d \[\d+\.\d, \d+\.\d\]", printed)
    assert (run / "eval-real-foggy-reranked.json").exists()
    called("eval", *common, "--data", str(built_real), "--rerank", "5,2,0.5")
    assert (run / "eval-real-foggy-reranked-5-2-0.5.json").exists()
    called("eval", *common, "--data", str(built), "--gallery-images", "clear")
    assert (run / "eval-synthetic-foggy-to-clear.json").exists()
    assert called("table", f"ours={run}").splitlines()[2].startswith("ours")
    card = (run / "README.md").read_text()
    assert "| real, foggy-reranked |" in card
    assert "| synthetic, foggy-to-clear |" in card
    assert "fewer than 20 queries" in called("eval", *common, "--data", str(built_real), "--protocol", "camera-less")
    assert "cameras not looked at" in (run / "report.html").read_text()
    other = tmp_path / "other"
    shutil.copytree(built, other)
    write_split(other, seed=5)
    replaced = called("eval", *common, "--data", str(other))
    assert "eval-synthetic-foggy.json: was of another dataset, or another split of it, and is replaced" in replaced
    assert "do not compare" in called("table", str(run), str(studied))
    assert called("table", str(run), "--like", "5", "--latex").startswith(r"\begin{tabular}{lrrrrrrrr}")
    assert "not all trained on the same data" not in called("table", str(run), str(studied))
    for folder, hashed in ((tmp_path / "one", "12ab"), (tmp_path / "two", "34cd")):
        shutil.copytree(studied, folder)
        stored = json.loads((folder / "eval-synthetic-foggy.json").read_text())
        (folder / "eval-synthetic-foggy.json").write_text(json.dumps(stored | {"trained_on_sha256": hashed}))
    assert "not all trained on the same data" in called("table", str(tmp_path / "one"), str(tmp_path / "two"))
    named = Path(shutil.copytree(run, tmp_path / "lr=1e-3"))
    assert called("table", str(named)).splitlines()[2].startswith("lr=1e-3")
    assert "name --data, --real or both" in called("report", "--run", str(run), code=2)
    assert "three numbers needed" in called("eval", *common, "--rerank", "1,2", code=2)
    assert "1 <= k2 <= k1" in called("eval", *common, "--data", str(built), "--rerank", "1,2,0.3", code=2)
    assert "numbers from 0 on" in called("report", *common, "--data", str(built), "--betas", "1,-2", code=2)
    assert "is of the synthetic domain, not real" in called("report", *common, "--real", str(built), code=1)
    assert "run sjdl eval" in called("table", str(tmp_path), code=1)
    (run / "eval-real-foggy.json").write_text("[]")
    assert "not a result of sjdl eval" in called("table", str(run), code=1)


def test_the_card_is_read_by_the_hub_and_the_folder_by_from_pretrained(studied: Path) -> None:
    card = ModelCard.load(studied / "README.md")
    assert card.data.library_name == "sjdl_model"
    stored = {(r.dataset_type, r.dataset_config, r.metric_type): r.metric_value for r in card.data.eval_results}
    result = json.loads((studied / "eval-synthetic-clear.json").read_text())
    key = ("fvrid-synthetic", "synthetic-clear", "mAP")
    assert len(stored) == 5 * 5  # three conditions of the synthetic domain, two of the real one
    assert stored[key] == pytest.approx(100 * result["mAP"], abs=0.005)
    for words in (
        "f00",
        "Intended use and limits",
        "95 % intervals",
        "camera-aware",
        'backbone = "resnet18"',
        "torch 2",
    ):
        assert words in card.content
    net = SJDL.from_pretrained(studied)
    assert net.image_size == SIZE
    assert not net.training
    with pytest.raises(DataError, match="no such weights file"):
        SJDL.from_pretrained(studied / "tensorboard")


def opened(chromium: str, page: Path, hash: str, folder: Path) -> tuple[str, str, list[str]]:
    """The document after its scripts ran, the browser's log, the addresses asked for."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    log = folder / "net.json"
    command = [chromium, *options, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", f"file://{page}#{hash}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    events = json.loads(log.read_text())["events"]
    urls = [e["params"]["url"] for e in events if isinstance(e.get("params"), dict) and "url" in e["params"]]
    own = [
        url for url in urls if not re.match(r"https?://[\w.]*(google|googleapis|gvt1)\.com/", url)
    ]  # the browser's own errands
    return done.stdout, done.stderr, own


def shown_lists(document: str) -> list[str]:
    return [tag for tag in re.findall(r"<li [^>]*data-match[^>]*>", document) if "hidden" not in tag]


def test_the_page_opens_from_disk_and_its_filters_work(studied: Path, chromium: str, tmp_path: Path) -> None:
    page = studied / "results.html"
    document, log, urls = opened(chromium, page, "", tmp_path)
    everything = shown_lists(document)
    assert len(everything) == 6  # three queries in each domain
    assert f"{len(everything)} of {len(everything)} queries shown" in document
    assert "CONSOLE" not in log
    assert [url for url in urls if url.startswith("http")] == []
    camera = re.search(r'data-camera="([^"]*)"', everything[0])[1]
    some = shown_lists(opened(chromium, page, f"camera={camera}", tmp_path)[0])
    assert some == [tag for tag in everything if f'data-camera="{camera}"' in tag]
    assert some
    wrong = shown_lists(opened(chromium, page, "match=wrong&order=best", tmp_path)[0])
    assert sorted(wrong) == sorted(tag for tag in everything if 'data-match="wrong"' in tag)


def test_the_page_heeds_its_controls_and_escapes_names(studied: Path, chromium: str, tmp_path: Path) -> None:
    text = (studied / "results.html").read_text()
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False)[:20] in text
    act = """<script>
    form.vehicle.selectedIndex = form.vehicle.options.length - 1;
    form.vehicle.dispatchEvent(new Event("change", {bubbles: true}));
    const first = form.vehicle.value + " " + items.filter(item => !item.hidden).length + location.hash;
    form.querySelector("button").click();
    setTimeout(() => { document.title = first + " then " + items.filter(item => !item.hidden).length; }, 50);
    </script></body>"""
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", act))
    document, log, _ = opened(chromium, page, "", tmp_path)
    title = html.unescape(re.search(r"<title>(.*?)</title>", document)[1])
    assert re.fullmatch(r".+ [12]#vehicle=\S+ then 6", title), title
    assert "CONSOLE" not in log
    assert "onerror=alert(1)>" not in re.sub(r'"[^"]*"', "", document)


def test_a_run_that_does_not_defog_is_not_asked_to(built: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", defogs=False)
    study(run, [fvrid_tools.open_dataset(built)], Scoring(queries="all"), betas=(1.0,))
    found = found_in(run)["synthetic"]
    assert {result["images"] for result in found["matrix"]} == {"foggy", "clear"}
    assert found["quality"].keys() == {"foggy"}
    assert "defogged</h2>" not in (run / "results.html").read_text()
    assert (run / "eval-synthetic-clear-all-queries.json").exists()
    assert results.summary_table(run, found_in(run))[2][0] == "run"


def test_fog_that_a_source_brought_is_not_drawn_anew(studied: Path, built: Path, tmp_path: Path) -> None:
    """Nobody knows its airlight."""
    data = fvrid_tools.open_dataset(built)
    brought = Dataset(data.folder, data.rows, {**data.info, "fog": "source"})
    run = Path(shutil.copytree(studied, tmp_path / "run"))
    found = study(run, [brought])
    assert found["synthetic"]["curve"] == []
    assert len(found["synthetic"]["matrix"]) == 12


def test_weights_alone_are_scored_like_a_run(studied: Path, built: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    shutil.copy(studied / "weights.safetensors", tmp_path / "bare")
    result = evaluate_run(tmp_path / "bare", fvrid_tools.open_dataset(built))
    assert result == evaluate_run(Path(shutil.copytree(studied, tmp_path / "run")), fvrid_tools.open_dataset(built))
    assert result == evaluate_weights(tmp_path / "bare/weights.safetensors", fvrid_tools.open_dataset(built))
    assert [point["weights_sha256"] for point in found_in(studied)["synthetic"]["curve"]][:1] == [result.weights_sha256]
    assert result.weights_sha256 == hashlib.sha256((studied / "weights.safetensors").read_bytes()).hexdigest()
    assert f"{100 * result.scores['mAP']:.2f}" in (tmp_path / "bare/report.html").read_text()
    stored = json.loads((tmp_path / "bare/eval-synthetic-foggy.json").read_text())
    del stored["dataset"]  # of an earlier version
    (tmp_path / "bare/eval-synthetic-foggy-old.json").write_text(json.dumps(stored))
    report.write_report(tmp_path / "bare")
    (tmp_path / "bare/eval-x.json").write_text("{}")
    with pytest.raises(DataError, match=r"eval-x\.json: not a result of sjdl eval"):
        evaluate_run(tmp_path / "bare", fvrid_tools.open_dataset(built))


def test_pictures_are_made_on_the_device_that_is_asked_for(
    studied: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = SJDL.from_pretrained(studied)
    moved: list[object] = []
    monkeypatch.setattr(net, "to", lambda device: moved.append(device) or net)
    device = torch.device("cpu", 0)
    report.write_examples(tmp_path, net, fvrid_tools.open_dataset(built), SIZE, device, count=1)
    assert moved == [device]


def test_ranking_heeds_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert multiplier() == torch.device("cuda")
    assert multiplier("cuda:1") == torch.device("cuda:1")
    rows = np.random.default_rng(0).random((8, 4), np.float32)
    ids = [0, 0, 1, 1, 2, 2, 3, 3]
    assert metrics.evaluate(rows, rows, ids, ids, device="cpu").cmc[0] == 1
    assert metrics.evaluate_vehicleid(rows, ids, device=torch.device("cpu")).mAP > 0


def test_statistics_may_be_those_of_the_other_domain(built: Path) -> None:
    """As the clear counterparts of real images need them, which make a synthetic dataset."""
    data = fvrid_tools.open_dataset(built).select(split="query")
    net = Architecture(2, 2, "test_resnet", 2, 2, SIZE, domain_statistics=True).build()
    net.neck.real_mean.fill_(1.0)
    (of_synthetic, of_real, as_it_is) = (
        Embedder(net=net, size=SIZE, domain=domain)(data, "foggy") for domain in ("synthetic", "real", None)
    )
    assert np.allclose(of_synthetic - of_real, 1, atol=1e-4)
    assert np.array_equal(of_synthetic, as_it_is)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
def test_an_output_that_is_full_is_a_sentence(studied: Path) -> None:
    command = [sys.executable, "-m", "sjdl_model", "table", str(studied)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the output: No space left on device; free some space.")
