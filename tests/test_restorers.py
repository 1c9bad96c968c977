"""What two-stage methods put in front of re-identification: the dark channel prior, and a restorer that is trained."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import fvrid_tools
from sjdl_model import dark_channel_prior, restorer, train
from sjdl_model.checkpoint import CHECKPOINT
from sjdl_model.config import DataError, read_recipe
from sjdl_model.network import WEIGHTS
from sjdl_model.restorer import Restorer, _joined, _parted, restorer_loss
from sjdl_model.watch import psnr


def scene(seed: int = 0, side: int = 96) -> torch.Tensor:
    """(1, 3, side, side): patches of saturated colours, so that every window holds a dark value."""
    colours = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(seed))
    colours = colours * (torch.rand(colours.shape, generator=torch.Generator().manual_seed(seed + 1)) > 0.4)
    return torch.nn.functional.interpolate(colours, scale_factor=4)


def test_fog_of_one_density_is_taken_away_where_the_prior_holds() -> None:
    clear = scene()
    foggy = clear * 0.5 + 0.9 * 0.5
    foggy[:, :, :12, :12] = 0.9  # sky: the fog itself, which tells its colour
    found = dark_channel_prior.defog(foggy)
    part = (slice(None), slice(None), slice(24, None), slice(24, None))
    assert (found[part] - clear[part]).abs().mean() < 0.25 * (foggy[part] - clear[part]).abs().mean()


def test_a_guided_plane_that_is_a_function_of_the_guide_stays() -> None:
    guide = torch.rand(1, 1, 48, 48)
    smoothed = dark_channel_prior._guided(guide, 0.3 + 0.4 * guide, 9)
    assert (smoothed - (0.3 + 0.4 * guide)).abs().max() < 0.02
    noise = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    assert dark_channel_prior._guided(torch.full_like(guide, 0.5), noise, 9).std() < 0.3 * noise.std()


def test_any_image_gives_an_image() -> None:
    for image in (torch.zeros(1, 3, 32, 64), torch.ones(2, 3, 64, 32), torch.rand(1, 3, 33, 47)):
        found = dark_channel_prior.defog(image)
        assert found.shape == image.shape
        assert torch.isfinite(found).all()
        assert 0 <= found.min() <= found.max() <= 1


def test_parts_are_joined_as_they_were() -> None:
    x = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    for parts in ((2, 2), (2, 1)):
        assert torch.equal(_joined(_parted(x, *parts), *parts), x)
    assert torch.equal(_parted(x, 2, 2)[1], x[0, :, :4, 4:])


def test_the_loss_is_nought_but_for_its_epsilon_at_the_truth() -> None:
    clear = torch.rand(2, 3, 16, 16)
    assert restorer_loss([clear, clear, clear], clear).item() == pytest.approx(3 * 1.05e-3, rel=1e-3)
    assert restorer_loss([clear + 0.1], clear).item() == pytest.approx(0.1 + 0.05e-3, rel=1e-2)


def test_a_restorer_learns_to_defog_and_every_stage_takes_part() -> None:
    torch.manual_seed(0)
    clear = torch.cat([scene(i, 32) for i in range(4)])
    foggy = clear * 0.5 + 0.45
    net = Restorer()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(40):
        optimizer.zero_grad()
        restorer_loss(net(foggy), clear).backward()  # type: ignore[no-untyped-call]
        if step == 0:
            convolutions = [p for p in net.parameters() if p.ndim == 4 and p.shape[-1] == 3]
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in convolutions)
        optimizer.step()
    with torch.inference_mode():
        assert psnr(net.defog(foggy), clear) > psnr(foggy, clear) + 4


@pytest.mark.parametrize(
    ("precision", "fog"),
    [("float32", []), ("float32", ["fog.redraw=true", "fog.noise=10"]), ("bfloat16", []), ("float16", [])],
)
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, fog: list[str]
) -> None:
    if precision == "float16":  # whose gradients of weights take the CPU hundreds of times as long
        monkeypatch.setattr(restorer, "WIDTH", 4)
        monkeypatch.setattr(restorer, "WIDER", 4)
    data = fvrid_tools.open_dataset(built)
    changes = ["image_size=32", "p=3", "k=2", "epochs=2", "steps_per_epoch=2", "workers=0", f"precision={precision}"]
    recipe = read_recipe("default", [*changes, *fog])
    train.train_restorer(data, recipe, tmp_path / "whole")

    def stop(stages: list[torch.Tensor], clear: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGTERM)
        return restorer_loss(stages, clear)

    with monkeypatch.context() as patch:
        patch.setattr(train, "restorer_loss", stop)
        for step in (1, 2):
            with pytest.raises(train.TerminatedError, match=f"stopped after step {step}"):
                train.train_restorer(data, recipe, tmp_path / "stopped")
    with pytest.raises(DataError, match="another recipe"):
        train.train_restorer(data, read_recipe("default", [*changes, "lr=3e-3"]), tmp_path / "stopped")
    assert not (tmp_path / "stopped" / WEIGHTS).exists()
    train.train_restorer(data, recipe, tmp_path / "stopped")
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "stopped" / CHECKPOINT).exists()
    with safe_open(tmp_path / "whole" / WEIGHTS, "pt") as file:
        assert file.metadata()["data"] == data.info["manifest_sha256"]


def test_a_restorer_that_diverged_is_none(built: Path, tmp_path: Path) -> None:
    changes = ["image_size=32", "p=3", "k=2", "epochs=1", "steps_per_epoch=3", "workers=0", "lr=1e30"]
    with pytest.raises(FloatingPointError, match=r"restorer's loss of step 3 is not finite; lower lr"):
        train.train_restorer(fvrid_tools.open_dataset(built), read_recipe("default", changes), tmp_path / "restorer")
    assert [path.name for path in (tmp_path / "restorer").iterdir()] == ["recipe.toml"]
