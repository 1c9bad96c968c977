"""Each term against a plain loop over its equation, and what minimising it must mean."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sjdl_model import losses

IMAGE_TERMS = {
    "restoration l2": lambda image: losses.restoration_loss(image, torch.zeros_like(image)),
    "restoration mse": lambda image: losses.restoration_loss(image, torch.zeros_like(image), "mse"),
    "color entropy": losses.color_entropy_loss,
    "dark channel": losses.dark_channel_loss,
    "total variation": losses.total_variation_loss,
    "self-constraint global": lambda image: losses.self_constraint_loss(image, _other(image)),
    "self-constraint phase": lambda image: losses.self_constraint_loss(image, _other(image), "phase"),
}


def _other(image: Tensor) -> Tensor:
    return torch.rand(image.shape, generator=torch.Generator().manual_seed(9))


@pytest.fixture
def image() -> Tensor:
    return torch.rand(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("term", IMAGE_TERMS)
def test_every_image_of_the_batch_gets_a_gradient(term: str, image: Tensor) -> None:
    image.requires_grad_()
    loss = IMAGE_TERMS[term](image)
    loss.backward()
    assert loss.shape == ()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert (image.grad.flatten(1).abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("term", IMAGE_TERMS)
def test_eight_bit_images_and_constants_give_finite_gradients(term: str) -> None:
    levels = torch.randint(0, 256, (2, 3, 64, 64)) / 255
    for image in (
        levels,
        torch.zeros(2, 3, 64, 64),
        torch.ones(2, 3, 64, 64),
        torch.full((2, 3, 64, 64), 0.5),
    ):
        image = image.clone().requires_grad_()
        IMAGE_TERMS[term](image).backward()
        assert image.grad is not None
        assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize("term", [term for term in IMAGE_TERMS if not term.startswith("self-constraint")])
def test_the_batch_is_the_mean_of_its_images(term: str, image: Tensor) -> None:
    single = torch.stack([IMAGE_TERMS[term](image[i : i + 1]) for i in range(len(image))])
    assert float(IMAGE_TERMS[term](image)) == pytest.approx(float(single.mean()), rel=1e-4)


@pytest.mark.parametrize("term", ["restoration l2", "restoration mse", "self-constraint global"])
def test_gradients_agree_with_finite_differences(term: str, image: Tensor) -> None:
    image = image[:2, :, :32, :32].clone().requires_grad_()
    IMAGE_TERMS[term](image).backward()
    assert image.grad is not None
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)) * 1e-2
    with torch.no_grad():
        difference = IMAGE_TERMS[term](image + direction) - IMAGE_TERMS[term](image - direction)
    assert float(difference) == pytest.approx(float(2 * (image.grad * direction).sum()), rel=0.02, abs=1e-6)


def test_triplet_worked_by_hand_and_by_loops() -> None:
    # anchors on a line: 0, 1 of vehicle 7; 3, 7 of vehicle 2
    feature, label = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([7, 7, 2, 2])
    # farthest positive - nearest negative + 1: 1-3+1, 1-2+1, 4-2+1, 4-6+1
    assert float(losses.batch_hard_triplet_loss(feature, label, 1.0)) == pytest.approx((0 + 0 + 3 + 0) / 4)
    feature, label = torch.randn(12, 5), torch.arange(12) // 3
    hinge = []
    for i in range(12):
        distance = [math.dist(feature[i].tolist(), feature[j].tolist()) for j in range(12)]
        positive = max(d for d, same in zip(distance, label == label[i], strict=True) if same)
        negative = min(d for d, same in zip(distance, label == label[i], strict=True) if not same)
        hinge.append(max(0.0, positive - negative + 0.3))
    assert float(losses.batch_hard_triplet_loss(feature, label, 0.3)) == pytest.approx(np.mean(hinge), rel=1e-5)


def test_triplet_with_all_positives_worked_by_hand() -> None:
    # on a line: 0, 1, 4 of vehicle 7; 5, 10 of vehicle 2; margin 1
    feature, label = torch.tensor([[0.0], [1.0], [4.0], [5.0], [10.0]]), torch.tensor([7, 7, 7, 2, 2])
    pairs = (
        *(1 - 5 + 1, 4 - 5 + 1),  # of 0: to 1 and to 4, and the nearest of the other vehicle is 5
        *(1 - 4 + 1, 3 - 4 + 1),
        *(4 - 1 + 1, 3 - 1 + 1),
        *(5 - 1 + 1, 5 - 6 + 1),
    )
    loss = losses.batch_hard_triplet_loss(feature, label, 1.0, all_positives=True)
    assert float(loss) == pytest.approx(np.mean([max(0, hinge) for hinge in pairs]))


@pytest.mark.parametrize("all_positives", [False, True])
def test_triplet_and_identity_reach_every_image(all_positives: bool) -> None:
    feature, label = torch.randn(8, 5, requires_grad=True), torch.arange(8) // 2
    losses.batch_hard_triplet_loss(feature, label, 10.0, all_positives=all_positives).backward()
    assert feature.grad is not None
    assert (feature.grad.abs().sum(dim=1) > 0).all()
    logits = torch.randn(8, 4, requires_grad=True)
    losses.identity_loss(logits, label).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("all_positives", [False, True])
def test_triplet_of_equal_features_has_a_finite_gradient(all_positives: bool) -> None:
    feature, label = torch.ones(4, 3, requires_grad=True), torch.tensor([0, 0, 1, 1])
    losses.batch_hard_triplet_loss(feature, label, 0.3, all_positives=all_positives).backward()
    assert feature.grad is not None
    assert torch.isfinite(feature.grad).all()


def test_restoration_is_the_mean_of_the_norms(image: Tensor) -> None:
    clear = image.flip(0)
    norms = [math.sqrt(sum(((a - b) ** 2).flatten().tolist())) for a, b in zip(image, clear, strict=True)]
    assert float(losses.restoration_loss(image, clear)) == pytest.approx(np.mean(norms), rel=1e-4)
    assert losses.restoration_loss(image, image) == 0


def test_entropy_of_what_is_known() -> None:
    levels = (torch.arange(64 * 64) % 256 / 255).view(1, 1, 64, 64).expand(2, 3, -1, -1)
    assert float(losses.color_entropy_loss(levels)) == pytest.approx(-math.log(256), abs=1e-3)
    assert float(losses.color_entropy_loss(torch.full((1, 3, 32, 32), 7 / 255))) == pytest.approx(0, abs=1e-4)
    assert float(losses.color_entropy_loss(torch.full((1, 3, 32, 32), 7.5 / 255))) == pytest.approx(
        -math.log(2), abs=1e-3
    )


def test_entropy_against_a_histogram_by_loops(image: Tensor) -> None:
    expected = []
    for channel in image.flatten(0, 1):
        histogram = np.zeros(257)
        for value in (channel.flatten() * 255).tolist():
            below = math.floor(value)
            histogram[below] += 1 - (value - below)
            histogram[below + 1] += value - below
        p = histogram[histogram > 0] / histogram.sum()
        expected.append((p * np.log(p)).sum())
    assert float(losses.color_entropy_loss(image)) == pytest.approx(np.mean(expected), abs=1e-4)


def test_dark_channel_by_loops(image: Tensor) -> None:
    image = image[:1, :, :48, :40]
    darkest = image[0].amin(dim=0).numpy()
    total = 0.0
    for y in range(48):
        for x in range(40):
            total += darkest[max(0, y - 17) : y + 18, max(0, x - 17) : x + 18].min()
    assert float(losses.dark_channel_loss(image)) == pytest.approx(total / (48 * 40) * 384 * 384, rel=1e-5)


def test_dark_channel_and_total_variation_are_the_papers_sums_at_its_size() -> None:
    image = torch.rand(2, 3, 384, 384)
    across = (image[..., 1:] - image[..., :-1]).abs().sum() + (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
    assert float(losses.total_variation_loss(image)) == pytest.approx(float(across) / 2, rel=1e-4)
    assert float(losses.dark_channel_loss(torch.full((1, 3, 384, 384), 0.25))) == pytest.approx(0.25 * 384 * 384)


def test_weights_keep_their_meaning_at_every_size() -> None:
    y, x = torch.meshgrid(torch.linspace(0.2, 1, 384), torch.linspace(0.2, 1, 384), indexing="ij")
    large = torch.stack([x, y, (x + y) / 2])[None]
    small = torch.nn.functional.interpolate(large, size=(192, 192), mode="area")
    ratio = float(losses.total_variation_loss(small) / losses.total_variation_loss(large))
    assert ratio == pytest.approx(1, abs=0.02)
    grey = torch.full((1, 3, 64, 64), 0.25)
    assert float(losses.dark_channel_loss(grey)) == pytest.approx(0.25 * 384 * 384)


def test_total_variation_by_hand() -> None:
    # one white pixel inside 4 x 4 has four edges in each of three colours; 384 * 4 over 16 pixels
    image = torch.zeros(1, 3, 4, 4)
    image[..., 1, 2] = 1
    assert float(losses.total_variation_loss(image)) == pytest.approx(12 * 384 * 4 / 16)


def test_parseval_global_self_constraint_is_the_cosine_of_the_fourier_transforms(image: Tensor) -> None:
    other = _other(image)
    a, b = (np.fft.fft2(x.numpy().astype(np.float64)) for x in (image, other))
    cosine = [
        np.real(np.vdot(x, y)) / (np.linalg.norm(x) * np.linalg.norm(y))
        for x, y in zip(a.reshape(4, -1), b.reshape(4, -1), strict=True)
    ]
    assert float(losses.self_constraint_loss(image, other)) == pytest.approx(-np.mean(cosine), abs=1e-5)


@pytest.mark.parametrize("width", [64, 63])
def test_phase_self_constraint_is_the_mean_over_all_frequencies(image: Tensor, width: int) -> None:
    image = image[..., :width]
    other = _other(image)
    a, b = (np.angle(np.fft.fft2(x.numpy().astype(np.float64))) for x in (image, other))
    assert float(losses.self_constraint_loss(image, other, "phase")) == pytest.approx(-np.cos(a - b).mean(), abs=1e-4)
    assert float(losses.self_constraint_loss(image, image * 0.5, "phase")) == pytest.approx(-1, abs=1e-4)


def test_the_phase_of_next_to_nothing_has_a_bounded_gradient(image: Tensor) -> None:
    for contrast in (1e-1, 1e-3, 1e-6, 0.0):
        flat = (0.5 + contrast * (image - 0.5)).requires_grad_()
        losses.self_constraint_loss(flat, _other(image), "phase").backward()
        assert flat.grad is not None
        assert flat.grad.norm() < 100


def test_another_name_or_shape_is_refused(image: Tensor) -> None:
    with pytest.raises(ValueError, match="'global' or 'phase'"):
        losses.self_constraint_loss(image, image, "glob")
    with pytest.raises(ValueError, match="'l2' or 'mse'"):
        losses.restoration_loss(image, image, "l1")
    with pytest.raises(ValueError, match="must agree"):
        losses.restoration_loss(image, image[:1])


def test_less_fog_is_lower_for_the_priors() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 16, 16, generator=generator)
    clear = torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bicubic").clamp(0, 1)
    foggy = clear * 0.4 + 0.8 * 0.6
    assert losses.color_entropy_loss(clear) < losses.color_entropy_loss(foggy)
    assert losses.dark_channel_loss(clear) < losses.dark_channel_loss(foggy)
    assert losses.total_variation_loss(torch.full_like(clear, 0.3)) == 0


def test_what_is_not_a_number_makes_the_loss_so_and_breaks_nothing() -> None:
    image = torch.rand(2, 3, 8, 8)
    image[0, 1, 2, 3] = torch.nan
    assert losses.color_entropy_loss(image).isnan()
