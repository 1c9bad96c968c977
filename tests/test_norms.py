"""Norms: local contrast, running statistics kept apart for the two domains, instance norm for half of the channels."""

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from sjdl_model import SJDL, norms
from sjdl_model.backbone import Backbone
from sjdl_model.checkpoint import save_weights
from sjdl_model.config import ConfigError, read_recipe
from sjdl_model.network import Architecture, load_network
from sjdl_model.train import synchronize_norms


def batch(mean: float, seed: int = 0) -> torch.Tensor:
    return torch.randn(16, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) + mean


def test_each_domain_has_the_statistics_of_a_batch_norm_of_its_own() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4))
    alone = {real: nn.BatchNorm2d(4) for real in (False, True)}
    norms.keep_apart(net)
    for step, real in enumerate([False, True, True, False, True]):
        norms.use(net, real=real)
        one = batch(5.0 if real else -1.0, step)
        assert torch.equal(net(one), alone[real](one))
    net.eval()
    for real, own in alone.items():
        norms.use(net, real=real)
        assert torch.equal(net(batch(0)), own.eval()(batch(0)))
    assert net[0].running_mean.mean() < 0 < net[0].real_mean.mean()


def test_within_unchanged_no_statistics_are_gathered() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4))
    expected = nn.BatchNorm2d(4)(batch(3))
    with norms.unchanged(net):
        assert torch.equal(net(batch(3)), expected)
    assert torch.equal(net[0].running_mean, torch.zeros(4))
    net(batch(3))
    assert net[0].running_mean.mean() == pytest.approx(0.3, abs=0.1)


def test_a_network_is_saved_with_both_and_loaded_for_real_fog(tmp_path: Path) -> None:
    architecture = Architecture(
        3, 2, "resnet18", 2, 2, 64, local_contrast=True, domain_statistics=True, unit_embedding=True
    )
    net = architecture.build()
    net.use_statistics_of("real")
    net.train()(torch.rand(4, 3, 64, 64))
    net.eval()
    images = torch.rand(2, 3, 64, 64)
    real = net.embed(images)
    net.use_statistics_of("synthetic")
    synthetic = net.embed(images)
    assert not torch.allclose(real, synthetic)
    save_weights(tmp_path, net, architecture, {})
    loaded, found = load_network(tmp_path)
    assert found == architecture
    assert torch.equal(loaded.embed(images), real)
    loaded.use_statistics_of("synthetic")
    assert torch.equal(loaded.embed(images), synthetic)
    for again in (pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded)):  # as processes that are spawned get it
        assert torch.equal(again.embed(images), synthetic)
        again.use_statistics_of("real")
        assert torch.equal(again.embed(images), real)


def before_squashing(contrast: torch.Tensor) -> torch.Tensor:
    return 2 * torch.atanh(contrast.double() / 2)


def test_local_contrast_by_hand() -> None:
    stripes = torch.full((1, 3, 64, 64), 0.4)
    stripes[..., ::2] = 0.6
    found = norms.local_contrast(stripes)
    expected = 2 * math.tanh(0.1 / (1.25 * 0.1 + 0.01) / 2)  # mean 0.5, mean absolute deviation 0.1
    assert torch.allclose(found[..., ::2], torch.tensor(expected), atol=1e-4)
    assert torch.allclose(found[..., 1::2], torch.tensor(-expected), atol=1e-4)
    stripes[..., 40:] = 0.9  # farther away than two halves of a window: means, and deviations from them
    assert torch.equal(norms.local_contrast(stripes)[..., :5], found[..., :5])
    assert norms.local_contrast(torch.full((1, 3, 64, 64), 0.7)).abs().max() < 1e-3
    red = stripes * torch.tensor([1.0, 0.5, 0.5]).view(1, 3, 1, 1)
    found = before_squashing(norms.local_contrast(red))
    assert torch.allclose(found[:, 1] * 2, found[:, 0], atol=1e-4)


