"""Short runs of the whole model half on images of FVRID-Mini."""

import errno
import html
import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fvrid_tools
from fvrid_tools import images
from fvrid_tools.dataset import Sample
from fvrid_tools.files import alone_in
from fvrid_tools.fog import PRESETS
from fvrid_tools.records import FvridError
from sjdl_model import inference
from sjdl_model.arms import NO_DEFOGGING
from sjdl_model.checkpoint import CHECKPOINT, load_checkpoint, read_facts, save_checkpoint
from sjdl_model.cli import cli
from sjdl_model.cli_images import enough_memory
from sjdl_model.config import IMAGE_TERMS, ConfigError, DataError, Recipe, read_recipe
from sjdl_model.data import Batch, ImageSet, TrainingSet, foggy, image_batches
from sjdl_model.domains import Domains, shared_vehicles
from sjdl_model.engine import Step, Trainer
from sjdl_model.evaluate import Embedder, TestSet, embed, evaluate_dataset
from sjdl_model.network import SJDL, WEIGHTS, SJDLOutput, load_network
from sjdl_model.objectives import reid_terms, run_network, terms, total
from sjdl_model.report import METRICS, REPORT
from sjdl_model.results import Scoring, evaluate_run
from sjdl_model.samplers import PKSampler, Steps, Visit
from sjdl_model.train import TerminatedError, _Termination, train

QUICK = [
    "backbone=test_resnet",
    "pretrained=false",
    "last_stride=2",
    "image_size=32",
    "p=3",
    "k=2",
    "steps_per_epoch=2",
    "workers=0",
]


def quick(*changes: str) -> Recipe:
    return read_recipe("default", [*QUICK, "epochs=2", *changes])


def run(built: Path, real: Path | None, folder: Path, *changes: str, resume: bool = False) -> Path:
    datasets = fvrid_tools.open_dataset(built), None if real is None else fvrid_tools.open_dataset(real)
    train(*datasets, quick(*changes), folder, resume=resume)
    return folder


