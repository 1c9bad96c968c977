"""The continuous CRF and its parts, each against another derivation."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.optimize import minimize

from fvrid_tools.depth.dcnf import estimator, field, network, refine, similarities, training
from fvrid_tools.depth.dcnf.superpixels import Superpixels
from fvrid_tools.records import FvridError
from fvrid_tools.sources import read_source


def random_field(n: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarities (3, n, n), betas (3,), z (n,), y (n,)."""
    rng = np.random.default_rng(seed)
    touching = np.triu(rng.random((n, n)) < 0.3, 1)
    found = np.triu(rng.random((3, n, n)), 1) * touching
    found = found + found.transpose(0, 2, 1)
    return tuple(torch.tensor(a) for a in (found, rng.random(3) * 2, rng.random(n), rng.random(n)))  # type: ignore


def energy(y, z, similarities, betas):
    """As printed: over single superpixels, and over ordered pairs."""
    total = sum((a - b) ** 2 for a, b in zip(y, z, strict=True))
    r = np.einsum("k,kpq->pq", betas, similarities)
    for p in range(len(y)):
        for q in range(len(y)):
            total += 0.5 * r[p, q] * (y[p] - y[q]) ** 2
    return float(total)


def test_most_probable_depth_is_where_the_energy_is_least():
    s, betas, z, _ = random_field()
    found = field.most_probable(field.precision(s, betas), z).numpy()
    best = minimize(lambda y: energy(y, z.numpy(), s.numpy(), betas.numpy()), np.zeros(len(z)), tol=1e-12)
    assert found == pytest.approx(best.x, abs=1e-5)


def test_likelihood_is_a_density():
    """Against the energy and numerical integration over two superpixels."""
    s, betas, z, y = random_field(2, 3)
    s[:] = torch.tensor([[0.0, 0.7], [0.7, 0.0]])
    a = field.precision(s, betas)
    grid = np.linspace(-6, 7, 400)
    cell = (grid[1] - grid[0]) ** 2
    mass = sum(np.exp(-energy([u, v], z.numpy(), s.numpy(), betas.numpy())) for u in grid for v in grid) * cell
    expected = energy(y.numpy(), z.numpy(), s.numpy(), betas.numpy()) + np.log(mass)
    assert float(field.negative_log_likelihood(a, z, y)) == pytest.approx(expected, abs=1e-6)


def test_gradients_are_those_of_the_closed_forms():
    s, betas, z, y = random_field()
    betas.requires_grad_()
    z.requires_grad_()
    a = field.precision(s, betas)
    field.negative_log_likelihood(a, z, y).backward()
    a, inverse = a.detach().numpy(), np.linalg.inv(a.detach().numpy())
    zz, yy = z.detach().numpy(), y.numpy()
    assert z.grad.numpy() == pytest.approx(2 * (inverse @ zz - yy), abs=1e-10)
    for k in range(3):
        j = np.diag(s[k].numpy().sum(1)) - s[k].numpy()
        expected = yy @ j @ yy - zz @ inverse @ j @ inverse @ zz - 0.5 * np.trace(inverse @ j)
        assert float(betas.grad[k]) == pytest.approx(expected, abs=1e-10)


def test_gradients_agree_with_finite_differences():
    s, betas, z, y = random_field(6, 5)

    def loss(b, zz):
        return field.negative_log_likelihood(field.precision(s, b), zz, y)

    assert torch.autograd.gradcheck(loss, (betas.requires_grad_(), z.requires_grad_()))


def test_without_betas_the_network_decides():
    s, _, z, _ = random_field()
    assert torch.equal(field.most_probable(field.precision(s, torch.zeros(3, dtype=torch.float64)), z), z)


# --- superpixels


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(1)
    smooth = np.kron(rng.integers(0, 256, (5, 7, 3)), np.ones((12, 12, 1))).astype(int)
    return np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


def test_superpixels_are_connected_and_cover_the_image(image):
    from scipy.ndimage import label

    found = Superpixels.of(image, 12)
    assert sorted(np.unique(found.labels)) == list(range(found.count))
    assert 20 <= found.count <= 50  # about 60 * 84 / 144
    assert all(label(found.labels == i)[1] == 1 for i in range(found.count))


@pytest.mark.parametrize("side", [16, 48, 64])
def test_a_small_flat_image_has_its_superpixels_too(side):
    flat = np.full((side, side, 3), 128, np.uint8)
    region = estimator.region_of(flat)
    assert Superpixels.of(flat, region).count == pytest.approx((side / region) ** 2, rel=0.3)


def test_levins_seeds_are_the_maps_values_at_the_centres(monkeypatch):
    """The centre of a ring lies in what it goes round."""
    rows, columns = np.mgrid[-8:9, -8:9]
    far = np.hypot(rows, columns)
    nodes = Superpixels(np.where(far < 4, 0, np.where(far < 7, 1, 2)), 3)
    seen = []
    monkeypatch.setattr(refine, "colorize", lambda image, seeds: seen.append(seeds) or np.ones(seeds.shape))
    image = np.zeros((17, 17, 3), np.uint8)
    estimator.to_pixels(image, image, nodes, np.array([0.25, 0.5, 0.75]), "levin")
    assert np.isfinite(seen[0]).sum() == 1
    assert seen[0][8, 8] == pytest.approx(81**0.25)


