"""Samplers, transforms, schedule, recipes: the parts of training that need no network."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sjdl_model import transforms
from sjdl_model.config import ConfigError, Recipe, Weights, from_dict, read_recipe, same_run, to_toml
from sjdl_model.samplers import PKSampler, Steps
from sjdl_model.schedule import in_warmup, lr_factor

MANIFESTS = Path(__file__).parents[1] / "manifests"


@given(
    st.lists(st.integers(1, 7), min_size=3, max_size=12),
    st.integers(2, 3),
    st.integers(2, 5),
    st.integers(0, 9),
)
def test_batches_are_p_vehicles_with_k_images(images: list[int], p: int, k: int, seed: int) -> None:
    labels = [label for label, count in enumerate(images) for _ in range(count)]
    sampler = PKSampler(labels, p, k, seed)
    for step in range(10):
        found = Counter(labels[visit.image] for visit in sampler.batch(step))
        assert len(found) == p
        assert set(found.values()) == {k}


def test_all_images_come_up_equally_often() -> None:
    labels = [label for label in range(6) for _ in range(4)]
    sampler = PKSampler(labels, p=3, k=2, seed=0)
    visits = Counter(visit.image for step in range(40) for visit in sampler.batch(step))
    assert set(visits.values()) == {10}  # 240 visits of 24 images


def test_steps_are_repeatable_and_differ() -> None:
    labels = [label for label in range(6) for _ in range(4)]
    assert PKSampler(labels, 3, 2, 0).batch(7) == PKSampler(labels, 3, 2, 0).batch(7)
    assert PKSampler(labels, 3, 2, 0).batch(7) != PKSampler(labels, 3, 2, 1).batch(7)
    assert PKSampler(labels, 3, 2, 0).batch(7) != PKSampler(labels, 3, 2, 0).batch(8)


def test_too_few_vehicles_is_said() -> None:
    with pytest.raises(ValueError, match="2 vehicles to train on are fewer than p = 3"):
        PKSampler([0, 0, 1], 3, 2, 0)


def test_a_scene_has_one_geometry() -> None:
    image = torch.randint(0, 256, (3, 50, 70)).float()  # not uint8, whose rounding would hide a pixel's shift
    for seed in range(20):
        pair = transforms.augment(torch.cat([image, 255 - image]), 64, seed)
        assert pair.shape == (6, 64, 64)
        both = pair[:3] + pair[3:]  # 255, and 0 in the padding
        assert (torch.minimum(both, (both - 255).abs()) < 1e-3).all()
        assert torch.equal(pair, transforms.augment(torch.cat([image, 255 - image]), 64, seed))
    assert not torch.equal(transforms.augment(image, 64, 0), transforms.augment(image, 64, 1))


def test_crops_go_on_with_the_edge() -> None:
    image = torch.randint(1, 256, (3, 64, 64), dtype=torch.uint8)
    moved = 0
    for seed in range(20):
        black, edge = (transforms.augment(image, 64, seed, edge) for edge in (False, True))
        assert edge.dtype == torch.uint8
        seen = black.amin(dim=0) > 0  # of the image itself
        rows, columns = (seen.any(dim=dim).nonzero()[:, 0] for dim in (1, 0))
        inner = black[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        around = int(columns[0]), 63 - int(columns[-1]), int(rows[0]), 63 - int(rows[-1])
        expected = torch.nn.functional.pad(inner.float(), around, mode="replicate")
        assert torch.equal(edge.float(), expected)
        moved += any(around)
    assert moved > 15


def test_augmentation_flips_half_and_shifts_by_ten() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64).contiguous() + 100
    made = [transforms.augment(ramp, 64, seed)[0, 32].tolist() for seed in range(400)]
    flipped = [row[20] > row[40] for row in made]
    assert 160 < sum(flipped) < 240
    shifts = {row[32] - 132 for row, flip in zip(made, flipped, strict=True) if not flip}
    assert shifts == set(range(-10, 11))


def test_the_published_schedule_at_120_epochs() -> None:
    steps = 50

    def rate(epoch: int) -> float:
        return 1e-4 * lr_factor((epoch - 1) * steps + 3, 120 * steps)

    assert rate(1) == pytest.approx(1.09e-5)
    assert rate(10) == rate(19) == pytest.approx(1e-4)
    decays = (20, 30, 45, 60, 75, 90, 105, 120)
    for count, epoch in enumerate(decays, start=1):
        assert rate(epoch) == pytest.approx(1e-4 * 0.6**count)
        assert rate(epoch - 1) == pytest.approx(1e-4 * 0.6 ** (count - 1))


def test_short_runs_go_through_the_same_schedule() -> None:
    factors = [lr_factor(step, 240) for step in range(240)]
    assert factors[0] == pytest.approx(0.109)
    assert max(factors) == 1
    assert factors[-1] == pytest.approx(0.6**8)
    assert lr_factor(0, 1) > 0


@pytest.mark.parametrize("name", ["paper", "release", "default"])
def test_recipes_are_read_and_written(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    (tmp_path / "again.toml").write_text(to_toml(recipe))
    assert read_recipe(str(tmp_path / "again.toml")) == recipe


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    """TOML takes no surrogates, as JSON writes what lies beyond U+FFFF."""
    recipe = read_recipe("default", ['pretrained=\U0001f697 \\é".pth'])
    (tmp_path / "again.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert read_recipe(str(tmp_path / "again.toml")).pretrained == '\U0001f697 \\é".pth'


def test_the_paper_is_the_default_of_every_key() -> None:
    assert read_recipe("paper") == Recipe()
    weights = Weights()
    assert (weights.restoration, weights.dark_channel, weights.total_variation, weights.self_constraint) == (
        1,
        1e-5,
        1e-5,
        300,
    )


def test_changes_by_key() -> None:
    changes = [
        "epochs=3",
        "weights.triplet=0",
        "pretrained=false",
        "backbone=resnet18",
        "weights.dark_channel=1e-6",
    ]
    recipe = read_recipe("paper", changes)
    assert (recipe.epochs, recipe.weights.triplet, recipe.pretrained, recipe.backbone) == (
        3,
        0.0,
        False,
        "resnet18",
    )
    assert recipe.weights.dark_channel == 1e-6
    assert read_recipe("paper", ["pretrained=weights.pth"]).pretrained == "weights.pth"


def test_bases_may_have_bases_but_lead_in_no_circle(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "jdl"\nlr = 0.5\n[weights]\ntriplet = 2\n')
    (tmp_path / "b.toml").write_text(f'base = "{tmp_path / "a.toml"}"\nmargin = 0.7\n')
    recipe, jdl = read_recipe(str(tmp_path / "b.toml")), read_recipe("jdl")
    assert recipe == replace(jdl, lr=0.5, margin=0.7, weights=replace(jdl.weights, triplet=2))
    (tmp_path / "c.toml").write_text(f'base = "{tmp_path / "c.toml"}"\n')
    with pytest.raises(ConfigError, match="leads in a circle"):
        read_recipe(str(tmp_path / "c.toml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("epoch=3", "did you mean epochs"),
        ("weights.triplt=3", r"did you mean weights\.triplet"),
        ("epochs=three", "is not int"),
        ("epochs=true", "is not int"),
        ("epochs", "KEY=VALUE"),
        ("image_size=100", "multiple of 32"),
        ("shared_stage=6", "2 to 5"),
        ("weights=3", "table"),
        ("fog.redrawn=true", r"did you mean fog\.redraw"),
        ("epochs.x=1", "is not a table"),
        ("restoration_norm=l3", "one of"),
        ("seed=-1", "seed must be"),
        ("seed=99999999999999999999", "seed must be"),
        ("lr=-1", "not negative"),
        ("lr=nan", "finite"),
        ("weights.dark_channel=-1", "not negative"),
        ("label_smoothing=2", r"\[0, 1\)"),
    ],
)
def test_a_misspelt_key_or_value_is_an_error(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_recipe("paper", [change])


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("a = = 3")
    with pytest.raises(ConfigError, match=r"x\.toml: not a recipe"):
        read_recipe(str(tmp_path / "x.toml"))
    with pytest.raises(ConfigError, match="somewhere"):
        from_dict({"nothing": np.pi}, "somewhere")


def test_a_recipe_says_in_what_it_differs_from_its_base(tmp_path: Path) -> None:
    default = read_recipe("default")
    off = {
        "baseline": {"restoration", "color_entropy", "dark_channel", "total_variation", "self_constraint"},
        "jdl": {"color_entropy", "dark_channel", "total_variation", "self_constraint"},
        "sjdl-no-sc": {"self_constraint"},
    }
    for name, terms in off.items():
        arm = read_recipe(name)
        assert arm == replace(default, weights=replace(default.weights, **dict.fromkeys(terms, 0.0))), name
    (tmp_path / "mine.toml").write_text('base = "defualt"\n')
    with pytest.raises(ConfigError, match="no such recipe"):
        read_recipe(str(tmp_path / "mine.toml"))


def test_where_a_run_is_computed_may_change_what_it_computes_may_not() -> None:
    recipe = read_recipe("default")
    assert same_run(recipe, replace(recipe, workers=7, device="cuda:1", compile=True, save_every=50))
    assert not same_run(recipe, replace(recipe, lr=2e-4))
    assert not same_run(recipe, replace(recipe, weights=replace(recipe.weights, triplet=2.0)))
    assert not same_run(recipe, replace(recipe, precision="bfloat16"))


@given(st.integers(1, 4), st.integers(0, 30))
def test_processes_share_a_batch_without_overlap(count: int, step: int) -> None:
    sampler = PKSampler([label for label in range(30) for _ in range(5)], 12, 3, 0)
    parts = [next(iter(Steps(sampler, [step], rank, count))) for rank in range(count)]
    assert [visit for part in parts for visit in part] == sampler.batch(step)
    assert {len(part) for part in parts} == {36 // count}


def test_the_rate_rises_for_the_first_epochs_of_120() -> None:
    assert [in_warmup(step, 240) for step in (0, 17, 18, 239)] == [True, True, False, False]