@pytest.fixture(scope="module")
def trained(built: Path, built_real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(built, built_real, tmp_path_factory.mktemp("trained") / "run")


def test_a_run_leaves_what_is_promised(trained: Path) -> None:
    assert read_facts(trained)["verdict"] == json.loads((trained / METRICS).read_text().splitlines()[-1])["verdict"]
    assert {path.name for path in trained.iterdir()} >= {
        "recipe.toml",
        "metrics.jsonl",
        "checkpoint.pt",
        "weights.safetensors",
        "report.html",
        "examples-synthetic.jpg",
        "examples-real.jpg",
        "tensorboard",
    }
    assert "| data | `fvrid build-syn --src veri-wild --depth planar" in (trained / "README.md").read_text()
    assert list((trained / "tensorboard").glob("events.*"))
    lines = [json.loads(line) for line in (trained / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    reid = {f"{domain}/{term}" for domain in ("synthetic", "real") for term in ("triplet", "identity")}
    priors = {f"real/{term}" for term in ("color_entropy", "dark_channel", "total_variation", "self_constraint")}
    assert reid | priors | {"synthetic/restoration"} <= lines[0].keys()
    assert {f"synthetic/gradient/{term}" for term in ("triplet", "identity", "restoration")} <= lines[0].keys()
    assert lines[0]["images_per_second"] <= lines[0]["images_per_second_without_waiting"]
    assert lines[1]["verdict"].startswith("collapsed")  # as after four steps it must be
    report = (trained / REPORT).read_text()
    assert html.escape(lines[1]["verdict"].partition(" (")[0]) in report
    assert "log10 of the gradient at the shared stage, real" in report
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    assert events.Tags()["images"] == [f"{domain}: foggy | defogged | clear" for domain in ("synthetic", "real")]
    assert [event.step for event in events.Images(events.Tags()["images"][0])] == [1, 2]
    assert read_recipe(str(trained / "recipe.toml")) == quick()
    checkpoint = load_checkpoint(trained)
    assert checkpoint["recipe"] == (trained / "recipe.toml").read_text()
    assert len(checkpoint["git"]) >= 7


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seed_gives_the_same_weights_whatever_the_workers(
    trained: Path, built: Path, built_real: Path, tmp_path: Path, workers: int
) -> None:
    again = run(built, built_real, tmp_path / "again", f"workers={workers}")
    one, other = load_file(trained / WEIGHTS), load_file(again / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_seed_gives_others(trained: Path, built: Path, built_real: Path, tmp_path: Path) -> None:
    again = run(built, built_real, tmp_path / "again", "seed=1")
    name = "backbone.stages.conv1.0.weight"
    assert not torch.equal(load_file(trained / WEIGHTS)[name], load_file(again / WEIGHTS)[name])


def lines_of(folder: Path) -> list[dict[str, object]]:
    """metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{name: value for name, value in line.items() if "per_second" not in name} for line in lines]


def assert_came_to_the_same(folder: Path, undisturbed: Path) -> None:
    one, other = load_file(folder / WEIGHTS), load_file(undisturbed / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert lines_of(folder) == lines_of(undisturbed)


@contextmanager
def stopping_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training in here is interrupted before that step."""
    original = Trainer.step

    def stop(self: Trainer, number: int, domains: Step) -> dict[str, torch.Tensor]:
        if number == step:
            raise KeyboardInterrupt
        return original(self, number, domains)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_checkpoint_that_the_disk_does_not_take_is_an_oserror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    save_checkpoint(tmp_path, {"step": 1})
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, {"step": 2})
    assert load_checkpoint(tmp_path) == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_run_left_half_written_goes(built: Path, built_real: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    left = tmp_path / "run/checkpoint.pt.0123abcd.part"
    left.touch()
    run(built, built_real, tmp_path / "run", "epochs=1", resume=True)
    assert not left.exists()


@pytest.mark.parametrize(("step", "save_every"), [(0, 0), (1, 1), (3, 0), (3, 1), (3, 2)])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_weights(
    trained: Path,
    built: Path,
    built_real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    save_every: int,
) -> None:
    with stopping_at(step, monkeypatch):
        run(built, built_real, tmp_path / "run", f"save_every={save_every}")
    if step:
        with pytest.raises(DataError, match=r"another recipe \(lr = 0\.0001, not 0\.003\)"):
            run(built, built_real, tmp_path / "run", "lr=3e-3", resume=True)
    torch.rand(7)  # whatever state the generator of another process is in
    run(built, built_real, tmp_path / "run", resume=True)
    assert_came_to_the_same(tmp_path / "run", trained)


@pytest.mark.parametrize(
    ("step", "done", "number"),
    [
        (0, 1, signal.SIGTERM),
        (1, 2, signal.SIGTERM),
        (2, 3, signal.SIGTERM),
        (3, 4, signal.SIGTERM),
        (2, 3, signal.SIGINT),
    ],
)
def test_a_run_terminated_at_any_step_loses_nothing(
    trained: Path,
    built: Path,
    built_real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    done: int,
    number: int,
) -> None:
    original = Trainer.step

    def terminated(self: Trainer, at: int, domains: Step) -> dict[str, torch.Tensor]:
        if at == step:
            signal.raise_signal(number)
        return original(self, at, domains)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", terminated)
        with pytest.raises(TerminatedError, match=f"stopped after step {done}"):
            run(built, built_real, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")["step"] == done
    run(built, built_real, tmp_path / "run", resume=True)
    assert_came_to_the_same(tmp_path / "run", trained)


def test_the_scale_of_float16_gradients_is_kept(
    built: Path, built_real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["precision=float16", *NO_DEFOGGING]  # which would take most of the time
    whole = run(built, built_real, tmp_path / "whole", *changes)
    with stopping_at(1, monkeypatch):
        run(built, built_real, tmp_path / "stopped", *changes, "save_every=1")
    assert load_checkpoint(tmp_path / "stopped")["scaler"] != torch.amp.GradScaler("cpu").state_dict()
    resumed = run(built, built_real, tmp_path / "stopped", *changes, resume=True)
    one, other = load_file(whole / WEIGHTS), load_file(resumed / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_another_version_is_named(trained: Path, built: Path, built_real: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    del state["step"]
    save_checkpoint(tmp_path / "run", state)
    with pytest.raises(DataError, match="not a checkpoint of this version"):
        run(built, built_real, tmp_path / "run", resume=True)


def test_dropout_is_drawn_again_after_a_stop(
    built: Path, built_real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is random in the network follows from seed and step."""
    original = SJDL.forward

    def forward(self: SJDL, *arguments: object, **options: object) -> SJDLOutput:
        out = original(self, *arguments, **options)  # type: ignore[arg-type]
        return out._replace(feature=torch.nn.functional.dropout(out.feature, 0.5, self.training))

    monkeypatch.setattr(SJDL, "forward", forward)
    compared = "unit_triplet=false"  # by the feature, which is dropped, not the embedding
    whole = run(built, built_real, tmp_path / "whole", compared)
    with stopping_at(2, monkeypatch):
        run(built, built_real, tmp_path / "stopped", compared)
    resumed = run(built, built_real, tmp_path / "stopped", compared, resume=True)
    one, other = load_file(whole / WEIGHTS), load_file(resumed / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_is_not_overwritten(trained: Path, built: Path) -> None:
    with pytest.raises(DataError, match="already holds a run"):
        run(built, None, trained)


def test_a_finished_run_without_its_checkpoint_is_not_trained_again(
    trained: Path, built: Path, built_real: Path, tmp_path: Path
) -> None:
    finished = Path(shutil.copytree(trained, tmp_path / "run"))
    (finished / CHECKPOINT).unlink()
    with pytest.raises(DataError, match=r"run is finished, and its checkpoint\.pt is gone"):
        run(built, built_real, finished, resume=True)
    for name in (WEIGHTS, METRICS):
        assert (finished / name).read_bytes() == (trained / name).read_bytes()


def test_one_process_trains_in_a_folder(trained: Path, built: Path, built_real: Path) -> None:
    with alone_in(trained), pytest.raises(FvridError, match="another process is at work here"):
        run(built, built_real, trained, resume=True)


def test_weights_that_learned_no_defogging_do_not_defog(built: Path, tmp_path: Path) -> None:
    """Nor do their pages show what an untrained branch paints."""
    image_terms = [f"weights.{name}=0" for name in IMAGE_TERMS]
    folder = run(built, None, tmp_path / "run", "epochs=1", *image_terms)
    assert not SJDL.from_pretrained(folder).defogs
    assert "foggy | defogged" not in (folder / REPORT).read_text()
    shown = images.decode((folder / "examples-synthetic.jpg").read_bytes())
    assert shown.shape[1] == 3 * 32 + 2 * 6  # clear, depth, foggy
    data = fvrid_tools.open_dataset(built)
    with pytest.raises(DataError, match="trained without defogging"):
        evaluate_run(folder, data, "defogged")
    with pytest.raises(DataError, match="trained without defogging"):
        inference.defog_image(SJDL.from_pretrained(folder), data[0].foggy)
    with pytest.raises(DataError, match="trained without defogging"):
        inference.embed_images(SJDL.from_pretrained(folder), [], 32, defog=True)
    assert Domains(data, None, quick()).architecture.defogs
    unsupervised = quick("weights.restoration=0")
    assert not Domains(data, None, unsupervised).architecture.defogs  # of synthetic images it has no term


def test_too_little_memory_is_a_sentence(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr(Trainer, "step", full)
    changes = [part for change in QUICK for part in ("--set", change)]
    done = CliRunner().invoke(cli, ["train", "--data", str(built), *changes, "--run", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert "Tried to allocate 2.00 GiB; lower p, k or image_size, or set precision=bfloat16." in done.output
    assert "Traceback" not in done.output


def test_a_loaders_lack_of_memory_is_said_too() -> None:
    """Its own words come last, behind a traceback."""
    text = (
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback:\nRuntimeError: can't allocate memory"
    )
    with (
        pytest.raises(click.ClickException, match="RuntimeError: can't allocate memory; lower p"),
        enough_memory("lower p"),
    ):
        raise RuntimeError(text)


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    """As of a script's command in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _Termination() as termination:
            signal.raise_signal(signal.SIGINT)
        assert not termination.asked
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "words",
    ["CUDA error: an illegal memory access", "DataLoader worker (pid 3) is killed by signal: Segmentation fault."],
)
def test_what_is_no_lack_of_memory_is_not_hidden(words: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(words)), enough_memory("lower p"):
        raise RuntimeError(words)


def test_weights_give_the_same_scores_in_a_fresh_network(trained: Path, built: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    first = evaluate_run(trained, data)
    net, architecture = load_network(trained / WEIGHTS)
    second = evaluate_dataset(Embedder(net=net, size=architecture.image_size), TestSet(data))
    assert replace(first, trained_on="", trained_on_sha256="", weights_sha256="") == second
    assert first.trained_on.splitlines()[0] == data.info["command"]
    assert first.trained_on_sha256 == read_facts(trained)["data"]
    assert "foggy images; a random image of each test vehicle is the query" in first.protocol
    assert "3 of 3 queries" in first.protocol
    stored = json.loads((trained / "eval-synthetic-foggy.json").read_text())
    assert stored == json.loads(json.dumps(first.to_json()))
    assert f"{100 * first.scores['mAP']:.2f}" in (trained / REPORT).read_text()


@pytest.mark.parametrize("condition", ["clear", "defogged"])
def test_other_conditions_are_other_images(trained: Path, built: Path, condition: str) -> None:
    net, _ = load_network(trained / WEIGHTS)
    test, embedder = TestSet(fvrid_tools.open_dataset(built)), Embedder(net=net, size=32)
    result = evaluate_dataset(embedder, test, condition)
    assert result.images == result.gallery_images == condition
    assert 0 < result.scores["mAP"] <= 1
    assert not np.allclose(embedder(test.data, condition), embedder(test.data, "foggy"), atol=1e-3)


def test_real_images_have_no_clear_ones(trained: Path, built_real: Path) -> None:
    net, _ = load_network(trained / WEIGHTS)
    with pytest.raises(DataError, match="has no clear images"):
        evaluate_dataset(Embedder(net=net, size=32), TestSet(fvrid_tools.open_dataset(built_real)), "clear")


def test_vehicles_that_one_dataset_trains_on_and_the_other_tests_are_named(built: Path, built_real: Path) -> None:
    data, real = (fvrid_tools.open_dataset(path) for path in (built, built_real))
    assert shared_vehicles(data, None) == shared_vehicles(data, real) == ""  # of other sources
    known = sorted({row.identity for row in data.rows if row.split == "train"})
    tested = real.select(split="query").rows
    leaking = [row._replace(source=source, vehicle_id=name) for row, (source, name) in zip(tested, known, strict=False)]
    assert len({row.identity for row in leaking}) == len(tested) > 1
    said = shared_vehicles(data, real.take(leaking))
    assert said.startswith(f"{len(tested)} vehicles that {built} trains on are tested in {built_real} (such as ")
    assert shared_vehicles(real.take(leaking), data) == said
    assert shared_vehicles(data, real.take([row._replace(split="train") for row in leaking])) == ""


def test_without_weights_of_the_image_terms_no_firm_is_run(built: Path) -> None:
    recipe = quick("weights.restoration=0")
    training = TrainingSet.of(fvrid_tools.open_dataset(built), 32)
    from sjdl_model.data import training_batches

    net = SJDL(training.num_vehicles, 0, "resnet18")
    del net.firm
    (batch,) = training_batches(training, Steps(PKSampler(training.labels, 3, 2, 0), [0]), 0, pin=False)
    found = terms(net, batch.to(torch.device("cpu")), recipe)
    assert found.keys() == {"triplet", "identity"}
    assert total(found, recipe.weights).item() == pytest.approx(sum(term.item() for term in found.values()))


def test_triplets_of_unit_embeddings_are_those_of_angles() -> None:
    """By hand: two vehicles of two images each, in the plane; a chord of an angle a is 2 sin(a / 2)."""
    angles, lengths = torch.tensor([0.0, 60, 90, 180]).deg2rad(), torch.tensor([1.0, 5, 0.1, 20])
    embedding = (torch.stack([angles.cos(), angles.sin()], dim=1) * lengths[:, None]).requires_grad_()
    nothing = torch.zeros(4, 2)
    out = SJDLOutput(
        feature=nothing, embedding=embedding, logits_synthetic=nothing, logits_real=None, defogged=None, shared=nothing
    )
    batch = Batch("synthetic", nothing, torch.tensor([0, 0, 1, 1]), torch.arange(4))
    (loss,) = reid_terms(out, batch, quick("unit_triplet=true", "weights.identity=0", "margin=1")).values()
    chord = {a: 2 * np.sin(np.deg2rad(a / 2)) for a in (30, 60, 90, 120)}
    hinges = [  # farthest of the same vehicle, nearest of the other
        chord[60] - chord[90] + 1,
        chord[60] - chord[30] + 1,
        chord[90] - chord[30] + 1,
        chord[90] - chord[120] + 1,
    ]
    assert loss.item() == pytest.approx(np.mean(hinges), abs=1e-6)
    loss.backward()
    assert embedding.grad is not None
    assert (embedding.grad.norm(dim=1) > 0).all()  # every image is taught
    assert torch.allclose((embedding.grad * embedding).sum(dim=1), torch.zeros(4), atol=1e-6)  # and none to be shorter


def test_fog_drawn_anew_is_add_fog_and_another_at_every_visit(built: Path) -> None:
    from sjdl_model.data import training_batches

    data = fvrid_tools.open_dataset(built)
    stored, redrawn = (TrainingSet.of(data, 64, fog) for fog in (None, PRESETS["paper"]))
    sampler = PKSampler(stored.labels, 3, 2, 0)
    (old,), (new,) = (training_batches(training, Steps(sampler, [0]), 0, pin=False) for training in (stored, redrawn))
    assert torch.equal(old.clear, new.clear)
    assert not torch.equal(old.foggy, old.clear)
    assert torch.equal(new.foggy, new.clear)  # the stored fog was not decoded
    draws = new.fog.numpy()
    assert ((draws >= [0.4, 0.5]) & (draws <= [1.6, 1])).all()
    assert len({tuple(draw) for draw in draws.tolist()}) == 6
    batch = new.to(torch.device("cpu"))
    for i, (beta, airlight) in enumerate(draws):
        clear, depth = new.clear[i].permute(1, 2, 0).numpy() / 255, new.depth[i, 0].numpy()
        expected = fvrid_tools.add_fog(clear, depth, beta, airlight)
        assert abs(batch.foggy[i].permute(1, 2, 0).numpy() - expected).max() < 1e-5
    # with the stored beta and A it is the stored fog, up to JPEG and resizing
    rows = [redrawn.data.rows[position] for position in new.position]
    again = new._replace(fog=torch.tensor([(row.beta, row.airlight) for row in rows])).to(torch.device("cpu"))
    assert (again.foggy - old.to(torch.device("cpu")).foggy).abs().mean() < 0.02


def test_what_is_trained_on_is_said(built: Path, built_real: Path) -> None:
    data, real = fvrid_tools.open_dataset(built), fvrid_tools.open_dataset(built_real)
    assert str(Domains(data, real, quick())).splitlines() == [
        f"synthetic: 36 images of 9 vehicles of veri-wild in {built}",
        f"real: 36 images of 9 vehicles of folder in {built_real}",
    ]
    alone = str(Domains(data, None, quick(*NO_DEFOGGING, "images=clear")))
    assert alone == f"synthetic: 36 clear images of 9 vehicles of veri-wild in {built}"


@pytest.mark.parametrize(
    ("changes", "beside"),
    [((), True), (NO_DEFOGGING, False), ((*NO_DEFOGGING, "weights.agreement_embedding=1"), True)],
)
def test_clear_images_are_decoded_where_a_loss_looks_at_them(
    built: Path, built_real: Path, changes: tuple[str, ...], beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: set[str] = set()
    decode = Sample._decode

    def noted(self: Sample, column: str) -> np.ndarray:
        decoded.add(column)
        return decode(self, column)

    monkeypatch.setattr(Sample, "_decode", noted)
    data, real = fvrid_tools.open_dataset(built), fvrid_tools.open_dataset(built_real)
    ((synthetic, of_real),) = Domains(data, real, quick(*changes)).steps(0, 1, torch.device("cpu"))
    assert of_real is not None
    assert (synthetic.domain, of_real.domain) == ("synthetic", "real")
    assert (synthetic.clear is not None) == beside
    assert of_real.clear is None
    assert decoded == ({"foggy", "clear"} if beside else {"foggy"})
    decoded.clear()
    list(Domains(data, None, quick(*changes, "fog.redraw=true")).steps(0, 1, torch.device("cpu")))
    assert decoded == {"clear"}


def test_crops_of_both_domains_go_on_with_the_edge(built: Path, built_real: Path) -> None:
    data, real = fvrid_tools.open_dataset(built), fvrid_tools.open_dataset(built_real)
    changes = "fog.redraw=true", "image_size=64"
    black, edge = (Domains(data, real, quick(*changes, f"edge_padding={on}")) for on in ("false", "true"))
    for domain in ("synthetic", "real"):
        for seed in range(6):
            ours, other = (found.sets[domain][Visit(0, seed)] for found in (edge, black))
            for name in ("foggy", "clear", "depth"):
                image = getattr(ours, name)
                if image is None:
                    assert domain == "real"
                    continue
                moved = (other.foggy == 0).all(dim=0)[None].expand_as(image)
                assert torch.equal(image[~moved], getattr(other, name)[~moved])
                assert not moved.any() or image[moved].float().mean() > 0.01
        visits = [black.sets[domain][Visit(0, seed)].foggy for seed in range(6)]
        assert any((visit[:, 0] == 0).all() for visit in visits)  # some had a black row above


def test_training_with_fog_drawn_anew_runs(trained: Path, built: Path, built_real: Path, tmp_path: Path) -> None:
    again = run(built, built_real, tmp_path / "run", "fog.redraw=true")
    name = "backbone.stages.conv1.0.weight"
    assert not torch.equal(load_file(trained / WEIGHTS)[name], load_file(again / WEIGHTS)[name])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_images(
    built: Path, built_real: Path, tmp_path: Path
) -> None:
    with pytest.raises(FloatingPointError, match=r"loss of step 1 is not finite .*not-finite.json names its images"):
        run(built, built_real, tmp_path / "run", "lr=1e30", "steps_per_epoch=6")
    found = json.loads((tmp_path / "run/not-finite.json").read_text())
    assert found["step"] == 1
    training, _ = TrainingSet.of(fvrid_tools.open_dataset(built), 32).hold_out()
    visits = PKSampler(training.labels, 3, 2, 0).batch(1)
    assert found["image_ids"]["synthetic"] == [training.data.rows[visit.image].image_id for visit in visits]
    assert len(found["image_ids"]["real"]) == 6
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_weights_that_the_last_update_broke_are_not_saved(built: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        run(built, None, tmp_path / "run", "lr=1e30", "steps_per_epoch=1", "epochs=1", "fog.redraw=false")
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_a_run_that_could_not_begin_leaves_no_folder(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such model"):
        run(built, None, tmp_path / "run", "backbone=resnet81")
    assert not (tmp_path / "run").exists()


def test_an_unsplit_dataset_says_what_to_do(laid_out: Path, tmp_path: Path, recipe: object) -> None:
    from fvrid_tools.build import build
    from fvrid_tools.sources import read_source

    build([read_source("veri-wild", laid_out / "clear")], tmp_path / "out", recipe)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="run fvrid split"):
        run(tmp_path / "out", None, tmp_path / "run")


def test_a_checkpoint_of_another_kind_is_refused_and_never_unpickled(trained: Path, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "owned"),)  # type: ignore[return-value]

    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="not a checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(DataError, match="not a checkpoint"):
        load_checkpoint(tmp_path)
    with pytest.raises(DataError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.slow
def test_training_on_real_photographs_beats_an_untrained_network(real_images: Path, tmp_path: Path) -> None:
    from fvrid_tools.build import Recipe as BuildRecipe
    from fvrid_tools.build import build
    from fvrid_tools.depth import open_estimator
    from fvrid_tools.fog import PRESETS
    from fvrid_tools.sources import read_source
    from fvrid_tools.split import write_split

    made = BuildRecipe(depth=open_estimator("planar"), fog=PRESETS["paper"])
    assert build([read_source("veri-wild", real_images)], tmp_path / "syn", made).images == 840
    write_split(tmp_path / "syn", seed=0)
    changes = ("image_size=64", "p=16", "k=2", "lr=7e-4", "steps_per_epoch=19", "weights.restoration=0")
    scores = {}
    for epochs in (0, 8):
        folder = run(tmp_path / "syn", None, tmp_path / str(epochs), *changes, f"epochs={epochs}")
        data = fvrid_tools.open_dataset(tmp_path / "syn")
        result = evaluate_run(folder, data)
        scores[epochs] = result.scores["mAP"]
    assert scores[8] > scores[0] + 0.05


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_short_numbers_are_of_products_only(trained: Path, precision: str) -> None:
    net, _ = load_network(trained / "weights.safetensors")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, near = (run_network(net, images, True, kind) for kind in ("float32", precision))
    for name, a, b in zip(exact._fields, exact, near, strict=True):
        assert a.dtype == torch.float32, name
        assert b.dtype == torch.float32 or name == "shared", name
        assert 0 < (a - b).norm() < 0.05 * a.norm(), name
    assert near.defogged is not None
    assert len(near.defogged.unique()) > 0.9 * near.defogged.numel()  # of 16 bits, neighbours would be alike
    near.feature.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_every_precision_trains(trained: Path, built: Path, built_real: Path, tmp_path: Path, precision: str) -> None:
    again = lines_of(run(built, built_real, tmp_path / "run", f"precision={precision}"))
    for line, exact in zip(again, lines_of(trained), strict=True):
        assert line["synthetic/identity"] == pytest.approx(exact["synthetic/identity"], rel=0.05)
    assert (again == lines_of(trained)) == (precision == "tf32")  # which is float32 on the CPU


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler on the CPU")
@pytest.mark.filterwarnings("default")  # torch warns of its own while it traces
def test_a_compiled_network_trains_to_the_same_weights(built: Path, built_real: Path, tmp_path: Path) -> None:
    compiled, plain, untrained = (
        load_file(run(built, built_real, tmp_path / name, "image_size=64", *changes) / WEIGHTS)
        for name, changes in (("run", ["compile=true"]), ("plain", []), ("begun", ["epochs=0"]))
    )
    assert compiled.keys() == plain.keys()
    for name in ("backbone.stages.conv1.0.weight", "firm.enhance.out.weight"):
        learned = (plain[name] - untrained[name]).norm()
        assert (compiled[name] - plain[name]).norm() < 0.1 * learned


@pytest.mark.parametrize("cameras", [True, False])
def test_every_test_image_can_be_a_query(trained: Path, built: Path, cameras: bool) -> None:
    """Against a ranking of our own: an image never finds itself, nor its vehicle in the same camera's images."""
    whole = fvrid_tools.open_dataset(built)
    rows = [row for row in whole.rows if row.split in ("query", "gallery")]
    data = whole.take(rows if cameras else [row._replace(camera_id=None) for row in rows])
    net, architecture = load_network(trained / "weights.safetensors")
    size = architecture.image_size
    result = evaluate_dataset(Embedder(net=net, size=size), TestSet(data, queries="all"))

    batches = image_batches(ImageSet(data, size, foggy), 64, 0, torch.device("cpu"))
    found = embed(net, batches, len(data)).astype(np.float64)
    precisions = []
    for i, query in enumerate(data.rows):
        order = np.argsort(np.linalg.norm(found - found[i], axis=1))
        order = [j for j in order if j != i]
        if cameras:
            order = [j for j in order if (rows[j].identity, rows[j].camera_id) != (query.identity, query.camera_id)]
        hits = [rank for rank, j in enumerate(order) if rows[j].identity == query.identity]
        if hits:
            precisions.append(np.mean([(n + 1) / (rank + 1) for n, rank in enumerate(hits)]))
    assert result.scores["mAP"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert (result.queries, result.gallery) == (len(rows), len(rows))
    assert "every test image is a query" in result.protocol
    assert ("camera-aware" in result.protocol) == cameras


def test_scores_of_all_queries_are_kept_by_themselves(trained: Path, built: Path) -> None:
    data = fvrid_tools.open_dataset(built)
    evaluate_run(trained, data, scoring=Scoring(queries="all"))
    assert (trained / "eval-synthetic-foggy-all-queries.json").exists()