def test_a_lamp_is_no_measure_of_the_contrast_around_it() -> None:
    torch.manual_seed(0)
    foggy = 0.6 + 0.02 * torch.rand(1, 3, 64, 64)
    lit = foggy.clone()
    lit[..., 30:34, 30:34] = 1.0  # a 256th of the image, twenty times as bright above the fog as the rest varies
    ours, other = norms.local_contrast(foggy), norms.local_contrast(lit)
    assert other.abs().max() <= 2
    around = torch.ones(64, 64, dtype=torch.bool)
    around[30:34, 30:34] = False
    kept = other[..., around].std() / ours[..., around].std()
    grey = lit.mean(dim=1)
    assert kept > 2 * foggy.mean(dim=1).std() / grey.std()  # what dividing by the standard deviation would keep


def test_local_contrast_is_the_same_in_fog_of_one_depth() -> None:
    """Eq. 1 with one transmission is a gain and an offset, for a coloured airlight too."""
    clear = torch.rand(2, 3, 64, 96)
    airlight = torch.tensor([0.7, 0.8, 0.95]).view(1, 3, 1, 1)
    ours, foggy = (before_squashing(norms.local_contrast(x)) for x in (clear, 0.3 * clear + 0.7 * airlight))
    assert (ours - foggy).norm() < 0.12 * ours.norm()  # the least contrast's part: 0.01 of 0.3 times about 0.17
    assert torch.cosine_similarity(ours.flatten(1), foggy.flatten(1)).min() > 0.9999
    torch.manual_seed(0)
    plain, levelled = (SJDL(2, 0, "resnet18", local_contrast=on).eval() for on in (False, True))
    clear, foggy = clear[..., :64], 0.5 * clear[..., :64] + 0.5 * 0.9
    distances = [(net.embed(clear) - net.embed(foggy)).norm() / net.embed(clear).norm() for net in (plain, levelled)]
    assert distances[1] < 0.2 * distances[0]
    assert torch.isfinite(levelled.embed(torch.full((1, 3, 64, 64), 0.5))).all()


def test_whole_contrast_by_hand() -> None:
    image = torch.full((1, 3, 64, 64), 0.2)
    image[..., 32:] = 0.6
    image[:, 0] += 0.1  # grey: 0.2333 and 0.6333, a mean absolute deviation of 0.2
    expected = 2 * math.tanh(0.2 / (1.25 * 0.2 + 0.01) / 2)
    found = norms.whole_contrast(image)
    assert torch.allclose(found, torch.where(image > 0.5, expected, -expected), atol=1e-5)
    assert norms.local_contrast(image)[..., 0].abs().max() < 0.05  # what the local one does not see
    ours, foggy = (before_squashing(norms.whole_contrast(x)) for x in (image, 0.5 * image + 0.4))
    assert torch.cosine_similarity(ours.flatten(1), foggy.flatten(1)).min() > 0.9999


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "transreid"])
def test_whole_contrast_comes_in_channels_that_begin_without_weight(name: str) -> None:
    kind = {"last_stride": 2, "local_contrast": True}
    kind |= {"transreid": (64, 2)} if name == "transreid" else {}
    backbone = "vit_tiny_patch16_224" if name == "transreid" else name
    torch.manual_seed(0)
    net = Backbone(backbone, **kind).eval()
    torch.manual_seed(0)
    wider = Backbone(backbone, whole_contrast=True, **kind).eval()
    image = torch.rand(2, 3, 64, 64)
    camera = torch.tensor([0, 1])
    for ours, theirs in zip(net(image, camera), wider(image, camera), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    first = next(p for p in wider.stages.parameters() if p.ndim == 4)
    assert first.shape[1] == 6
    sum(one.square().mean() for one in wider(image, camera)).backward()
    assert first.grad[:, 3:].abs().max() > 0  # and learn


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "repvgg_a0", "tresnet_m"])  # standardised, two, and of 48
def test_whole_contrast_is_refused_where_the_image_has_no_plain_convolution(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot have whole_contrast"):
        Backbone(name, last_stride=2, local_contrast=True, whole_contrast=True)


def test_whole_contrast_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="beside local_contrast; set local_contrast=true"):
        read_recipe("ablation", ["whole_contrast=true"])