def test_the_packages_weights_are_those_of_the_machine_that_works(tmp_path, monkeypatch):
    sent = pickle.dumps(estimator.DCNF())
    shutil.copy(estimator.WEIGHTS, tmp_path / "dcnf.safetensors")
    monkeypatch.setattr(estimator, "WEIGHTS", tmp_path / "dcnf.safetensors")
    there = pickle.loads(sent)
    assert there.name == "dcnf"
    assert str(Path(estimator.__file__).parent).encode() not in sent
    assert there.versions["dcnf.safetensors"]


def test_parts_of_superpixels_by_loops(image):
    found = Superpixels.of(image, 12)
    pairs = set()
    height, width = found.labels.shape
    for y in range(height):
        for x in range(width):
            for ny, nx in ((y + 1, x), (y, x + 1)):
                if ny < height and nx < width and found.labels[y, x] != found.labels[ny, nx]:
                    pairs.add(tuple(sorted((int(found.labels[y, x]), int(found.labels[ny, nx])))))
    assert {tuple(pair) for pair in found.neighbours().tolist()} == pairs
    for i in range(found.count):
        rows, columns = np.nonzero(found.labels == i)
        assert found.boxes()[i].tolist() == [rows.min(), rows.max(), columns.min(), columns.max()]
        assert found.mean(image.astype(float))[i] == pytest.approx(image[rows, columns].mean(axis=0))


def test_pooling_is_the_mean_of_the_enlarged_map(image):
    found = Superpixels.of(image, 12)
    features = torch.randn(4, 8, 11, dtype=torch.float64)
    large = torch.nn.functional.interpolate(features[None], image.shape[:2], mode="nearest-exact")[0]
    pooling = found.pooling(8, 11)
    assert pooling.sum(axis=1) == pytest.approx(np.ones(found.count))
    assert pooling @ features.reshape(4, -1).T.numpy() == pytest.approx(found.mean(large.permute(1, 2, 0).numpy()))


# --- similarities


def test_patterns_of_one_run_have_bins_of_their_own():
    bins = similarities._BINS
    assert sorted(set(bins)) == list(range(58))
    assert bins[0b00000001] == 0  # start 0, length 1
    assert bins[0b00000111] == 2
    assert bins[0b10000001] == 7 * 7 + 1  # from bit 7 over the end to bit 0
    assert bins[0b00000101] == 57
    assert bins[0] == bins[255] == 56


def test_texture_of_a_flat_and_of_a_striped_patch():
    flat = np.full((32, 32, 3), 90, np.uint8)
    stripes = flat.copy()
    stripes[:, ::2] = 200
    one = Superpixels(np.zeros((32, 32), np.int64), 1)
    assert similarities.texture(flat, one)[0, 56] == pytest.approx(1)
    found = similarities.texture(stripes, one)[0]
    # dark columns see six brighter neighbours in two runs: no uniform pattern; bright columns see none
    assert found[56] ** 2 + found[57] ** 2 == pytest.approx(1)
    assert found[57] ** 2 == pytest.approx(0.5)


def test_levels_and_colours_worked_by_hand():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 2:] = 255
    halves = Superpixels(np.repeat([[0, 0, 1, 1]], 4, axis=0), 2)
    levels = similarities.histogram(image, halves)
    assert levels[0].reshape(3, 11)[:, 0].tolist() == [1, 1, 1]
    assert levels[1].reshape(3, 11)[:, 10].tolist() == [1, 1, 1]
    found = similarities.luv(image)
    assert found[0, 0] == pytest.approx([0, 0, 0])
    assert found[0, 3] == pytest.approx([100, 0, 0], abs=0.02)  # white is the white point
    s = similarities.similarities(image, halves)
    assert s[1, 0, 1] == pytest.approx(np.exp(-25 * np.sqrt(6 / 33)))
    assert s[2, 0, 1] == pytest.approx(np.exp(-0.1 * 100 / np.sqrt(3)), rel=1e-3)
    assert (s == s.transpose(0, 2, 1)).all()
    assert s[:, 0, 0].tolist() == [0, 0, 0]


# --- from superpixels to pixels


def test_a_constant_field_stays_constant(image):
    found = Superpixels.of(image, 12)
    seeds = np.full(image.shape[:2], np.nan)
    seeds[tuple(found.centres().T)] = 7.5
    assert refine.colorize(image, seeds) == pytest.approx(np.full(seeds.shape, 7.5), abs=1e-9)


