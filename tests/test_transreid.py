"""The vision transformer with camera embedding and jigsaw branch."""

from pathlib import Path

import pytest
import torch

import fvrid_tools
from sjdl_model.arms import NO_DEFOGGING
from sjdl_model.config import ConfigError, read_recipe
from sjdl_model.data import camera_number
from sjdl_model.evaluate import Embedder
from sjdl_model.network import load_network
from sjdl_model.train import train
from sjdl_model.transreid import PARTS, TransReID, shuffled

CHANGES = [
    "transreid=true",
    "backbone=test_vit",
    "last_stride=2",
    "pretrained=false",
    "image_size=64",
    "p=3",
    "k=2",
    "epochs=1",
    "steps_per_epoch=2",
    "workers=0",
    *NO_DEFOGGING,
]


def test_every_quarter_of_the_jigsaw_has_patches_of_the_whole_image() -> None:
    patches = torch.arange(36.0).view(1, 36, 1)
    mixed = shuffled(patches)
    assert sorted(mixed.flatten().tolist()) == list(range(36))
    for part in mixed.chunk(PARTS, dim=1):
        assert part.max() - part.min() > 24
    odd = shuffled(torch.arange(37.0).view(1, 37, 1))
    assert sorted(odd.flatten().tolist()) == list(range(37))


def test_features_are_of_the_whole_and_of_the_parts_and_know_the_camera() -> None:
    torch.manual_seed(0)
    net = TransReID("test_vit", 64, cameras=3).eval()
    images = torch.randn(2, 3, 64, 64)
    *maps, feature = net(images, torch.tensor([0, 2]))
    width = net.channels[0]
    assert [tuple(one.shape) for one in maps] == [(2, width, 4, 4)] * 3
    assert feature.shape == (2, width * (1 + PARTS), 1, 1)
    assert torch.equal(net(images)[-1], net(images, torch.tensor([-1, -1]))[-1])
    assert not torch.allclose(net(images, torch.tensor([0, 2]))[-1], net(images, torch.tensor([1, 1]))[-1])
    plain = net.vit(images)  # timm's own, without pooling head: the class token of the whole image
    assert torch.allclose(net(images)[-1][:, :width, 0, 0], plain, atol=1e-5)


@pytest.mark.parametrize("size", [48, 80])
def test_patches_that_four_does_not_divide_make_four_parts_too(size: int) -> None:
    net = TransReID("test_vit", size, 0).eval()
    assert (size // 16) ** 2 % 4  # 9 and 25 patches
    assert net(torch.zeros(1, 3, size, size))[-1].shape == (1, net.channels[-1], 1, 1)


def test_it_trains_and_is_tested_with_its_cameras(built: Path, built_real: Path, tmp_path: Path) -> None:
    data, real = (fvrid_tools.open_dataset(path) for path in (built, built_real))
    train(data, real, read_recipe("default", CHANGES), tmp_path / "run")
    net, architecture = load_network(tmp_path / "run")
    assert set(net.cameras) == {f"{row.source}/{row.camera_id}" for one in (data, real) for row in one.rows}
    assert architecture.transreid
    embedder = Embedder(net=net, size=64)
    found = embedder(data, "foggy")
    numbers = torch.tensor([camera_number(net.cameras, row) for row in data.rows])
    assert (numbers >= 0).all()
    before = dict(net.cameras)
    net.cameras = {}
    assert abs(embedder(data, "foggy") - found).max() > 1e-4
    net.cameras = before


def test_what_it_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match="last_stride=2"):
        read_recipe("default", ["transreid=true", "backbone=test_vit"])
    with pytest.raises(ConfigError, match="which defogging does not"):
        read_recipe("default", [*CHANGES, "weights.restoration=1"])
    from sjdl_model import SJDL

    with pytest.raises(ConfigError, match="cannot be made so"):
        SJDL(2, 0, "resnet18", transreid=(64, 0))
