"""The watched images: quality in numbers and words, and the pull of each term."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import fvrid_tools
from sjdl_model import SJDL, watch
from sjdl_model.config import Recipe, Weights, read_recipe
from sjdl_model.data import Batch, TrainingSet


@pytest.fixture(scope="module")
def batch(built: Path) -> Batch:
    return watch.pairs(TrainingSet.of(fvrid_tools.open_dataset(built), 64)).to(torch.device("cpu"))


def test_four_vehicles_with_two_images_each(batch: Batch) -> None:
    assert batch.foggy.shape == (8, 3, 64, 64)
    assert batch.label.bincount()[batch.label.unique()].tolist() == [2, 2, 2, 2]
    assert batch.label.min() == 0
    assert len(set(batch.position.tolist())) == 8


def training_set(built: Path, counts: tuple[int, ...]) -> TrainingSet:
    """Vehicles with so many images each; the pictures are of no matter."""
    data = fvrid_tools.open_dataset(built)
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return TrainingSet(data.take([data.rows[0]._replace(image_id=str(i)) for i in range(len(labels))]), labels, 64)


@pytest.mark.parametrize("counts", [(4,) * 200, (2,) * 392 + (1, 3, 3, 3, 3, 3, 3, 3, 3)])
def test_validation_images_are_held_out_and_every_vehicle_keeps_a_pair(built: Path, counts: tuple[int, ...]) -> None:
    whole = training_set(built, counts)
    rest, held = whole.hold_out()
    names = [{row.image_id for row in part.data.rows} for part in (whole, rest, held)]
    assert names[1] | names[2] == names[0]
    assert not names[1] & names[2]
    assert len(held) == len(set(held.labels)) == 8
    assert min(counts[label] for label in held.labels) >= 3
    assert rest.num_vehicles == whole.num_vehicles
    for part in (rest, held):
        assert [whole.labels[int(row.image_id)] for row in part.data.rows] == part.labels


@pytest.mark.parametrize(
    ("counts", "looked_at"), [((4,) * 199, 8), ((2,) * 400, 8), ((100,) * 7 + (2,) * 99, 8), ((1, 5), 2)]
)
def test_a_set_that_can_spare_none_gives_none_away(built: Path, counts: tuple[int, ...], looked_at: int) -> None:
    whole = training_set(built, counts)
    rest, seen = whole.hold_out()
    assert rest.labels == whole.labels
    assert len(seen) == len(set(seen.labels)) == looked_at


def test_psnr_and_correlation_by_hand() -> None:
    truth = torch.zeros(2, 3, 4, 4)
    image = truth.clone()
    image[0] += 0.1  # error 0.01: 20 dB
    image[1] += 0.01  # 40 dB
    assert watch.psnr(image, truth) == pytest.approx(30, abs=1e-3)
    ramp = torch.linspace(0, 1, 48).view(1, 3, 4, 4)
    assert watch.correlation(0.2 + 0.5 * ramp, ramp) == pytest.approx(1)
    assert watch.correlation(1 - ramp, ramp) == pytest.approx(-1)
    noise = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = np.corrcoef(noise.flatten(), ramp.flatten())[0, 1]
    assert watch.correlation(noise, ramp) == pytest.approx(expected, abs=1e-6)
    assert watch.correlation(torch.full_like(ramp, 0.3), ramp) == pytest.approx(0)


def magenta_ramp(batch: Batch) -> torch.Tensor:
    """What the unsupervised terms make of every image where nothing holds them: no green, all levels of the rest."""
    ramp = torch.linspace(0, 1, 64).expand(8, 64, 64)
    return torch.stack([ramp, torch.zeros_like(ramp), ramp], dim=1)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (lambda batch: batch.clear, "defogs"),
        (lambda batch: 0.5 * batch.clear + 0.5 * batch.foggy, "defogs"),
        (magenta_ramp, "collapsed"),
        (lambda batch: torch.full_like(batch.clear, 0.4), "collapsed"),
        (lambda batch: batch.clear * torch.nan, "collapsed"),
        (lambda batch: batch.foggy + 0.01, "copies the fog"),
        (lambda batch: batch.foggy.sqrt() * 0.5 + 0.5, "no gain"),
    ],
)
def test_a_verdict_names_what_became_of_the_defogger(batch: Batch, output: object, words: str) -> None:
    found = watch.quality(output(batch), batch)  # type: ignore[operator]
    assert watch.verdict(found).startswith(words)


def test_gradients_are_those_of_the_shared_weights(batch: Batch) -> None:
    """Against a backward pass of each term alone; stages behind the shared one have no say."""
    torch.manual_seed(0)
    net = SJDL(9, 0, "resnet18", last_stride=1)
    recipe = Recipe(weights=Weights(restoration=0.5, triplet=2.0))
    found = watch.gradients(net, batch, recipe)
    assert found.keys() == {"triplet", "identity", "restoration"}
    assert all(p.grad is None for p in net.parameters())
    from sjdl_model.objectives import terms

    for name, weight in (("triplet", 2.0), ("identity", 1.0), ("restoration", 0.5)):
        net.zero_grad()
        (weight * terms(net.eval(), batch, recipe)[name]).backward()  # type: ignore[no-untyped-call]
        shared = [
            p.grad for key, p in net.backbone.stages.named_parameters() if key.startswith(("conv1", "bn1", "layer1"))
        ]
        size = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in shared))
        assert found[name] == pytest.approx(size, rel=1e-4)
        assert size > 0


@pytest.mark.parametrize("backbone", ["convnext_atto", "regnetx_002"])
def test_shared_weights_are_found_in_any_backbone(backbone: str) -> None:
    net = SJDL(9, 0, backbone)
    shared = watch._shared_parameters(net, torch.rand(1, 3, 64, 64))
    assert 0 < len(shared) < len(list(net.backbone.parameters()))


def test_a_look_changes_nothing(built: Path) -> None:
    rest, held = TrainingSet.of(fvrid_tools.open_dataset(built), 32).hold_out()
    recipe = read_recipe("demo", ["image_size=32"])
    net = SJDL(9, 0, "resnet18")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    eyes = watch.Watch({"synthetic": rest}, {"synthetic": held}, recipe, torch.device("cpu"))
    numbers, pictures = eyes.look(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert numbers == eyes.look(net)[0]
    assert pictures["synthetic"].shape == (8 * 32, 3 * 32, 3)
    assert numbers["defogging/psnr_foggy"] < 100
    baseline = watch.Watch(
        {"synthetic": rest}, {"synthetic": held}, read_recipe("baseline", ["image_size=32"]), torch.device("cpu")
    )
    net.defogs = False
    numbers, pictures = baseline.look(net)
    assert set(numbers) == {"synthetic/gradient/triplet", "synthetic/gradient/identity"}
    assert pictures["synthetic"].shape == (8 * 32, 2 * 32, 3)