def test_colors_stop_at_an_edge_and_a_seed_gives_half():
    image = np.zeros((9, 10, 3), np.uint8)
    image[:, 5:] = 255
    seeds = np.full((9, 10), np.nan)
    seeds[4, 2], seeds[4, 7] = 1.0, 2.0
    found = refine.colorize(image, seeds)
    assert found[:, :4] == pytest.approx(np.ones((9, 4)), abs=0.05)
    assert found[:, 6:] == pytest.approx(np.full((9, 4), 2.0), abs=0.05)
    left = refine.affinity_laplacian(image) @ found.ravel()
    assert left[4 * 10 + 2] == pytest.approx(1.0 - found[4, 2])  # x_seed = (seed + mean of its neighbours) / 2
    others = np.delete(left, [4 * 10 + 2, 4 * 10 + 7])
    assert np.abs(others).max() < 1e-9


# --- the network and its training


def test_a_superpixel_of_one_unit_has_the_units_depth():
    net = network.DCNFNetwork().eval()
    scene = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        dense = net.dense(scene)
        pooled = net.pooled(net.trunk(scene)[0], torch.eye(16 * 24))
    assert dense.shape == (1, 16, 24)
    assert pooled.reshape(16, 24).numpy() == pytest.approx(dense[0].numpy(), abs=1e-5)
    assert (net.betas > 0).all()
    with pytest.raises(ValueError, match="multiples of 32"):
        net.trunk(torch.rand(1, 3, 60, 96))


def test_dense_loss_worked_by_hand():
    wanted = torch.tensor([[0.2, 0.4], [0.2, 0.4]])
    depth = wanted.repeat_interleave(4, 0).repeat_interleave(4, 1)[None]
    assert float(training.dense_loss(wanted[None], depth)) == pytest.approx(0, abs=0.02)  # of the correlation's guard
    shifted = training.dense_loss(wanted[None] + 0.1, depth) - training.dense_loss(wanted[None], depth)
    assert float(shifted) == pytest.approx(0.1, abs=1e-5)  # neither shape nor slopes nor correlation change
    mirrored = float(training.dense_loss(wanted.flip(1)[None], depth))
    # everywhere 0.2 off, mean 0; slopes -0.2 for 0.2 across, none down; correlation -1
    assert mirrored == pytest.approx(0.2 + 0.2 + 2 * 0.4 + 2, abs=0.02)


def test_rate_rises_for_a_tenth_and_falls_to_nothing():
    rates = [training.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1)
    assert rates[54] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0, abs=1e-9)


def test_training_is_repeatable_and_lowers_the_loss(tmp_path):
    records = read_source("mini").records[:8]
    short = training.DepthRecipe(side=64, batch=4, dense_epochs=6, field_epochs=1, lr=5e-3)
    counted = []
    first = training.train(records, short, counted.append)
    again = training.train(records, short)
    untrained = training.train(records, training.DepthRecipe(side=64, batch=4, dense_epochs=0, field_epochs=0))
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert sum(counted) == 8 * 7
    scenes, depths = next(training.batches([training.Scene.of(record) for record in records], short, 0))
    with torch.inference_mode():
        losses = [float(training.dense_loss(net.dense(scenes), depths)) for net in (untrained, first)]
    assert losses[1] < losses[0]

    training.save(first, tmp_path / "w", short, None)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for how in ("guided", "levin", "none"):
        depth = estimator.DCNF(tmp_path / "w", how).predict(image, None)
        assert depth.shape == (50, 70)
        assert depth.dtype == np.float32
        assert 0 <= depth.min() <= depth.max() <= 1


def test_weights_of_another_kind_are_a_sentence(tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(FvridError, match=r"other\.safetensors: not weights of a DCNF network"):
        estimator.DCNF(tmp_path / "other.safetensors").predict(np.zeros((20, 20, 3), np.uint8), None)


# --- the original's own results, where a folder of them is at hand (results/custom_indoor_sample of its repository)


@pytest.fixture
def golden():
    named = os.environ.get("FVRID_DCNF_RESULTS")
    if not named:
        pytest.skip("FVRID_DCNF_RESULTS does not name the original's results/custom_indoor_sample")
    from scipy.io import loadmat

    found = []
    for folder in sorted(path for path in Path(named).iterdir() if path.is_dir()):
        metres = next(v for k, v in loadmat(folder / "predict_depth.mat").items() if not k.startswith("__"))
        found.append((folder, np.asarray(metres, np.float64)))
    assert found, f"{named} holds no folder of a result"
    return found


def test_the_originals_depth_solves_our_equations_off_its_seeds(golden):
    """Depth that Levin's method made is the mean of its neighbours everywhere but at seeds, a pixel in some hundred."""
    for folder, metres in golden:
        with Image.open(next(folder.parent.parent.rglob(f"{folder.name}.jpg"))) as image:
            shown = np.asarray(image.convert("RGB").resize(metres.shape[::-1], Image.Resampling.BICUBIC))
        left = np.abs(refine.affinity_laplacian(shown) @ metres.ravel())
        assert np.median(left) < 1e-5


def test_the_originals_picture_is_its_depth_to_half_a_level(golden):
    for folder, metres in golden:
        with Image.open(folder / "predict_depth_gray.png") as picture:
            levels = np.asarray(picture, np.float64)
        assert np.abs(levels - np.clip(255 * (metres - 0.7133) / (9.99 - 0.7133), 0, 255)).max() <= 0.52
