"""Arms, validation vehicles, comparisons by hand, and a whole ablation of tiny runs."""

import json
import runpy
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import fvrid_tools
from fvrid_tools import build, manifest, sources
from fvrid_tools.depth import open_estimator
from fvrid_tools.fog import PRESETS
from fvrid_tools.split import write_split
from sjdl_model import SJDL, losses, transforms
from sjdl_model.ablation import RESULTS, Data, _open_defogger, _start, ablate, validation_part
from sjdl_model.arms import STANDARD, TOGETHER, chosen
from sjdl_model.cli import cli
from sjdl_model.compare import compare, over_seeds, read_results, remarks
from sjdl_model.config import ConfigError, DataError, Recipe, read_recipe, to_toml
from sjdl_model.data import Counterparts, TrainingSet
from sjdl_model.domains import Domains
from sjdl_model.objectives import terms
from sjdl_model.samplers import Visit

CPU = torch.device("cpu")
QUICK = (
    "backbone=test_resnet",
    "pretrained=false",
    "last_stride=2",
    "image_size=32",
    "p=3",
    "k=2",
    "epochs=1",
    "steps_per_epoch=2",
    "workers=0",
)


@pytest.fixture(scope="module")
def counterparts(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `built_real`: a synthetic dataset whose clear images have its ids. Not to be changed."""
    out = tmp_path_factory.mktemp("counterparts") / "clear"
    pattern = r"(?P<vehicle_id>\d+)/c(?P<camera_id>\d+)"
    recipe = build.Recipe(depth=open_estimator("planar"), fog=PRESETS["paper"])
    build.build([sources.read_source("folder", laid_out / "foggy", pattern)], out, recipe)
    write_split(out, seed=0)
    return out


@pytest.fixture(scope="module")
def ablated(
    built: Path, built_real: Path, counterparts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """The arguments of an ablation, and where it was done. Not to be changed."""
    out = tmp_path_factory.mktemp("ablation") / "out"
    datasets = ["--data", str(built), "--real", str(built_real), "--counterparts", str(counterparts)]
    changes = [part for change in QUICK for part in ("--set", change)]
    arms = ["--arms", "headroom,oracle,baseline,sjdl,conv_2,conv_3", "--arm", "wide@baseline:fog.redraw=true,lr=0.002"]
    arguments = ["ablate", *datasets, *changes, *arms, "--seeds", "2", "--out", str(out)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert str(out / "ablation.html") in done.output
    return arguments, out


def test_every_arm_has_scores_of_every_seed(ablated: tuple[list[str], Path]) -> None:
    results = json.loads((ablated[1] / "results.json").read_text())
    assert list(results) == ["headroom", "oracle", "baseline", "sjdl", "conv_2", "conv_3", "wide"]
    for of in results.values():
        assert list(of) == ["0", "1"]
        for scores in of.values():
            assert 0 < scores["mAP_synthetic"] <= 1
            assert 0 < scores["mAP_real"] <= 1
            assert scores["difference"] == pytest.approx(scores["mAP_synthetic"] - scores["mAP_real"])
            assert scores["mAP_real_interval"][0] <= scores["mAP_real"] <= scores["mAP_real_interval"][1]
    assert results["sjdl"] == results["conv_2"]  # one run serves both
    assert not (ablated[1] / "runs/conv_2").exists()
    assert "psnr_real_defogged" in results["sjdl"]["0"]
    assert "psnr_real_defogged" not in results["baseline"]["0"]
    page = (ablated[1] / "ablation.html").read_text()
    assert "recovered" in page
    texts = [text.text for text in ElementTree.parse(ablated[1] / "figure.svg").iter() if text.tag.endswith("}text")]
    assert [text for text in texts if text in results] == list(results)
    assert f"{100 * np.mean([s['mAP_real'] for s in results['wide'].values()]):.2f}" in texts


def test_finished_runs_are_not_repeated(ablated: tuple[list[str], Path]) -> None:
    arguments, out = ablated
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("weights.safetensors")}
    assert len(before) == 12
    scores = (out / "results.json").read_bytes()
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "results.json").read_bytes() == scores
    other = CliRunner().invoke(cli, [*arguments, "--set", "margin=0.5"])
    assert other.exit_code == 1
    assert "another recipe" in other.output


def test_what_lies_there_is_of_the_same_data(ablated: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone that has seen every training vehicle is not for the validation, which tests some of them."""
    arguments, out = ablated
    others = [*arguments[:-1], str(out), "--validation", "--arms", "statistics", "--seeds", "1"]
    done = CliRunner().invoke(cli, others)
    assert done.exit_code == 1
    assert "start is of another recipe, other data or an earlier version; name another --out" in done.output
    monkeypatch.chdir(out.parent)
    assert CliRunner().invoke(cli, [*arguments[:-1], "out"]).exit_code == 0  # the same place by another name


def test_an_oracle_alone_needs_the_truth(built: Path, built_real: Path, tmp_path: Path) -> None:
    arguments = ["ablate", "--data", str(built), "--real", str(built_real), "--arms", "oracle", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert "oracle is trained with the clear images of real scenes; name their --counterparts" in done.output


def test_runs_known_from_elsewhere_are_not_repeated(ablated: tuple[list[str], Path], tmp_path: Path) -> None:
    arguments, out = ablated
    known = tmp_path / "known.json"
    known.write_bytes((out / "results.json").read_bytes())
    again = [*arguments[:-1], str(tmp_path / "out"), "--known", str(known)]
    done = CliRunner().invoke(cli, again)
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out/runs").exists()
    assert not (tmp_path / "out/start").exists()
    assert (tmp_path / "out/results.json").read_bytes() == known.read_bytes()
    assert (tmp_path / "out/ablation.html").read_text().count("<td>") == (out / "ablation.html").read_text().count(
        "<td>"
    )
    other = CliRunner().invoke(cli, [*again, "--set", "margin=0.5"])
    assert other.exit_code == 1
    assert "known.json: headroom is of another recipe or other images" in other.output
    known.write_text('{"baseline": {"0": {"mAP_real": 1, "images": "", "recipe": 1}}}')
    broken = CliRunner().invoke(cli, again)
    assert broken.exit_code == 1
    assert "known.json: not the results of an ablation" in broken.output


def test_scores_in_other_fog_are_not_taken(ablated: tuple[list[str], Path], built: Path, tmp_path: Path) -> None:
    arguments, out = ablated
    thicker = Path(shutil.copytree(built, tmp_path / "thicker"))
    info = manifest.read_dataset(thicker)
    rows = [row._replace(beta=row.beta + 1) for row in manifest.read_manifest(thicker)]
    info["manifest_sha256"] = manifest.write_manifest(thicker, rows)
    manifest.write_dataset(thicker, info)
    arguments = [str(thicker) if argument == str(built) else argument for argument in arguments[:-1]]
    done = CliRunner().invoke(cli, [*arguments, str(tmp_path / "out"), "--known", str(out / "results.json")])
    assert done.exit_code == 1
    assert "results.json: headroom is of another recipe or other images" in done.output


def test_arms_that_began_with_unlike_backbones_are_no_pairs(ablated: tuple[list[str], Path], tmp_path: Path) -> None:
    arguments, out = ablated
    results = read_results(out / "results.json")
    assert not any("not all arms began" in remark for remark in remarks(results))
    results["sjdl"]["1"]["begun"] = "another"
    assert "seed 1: not all arms began with one backbone" in remarks(results)[-1]
    del results["sjdl"]["1"]["begun"]
    assert "seed 1: it is not known of all arms that they began with one backbone" in remarks(results)[-1]
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    with (copy / "start/backbone.pt").open("ab") as file:
        file.write(b" ")
    done = CliRunner().invoke(cli, [*arguments[:-1], str(copy)])
    assert done.exit_code == 1
    assert "began with another backbone than" in done.output


def test_what_is_not_known_is_trained(ablated: tuple[list[str], Path], tmp_path: Path) -> None:
    arguments, out = ablated
    results = json.loads((out / "results.json").read_text())
    known = tmp_path / "known.json"
    known.write_text(json.dumps({arm: {"0": of["0"]} for arm, of in results.items()}))
    arms = ["--arms", "baseline", "--out", str(tmp_path / "out"), "--known", str(known)]
    done = CliRunner().invoke(cli, [*arguments[:-2], *arms])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out/results.json").read_text())["baseline"]
    assert found["0"] == results["baseline"]["0"]
    assert found["1"]["mAP_real"] == pytest.approx(results["baseline"]["1"]["mAP_real"])
    assert {path.name for path in (tmp_path / "out/runs/baseline").iterdir()} == {"1"}


@pytest.mark.slow
def test_several_runs_at_once_give_the_same_scores(ablated: tuple[list[str], Path], tmp_path: Path) -> None:
    arguments, out = ablated
    again = [*arguments[:-1], str(tmp_path / "out"), "--jobs", "2", "--arms", "baseline", "--seeds", "2"]
    done = CliRunner().invoke(cli, again)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out/results.json").read_text())["baseline"]
    for seed in ("0", "1"):
        alone = json.loads((out / "runs/baseline" / seed / "scores-foggy.json").read_text())["scores"]
        assert found[seed]["mAP_real"] == pytest.approx(alone["mAP_real"], abs=1e-3)


def test_a_seed_begins_alike_in_every_arm(built: Path, built_real: Path) -> None:
    datasets = fvrid_tools.open_dataset(built), fvrid_tools.open_dataset(built_real)
    began, batches = [], []
    for name in ("baseline", "sjdl", "conv_3", "conv_5"):
        domains = Domains(*datasets, read_recipe("default", [*QUICK, *STANDARD[name].changes]))
        torch.manual_seed(7)
        state = domains.architecture.build().state_dict()
        began.append({key: value for key, value in state.items() if not key.startswith("firm.")})
        batches.append([batch for step in domains.steps(0, 2, CPU) for batch in step])
    for state, seen in zip(began[1:], batches[1:], strict=True):
        assert state.keys() == began[0].keys()
        assert all(torch.equal(state[key], value) for key, value in began[0].items())
        assert all(torch.equal(a.foggy, b.foggy) for a, b in zip(seen, batches[0], strict=True))


def test_all_begin_with_the_backbone_of_the_run_on_clear_images(ablated: tuple[list[str], Path]) -> None:
    start = torch.load(ablated[1] / "start/backbone.pt", weights_only=True)
    trained = load_file(ablated[1] / "start/weights.safetensors")
    assert len(start) > 20
    assert all(torch.equal(trained[f"backbone.stages.{key}"], value) for key, value in start.items())
    recipe = read_recipe(str(ablated[1] / "runs/sjdl/0/recipe.toml"))
    built_net = SJDL(2, 0, recipe.backbone, last_stride=2, pretrained=recipe.pretrained)
    found = built_net.backbone.stages.state_dict()
    assert all(torch.equal(found[key], value) for key, value in start.items())


def test_validation_leaves_the_test_vehicles_alone(built: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    part = validation_part(data)
    train = {row.identity for row in data.select(split="train").rows}
    tested = {row.identity for row in part.rows if row.split != "train"}
    learned = {row.identity for row in part.rows if row.split == "train"}
    assert learned | tested == train
    assert not learned & tested
    assert len(tested) == round(0.25 * len(train))
    assert {row.split for row in part.rows} == {"train", "query", "gallery"}
    others = [row for row in data.rows if row.split == "train"]
    again = {row.identity for row in validation_part(data.take(others[::-1])).rows if row.split != "train"}
    assert again == tested


def test_the_oracle_sees_the_truth_and_the_headroom_no_fog(built: Path, built_real: Path, counterparts: Path) -> None:
    data, real, clear = (fvrid_tools.open_dataset(path) for path in (built, built_real, counterparts))
    recipe = read_recipe("default", QUICK)
    domains = Domains(data, real, recipe, clear)
    ((pairs, batch),) = domains.steps(0, 1, CPU)
    assert batch is not None
    assert batch.counterpart is not None
    row = domains.sets["real"].data.rows[int(batch.position[0])]
    truth = clear.take([one for one in clear.rows if one.image_id == row.image_id])[0].clear
    alone = TrainingSet.of(real, 32, counterparts=Counterparts(clear, real)).as_it_is(
        next(i for i, one in enumerate(real.select(split="train").rows) if one.image_id == row.image_id)
    )
    assert alone.counterpart is not None
    assert abs(alone.counterpart.float().mean() - truth.mean()) < 3
    found = terms(domains.architecture.build(), batch.to(torch.device("cpu")), recipe)
    assert found.keys() == {"triplet", "identity", "restoration"}
    headroom = read_recipe("default", [*QUICK, *STANDARD["headroom"].changes])
    ((synthetic, of_real),) = Domains(data, real, headroom, clear).steps(0, 1, CPU)
    assert of_real is not None
    assert synthetic.clear is None
    assert torch.equal(synthetic.foggy, pairs.clear)
    assert torch.equal(of_real.foggy, batch.counterpart)


def test_two_stage_arms_share_the_training_on_clear_images(ablated: tuple[list[str], Path]) -> None:
    arguments, out = ablated
    names = ["triplet_clear", "triplet_dark_channel_prior", "triplet_restorer", "triplet_firm", "triplet_foggy"]
    done = CliRunner().invoke(cli, [*arguments, "--arms", ",".join(names), "--seeds", "1"])
    assert done.exit_code == 0, done.output
    results = json.loads((out / "results.json").read_text())
    assert list(results) == [*names, "wide"]
    assert {path.parent.name for path in (out / "runs").glob("triplet*/0")} == {"triplet_clear", "triplet_foggy"}
    found = [results[name]["0"] for name in names[:4]]
    assert len({scores["mAP_real"] for scores in found}) > 1
    assert "psnr_real_defogged" not in found[0]
    assert all(0 < scores["ssim_real_defogged"] < 1 for scores in found[1:])
    trained = read_recipe(str(out / "runs/triplet_clear/0/recipe.toml"))
    assert trained.images == "clear"
    assert trained.weights.identity == 0


def test_networks_that_defog_for_others_have_the_statistics_of_the_images(ablated: tuple[list[str], Path]) -> None:
    recipe = read_recipe("default", QUICK)
    assert recipe.domain_statistics
    for domain in ("synthetic", "real"):
        defogger = _open_defogger("firm", ablated[1], recipe, domain)
        assert defogger is not None
        assert defogger.__self__.neck.of_real == (domain == "real")


def test_what_cannot_be_done_is_said(built: Path, built_real: Path, counterparts: Path) -> None:
    data, real, clear = (fvrid_tools.open_dataset(path) for path in (built, built_real, counterparts))
    with pytest.raises(DataError, match=r"no clear counterpart of"):
        Counterparts(data, real)
    with pytest.raises(DataError, match="of the real domain"):
        Counterparts(real, real)
    with pytest.raises(DataError, match="name that too"):
        Domains(data, None, read_recipe("default", QUICK), clear)
    with pytest.raises(DataError, match="no clear images to train on"):
        Domains(data, real, read_recipe("default", [*QUICK, *STANDARD["headroom"].changes]))
    for names, own, words in (
        ("sjdl,jld", (), "jld is no arm"),
        ("sjdl", ("sjdl:lr=1",), "already"),
        ("sjdl", ("x@none:lr=1",), "none is no arm"),
        ("sjdl", ("x",), "NAME:KEY=VALUE"),
        ("", (), "names none"),
    ):
        with pytest.raises(ConfigError, match=words):
            chosen(names, own)
    assert [arm.name for arm in chosen("past", ())][-3:] == ["together", "together_sjdl", "further"]
    for change, words in (
        ("images=clear", "weights of the image terms"),
        ("fog.preset=wide", "fog.redraw=true"),
        ("fog.noise=3", "drawn anew"),
        ("fog.preset=thick", "one of"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_recipe("default", [change])


def test_counterparts_are_tested_as_the_real_images_are(
    built: Path, built_real: Path, counterparts: Path, tmp_path: Path
) -> None:
    """However their own dataset was split."""
    other = shutil.copytree(counterparts, tmp_path / "other")
    write_split(other, seed=5, use_lists=False)
    _, real, clear = Data(synthetic=built, real=built_real, counterparts=other).open()
    assert clear is not None
    own = {row.image_id: row.split for row in fvrid_tools.open_dataset(other).rows}
    assert [(row.image_id, row.split) for row in clear.rows] == [(row.image_id, row.split) for row in real.rows]
    assert any(own[row.image_id] != row.split for row in clear.rows)


def test_scores_are_made_anew_where_others_are_tested(built: Path, built_real: Path, tmp_path: Path) -> None:
    """The network was not trained on them, and is not trained again."""
    real, out = shutil.copytree(built_real, tmp_path / "real"), tmp_path / "out"
    changes = [*QUICK, "pretrained=false"]

    def scores() -> tuple[float, str, int]:
        found = ablate(Data(synthetic=built, real=real), chosen("triplet_clear", ()), 1, out, changes=changes)
        weights = out / "runs/triplet_clear/0/weights.safetensors"
        of = found["triplet_clear"]["0"]
        return of["mAP_real"], of["images"], weights.stat().st_mtime_ns

    before = scores()
    assert scores() == before
    write_split(real, seed=5, use_lists=False)
    mAP, images, time = scores()
    assert time == before[2]
    assert images != before[1]
    assert mAP != before[0]


def test_a_known_headroom_without_real_scenes_is_made_in_full(
    built: Path, built_real: Path, counterparts: Path, tmp_path: Path
) -> None:
    changes = [*QUICK, "pretrained=false"]
    arms = chosen("headroom", ())
    ablate(Data(synthetic=built, real=built_real), arms, 1, tmp_path / "bare", changes=changes)
    data = Data(synthetic=built, real=built_real, counterparts=counterparts)
    known = [tmp_path / "bare" / RESULTS]
    found = ablate(data, arms, 1, tmp_path / "whole", changes=changes, known=known)
    assert found["headroom"]["0"]["mAP_real"] is not None


def test_what_begins_at_random_has_a_start_that_does(tmp_path: Path) -> None:
    arm = read_recipe("default", ["pretrained=false"])
    assert read_recipe("default").pretrained is True
    assert _start(tmp_path, arm, "default", [])[1].pretrained is False


def test_without_counterparts_there_is_no_oracle(built: Path, built_real: Path, tmp_path: Path) -> None:
    data = Data(synthetic=built, real=built_real, validation=True)
    changes = [*QUICK, "pretrained=false"]
    found = ablate(data, chosen("headroom,oracle", ()), 1, tmp_path / "out", changes=changes)
    assert found["oracle"] == {}
    assert found["headroom"]["0"]["mAP_real"] is None
    assert 0 < found["headroom"]["0"]["mAP_synthetic"] <= 1


def test_the_documents_tables_are_those_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    text = (root / "docs/results.md").read_text()
    main = runpy.run_path(str(root / "docs/tables.py"))["main"]
    monkeypatch.chdir(root)
    lines = [line for line in text.splitlines() if line.startswith("    .venv/bin/python docs/tables.py")]
    commands = [shlex.split(line)[2:] for line in lines]
    assert len(commands) == 7
    for arguments in commands:
        without_figure = arguments[: arguments.index("--figure")] if "--figure" in arguments else arguments
        printed = CliRunner().invoke(main, without_figure)
        assert printed.exit_code == 0, printed.output
        assert printed.stdout in text
    unknown = CliRunner().invoke(main, ["docs/ablation.json", "--arms", "nothing"])
    assert unknown.exit_code == 2
    assert "has no arm nothing" in unknown.output


def test_together_is_what_the_default_recipe_has_past_the_paper() -> None:
    """Beside contrast over the whole image: neither more nor less."""
    default, paper = read_recipe("default"), read_recipe("paper")
    switches = {field.name for field in fields(Recipe) if type(getattr(paper, field.name)) is bool}
    past = {f"{name}=true" for name in switches if getattr(default, name) and not getattr(paper, name)}
    assert past == {*TOGETHER, "whole_contrast=true"}
    assert read_recipe("ablation", TOGETHER) != read_recipe("ablation")
    assert read_recipe("ablation", STANDARD["sjdl"].changes) == read_recipe("ablation")


def test_every_reading_differs_from_the_recipe() -> None:
    readings = [read_recipe("ablation", arm.changes) for arm in chosen("readings", ())]
    assert len({to_toml(recipe) for recipe in (read_recipe("ablation"), *readings)}) == len(readings) + 1


def test_physical_fog_goes_by_metres(built: Path) -> None:
    """t = exp(-sigma z): of two pixels the one twice as far has the square of the other's transmission."""
    changes = [*QUICK, "fog.redraw=true", "fog.preset=physical"]
    data = fvrid_tools.open_dataset(built)
    training = Domains(data, None, read_recipe("default", changes)).sets["synthetic"]
    visit = Visit(0, 5)
    batch, depth = training[visit], data.select(split="train").take([training.data.rows[0]])[0].depth
    assert batch.depth is not None
    assert depth is not None
    metres = 81.0**depth
    shared = transforms.augment(torch.from_numpy(metres / 81)[None], 32, 5, edge_padding=True)
    assert torch.allclose(batch.depth, shared.clamp(0, 1), atol=1e-4)
    assert batch.fog is not None
    visibility = np.log(20) * 81 / batch.fog[0].item()
    assert 25 <= visibility <= 150


@pytest.mark.parametrize(
    ("changes", "with_counterparts", "more"),
    [
        ((), False, "clear"),
        (("edge_padding=false",), False, "clear"),
        (("fog.redraw=true", "fog.preset=physical", "fog.noise=10", "workers=2"), False, "clear depth fog noise"),
        ((), True, "clear counterpart"),
        (STANDARD["headroom"].changes, True, ""),
        ((*STANDARD["transreid_foggy"].changes, "backbone=vit_tiny_patch16_224", "image_size=64"), False, "camera"),
    ],
)
def test_a_cache_on_the_device_gives_the_same_batches(
    built: Path, built_real: Path, counterparts: Path, changes: tuple[str, ...], with_counterparts: bool, more: str
) -> None:
    datasets = [fvrid_tools.open_dataset(path) for path in (built, built_real)]
    known = fvrid_tools.open_dataset(counterparts) if with_counterparts else None
    loaded, cached = (
        Domains(*datasets, read_recipe("default", [*QUICK, *changes, "real_every=2", *cache]), known).steps(3, 7, CPU)
        for cache in ((), ("cache=true",))
    )
    seen: set[str] = set()
    for ours, theirs in zip(loaded, cached, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            for name in one._fields if one is not None else ():
                expected, found = getattr(one, name), getattr(other, name)
                assert (expected is None) == (found is None), name
                if isinstance(expected, torch.Tensor):
                    assert torch.equal(expected, found) and expected.dtype == found.dtype, name
                assert isinstance(expected, torch.Tensor) or expected == found
                seen |= {name} if expected is not None else set()
    assert seen == {"domain", "foggy", "label", "position", *more.split()}


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])  # of a GPU, and of the CPU
def test_a_cache_that_does_not_fit_is_said(built: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    domains = Domains(fvrid_tools.open_dataset(built), None, read_recipe("default", [*QUICK, "cache=true"]))

    empty = torch.empty

    def full(*shape: Any, **options: Any) -> torch.Tensor:
        if len(shape[0]) == 4:
            raise kind("out of memory")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(ConfigError, match=r"cache=true asks for 0\.0 GB at once on cpu.*set cache=false"):
        next(domains.steps(0, 1, CPU))


def test_camera_noise_comes_after_redrawn_fog(built: Path) -> None:
    data, changes = fvrid_tools.open_dataset(built), [*QUICK, "fog.redraw=true"]
    plain, noisy = (Domains(data, None, read_recipe("default", [*changes, *more])) for more in ((), ("fog.noise=10",)))
    ((one, _),), ((other, _),) = (domains.steps(0, 1, CPU) for domains in (plain, noisy))
    assert other.noise is not None
    assert torch.equal(one.fog, other.fog)
    assert ((other.noise >= 0) & (other.noise <= 10 / 255)).all()
    torch.manual_seed(0)
    clean, found = (batch.to(torch.device("cpu")).foggy for batch in (one, other))
    for before, after, deviation in zip(clean, found, other.noise, strict=True):
        inside = (before > 0.2) & (before < 0.8)  # nothing clipped
        assert (after - before)[inside].std() == pytest.approx(deviation.item(), rel=0.1, abs=1e-3)
    torch.manual_seed(0)
    one.to(torch.device("cpu"))
    assert torch.equal(other.to(torch.device("cpu")).foggy, found)  # a step can be made again


def test_arms_of_ones_own_stand_on_others() -> None:
    (arm,) = chosen("", ("wide@baseline:fog.redraw=true,fog.preset=wide,pretrained=a,b.pth",))
    assert arm.changes == (
        *STANDARD["baseline"].changes,
        "fog.redraw=true",
        "fog.preset=wide",
        "pretrained=a,b.pth",
    )


def test_a_comparison_by_hand() -> None:
    def of(real: list[list[float]]) -> dict[str, dict[str, object]]:
        return {
            str(seed): {"mAP_synthetic": 0.6, "mAP_real": float(np.mean(aps)), "average_precision_real": aps}
            for seed, aps in enumerate(real)
        }

    results = {
        "headroom": of([[0.8, 0.6], [0.8, 0.6]]),
        "baseline": of([[0.2, 0.4], [0.4, 0.4]]),
        "better": of([[0.4, 0.6], [0.6, 0.6]]),
        "uneven": of([[0.4, 0.6], [0.8, 0.8]]),
    }
    headroom, baseline, better, uneven = compare(results)
    assert headroom.real == pytest.approx(70)
    assert baseline.real == pytest.approx(35)
    assert baseline.gain is None
    assert better.gain == pytest.approx(20)
    assert better.gain_over_seeds == pytest.approx((20, 20))
    assert better.gain_over_queries == pytest.approx((20, 20))
    assert better.recovered == pytest.approx(100 * 20 / 35)
    assert headroom.recovered == pytest.approx(100)
    assert uneven.recovered == pytest.approx(100 * 30 / 35)
    fewer = compare({**results, "headroom": {"0": results["headroom"]["0"]}})  # of seed 0 fog takes 70 - 30
    assert [line.recovered for line in fewer] == [pytest.approx(100), None, pytest.approx(50), pytest.approx(50)]
    # t of 1 degree of freedom is 12.706; the deviation of 30 and 40 is 7.071, of their mean 5
    assert over_seeds(np.array([30.0, 40.0])) == pytest.approx((35 - 63.53, 35 + 63.53), abs=0.01)
    assert over_seeds(np.array([30.0])) is None


def test_agreement_is_nought_of_twins_and_pulls_at_every_image() -> None:
    one, other = (torch.randn(4, 8, 3, 3, requires_grad=True) for _ in range(2))
    assert losses.agreement_loss(one, 2 * one.detach()).item() == pytest.approx(0, abs=1e-6)
    assert losses.agreement_loss(one, -one).item() == pytest.approx(2)
    losses.agreement_loss(one, other).backward()  # type: ignore[no-untyped-call]
    for side in (one, other):
        assert side.grad is not None
        assert (side.grad.flatten(1).norm(dim=1) > 0).all()
    with pytest.raises(ValueError, match="must agree"):
        losses.agreement_loss(one, other[:2])


def test_agreement_trains_on_the_clear_twins_and_gathers_no_statistics_of_them(built: Path) -> None:
    recipe = read_recipe("default", [*QUICK, "weights.agreement_shared=1", "weights.agreement_embedding=1"])
    plain = read_recipe("default", QUICK)
    domains = Domains(fvrid_tools.open_dataset(built), None, recipe)
    ((batch, _),) = domains.steps(0, 1, CPU)
    batch = batch.to(torch.device("cpu"))
    statistics = []
    for one in (recipe, plain):
        torch.manual_seed(0)
        net = domains.architecture.build().train()
        found = terms(net, batch, one)
        statistics.append(net.neck.running_mean.clone())
    assert torch.equal(*statistics)
    assert "agreement_shared" not in found
    found = terms(net, batch, recipe)
    assert 0 < found["agreement_shared"] < 1
    assert 0 < found["agreement_embedding"] < 1