def test_whole_contrast_can_begin_with_weights_of_three_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stages = Backbone("resnet18", last_stride=2).stages
    torch.save(stages.state_dict(), tmp_path / "weights.pt")
    net = Backbone("resnet18", pretrained=str(tmp_path / "weights.pt"), local_contrast=True, whole_contrast=True)
    assert torch.equal(net.stages["conv1"].weight[:, :3], stages["conv1"].weight)
    assert not net.stages["conv1"].weight[:, 3:].any()


def test_half_of_the_channels_are_normalised_by_image() -> None:
    torch.manual_seed(0)
    plain, mixed = (Backbone("resnet18", ibn=on, last_stride=2) for on in (False, True))
    norm, block = mixed.stages["layer1"][0].bn1, plain.stages["layer1"][0].bn1
    x = torch.randn(4, 64, 5, 5) * torch.arange(1, 5).view(4, 1, 1, 1)
    found = norm.train()(x)
    assert torch.allclose(found[:, 32:], block.train()(x)[:, 32:], atol=1e-5)  # as the batch norm it was made of
    each = found[:, :32].std(dim=(2, 3), correction=0)
    assert torch.allclose(each, torch.ones_like(each), atol=1e-2)
    assert isinstance(mixed.stages["layer4"][0].bn1, nn.BatchNorm2d)
    assert mixed(torch.rand(2, 3, 64, 64))[-1].shape == plain(torch.rand(2, 3, 64, 64))[-1].shape
    with pytest.raises(ConfigError, match="cannot have ibn"):
        Backbone("convnext_atto", ibn=True)


def test_weights_with_the_names_of_ibn_net_are_taken(tmp_path: Path) -> None:
    """Its files name the halves IN and BN, and hold a classifier."""
    known = Backbone("resnet18", ibn=True, last_stride=2)
    with torch.no_grad():
        known.stages["layer1"][0].bn1.IN.weight.fill_(0.25)
    state = {**known.stages.state_dict(), "fc.weight": torch.rand(1000, 512)}
    assert "layer1.0.bn1.BN.running_mean" in state
    torch.save(state, tmp_path / "ibn.pth")
    loaded = Backbone("resnet18", ibn=True, last_stride=2, pretrained=str(tmp_path / "ibn.pth"))
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded.eval()(image)[-1], known.eval()(image)[-1])
    with pytest.raises(ConfigError, match="set ibn=true"):
        Backbone("resnet18", pretrained=str(tmp_path / "ibn.pth"))
    del state["layer2.0.bn1.BN.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ConfigError, match=r"part\.pth: .* \(it lacks layer2\.0\.bn1\.BN\.weight\)"):
        Backbone("resnet18", ibn=True, pretrained=str(tmp_path / "part.pth"))
    with pytest.raises(ConfigError, match=r"ibn\.pth: not weights of resnet34 with ibn"):
        Backbone("resnet34", ibn=True, pretrained=str(tmp_path / "ibn.pth"))


@pytest.mark.parametrize("apart", [False, True])
def test_norms_of_several_gpus_keep_what_they_know(apart: bool) -> None:
    net = Architecture(3, 2, "resnet18", 2, 2, 64, domain_statistics=apart).build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    synchronize_norms(net)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert any(isinstance(norm, nn.SyncBatchNorm) for norm in net.backbone.modules())
    net.use_statistics_of("real")
    assert all(norm.of_real for norm in net.backbone.modules() if apart and isinstance(norm, nn.SyncBatchNorm))


def test_without_real_images_in_training_the_statistics_are_those_of_synthetic_ones() -> None:
    net = SJDL(3, 0, "resnet18", domain_statistics=True)
    net.train()(batch_of_images := 0.1 * torch.rand(4, 3, 64, 64), defog=False)
    net.eval()
    expected = net.embed(batch_of_images)
    net.use_statistics_of("real")
    assert torch.equal(net.embed(batch_of_images), expected)
