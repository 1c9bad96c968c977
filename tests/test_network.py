import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sjdl_model import SJDL
from sjdl_model.backbone import Backbone
from sjdl_model.config import ConfigError, DataError
from sjdl_model.inference import defog_image
from sjdl_model.network import check_image_size


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shared_stage", [2, 3, 4, 5])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_outputs_have_the_stated_shapes(shared_stage: int, last_stride: int) -> None:
    net = SJDL(7, 3, "resnet18", shared_stage, last_stride=last_stride)
    foggy = torch.rand(2, 3, 64, 96)
    out = net(foggy)
    assert out.feature.shape == out.embedding.shape == (2, 512)
    assert out.logits_synthetic.shape == (2, 7)
    assert out.logits_real.shape == (2, 3)
    assert out.defogged.shape == foggy.shape
    assert out.defogged.min() >= 0
    assert out.defogged.max() <= 1


def test_resnet50_is_the_papers() -> None:
    net = SJDL(num_synthetic=3000, num_real=403, backbone="resnet50", shared_stage=2)
    out = net.eval()(torch.rand(1, 3, 64, 64))
    assert out.embedding.shape == (1, 2048)
    assert (out.logits_synthetic.shape, out.logits_real.shape) == ((1, 3000), (1, 403))
    assert net.backbone.strides == [4, 8, 16, 16]


@pytest.mark.parametrize(
    "backbone",
    ["convnext_atto", "mobilenetv3_small_050", "regnety_002", "res2net50_26w_4s", "hrnet_w18_small", "dla34"],
)
def test_other_backbones_serve(backbone: str) -> None:
    net = SJDL(4, 0, backbone)
    out = net(torch.rand(2, 3, 64, 64))
    assert out.defogged.shape == (2, 3, 64, 64)
    assert out.logits_real is None


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "hrnet_w18_small", "swin_tiny_patch4_window7_224"])
def test_defogging_alone_gives_the_same_image_for_less(backbone: str) -> None:
    net = SJDL(4, 2, backbone, last_stride=2).eval()
    foggy = torch.rand(1, 3, 224, 224)
    costs, found = [], []
    with torch.inference_mode():
        for defog in (lambda: net(foggy).defogged, lambda: net.defog(foggy)):
            with FlopCounterMode(display=False) as counter:
                found.append(defog())
            costs.append(counter.get_total_flops())
    assert torch.equal(*found)
    assert costs[1] < costs[0] if backbone in ("resnet18", "convnext_atto") else costs[1] <= costs[0]


def test_the_embedding_needs_no_firm() -> None:
    net = SJDL(4, 2, "resnet18").eval()
    foggy = torch.rand(2, 3, 64, 64)
    expected = net(foggy).embedding
    net.firm = nn.Identity()  # would fail if it were run
    assert torch.equal(net.embed(foggy), expected)
    assert torch.equal(net.embed(foggy, before_bn=True), net(foggy, defog=False).feature)
    assert not torch.equal(net.embed(foggy, before_bn=True), expected)


def test_unit_embeddings_rank_as_the_cosine_does() -> None:
    torch.manual_seed(0)
    net = SJDL(4, 2, "resnet18", unit_embedding=True).eval()
    foggy = torch.rand(6, 3, 64, 64)
    out, unit = net(foggy), net.embed(foggy)
    assert torch.allclose(unit.norm(dim=1), torch.ones(6))
    assert out.embedding.norm(dim=1).max() > 1.1  # the losses' is as it was
    cosine = torch.cosine_similarity(out.embedding[:, None], out.embedding[None], dim=2)
    assert torch.allclose(torch.cdist(unit, unit).square(), 2 - 2 * cosine, atol=1e-4)
    assert torch.equal(net.embed(foggy, before_bn=True), out.feature)


def test_defogging_trains_the_shared_stages_and_not_the_deeper_ones() -> None:
    net = SJDL(4, 2, "resnet18", shared_stage=3)
    net(torch.rand(2, 3, 64, 64)).defogged.sum().backward()
    trained = {name for name, p in net.backbone.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(".layer1" in name for name in trained)
    assert any(".layer2" in name for name in trained)
    assert not any(".layer3" in name or ".layer4" in name for name in trained)


def test_normalisation_is_inside() -> None:
    backbone = Backbone("resnet18")
    image = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    backbone.eval()
    assert torch.allclose(backbone(image)[-1], backbone.stages(normalised)[-1], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 60, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_other_sizes_are_refused_with_a_sentence(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        SJDL(2, 0, "resnet18")(torch.rand(shape))


def test_local_weights_are_loaded_and_nothing_else(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("resnet18")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    net = SJDL(2, 0, "resnet18", pretrained=str(tmp_path / "weights.pth"))
    assert torch.equal(net.backbone.stages.conv1.weight, model.conv1.weight)
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ConfigError, match=r"text\.pth: not a weights file"):
        SJDL(2, 0, "resnet18", pretrained=str(tmp_path / "text.pth"))
    state = model.state_dict()
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ConfigError, match=r"part\.pth: not weights of resnet18 \(it lacks layer2\.0\.conv1\.weight\)"):
        SJDL(2, 0, "resnet18", pretrained=str(tmp_path / "part.pth"))
    torch.save({"module": {**model.bfloat16().state_dict(), "epoch": 3}}, tmp_path / "wrapped.pth")
    with pytest.raises(ConfigError, match=r"wrapped\.pth: not weights of resnet18 \(it lacks conv1\.weight\)"):
        SJDL(2, 0, "resnet18", pretrained=str(tmp_path / "wrapped.pth"))  # nor does timm see through it for this one
    large = {key: value + 3000 if "running_var" in key else value for key, value in model.state_dict().items()}
    torch.save({**large, "epoch": 3}, tmp_path / "large.pth")
    assert (
        SJDL(2, 0, "resnet18", pretrained=str(tmp_path / "large.pth")).backbone.stages.bn1.running_var == 3008
    ).all()
    for name in ("layer2.0.bn1.weight", "layer3.1.bn2.running_var"):  # which begin as constants
        part = {key: value for key, value in model.state_dict().items() if key != name}
        torch.save(part, tmp_path / "part.pth")
        with pytest.raises(ConfigError, match=rf"part\.pth: not weights of resnet18 \(it lacks {re.escape(name)}\)"):
            SJDL(2, 0, "resnet18", pretrained=str(tmp_path / "part.pth"))


@pytest.mark.parametrize("form", [{}, {"whole_contrast": True, "local_contrast": True}, {"ibn": True}])
def test_a_training_may_begin_with_the_backbone_of_a_run(tmp_path: Path, form: dict[str, bool]) -> None:
    torch.manual_seed(0)
    before = SJDL(3, 2, "test_resnet", last_stride=2, domain_statistics=True, **form)
    for name, value in before.backbone.named_buffers():
        if ".real_" in name:
            value.uniform_(1, 2)
    save_file(before.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    file = str(tmp_path / "weights.safetensors")
    after = SJDL(7, 0, "test_resnet", last_stride=2, pretrained=file, **form)
    expected = {key: value for key, value in before.backbone.state_dict().items() if ".real_" not in key}
    assert all(torch.equal(value, expected[key]) for key, value in after.backbone.state_dict().items())
    with pytest.raises(ConfigError, match=r"weights\.safetensors: not of a run with this resnet18"):
        SJDL(7, 0, "resnet18", pretrained=file, **form)
    told_apart = SJDL(7, 2, "test_resnet", last_stride=2, domain_statistics=True, pretrained=file, **form)
    assert {".".join(key.split(".")[-1:]) for key in told_apart.backbone.state_dict()} >= {"real_mean", "real_var"}
    expected = before.backbone.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in told_apart.backbone.state_dict().items())
    said = json.dumps({"backbone": "test_resnet", "local_contrast": not form.get("local_contrast", False)})
    save_file(before.state_dict(), file, {"sjdl": said})
    with pytest.raises(
        ConfigError, match=r"of a run with local_contrast = (True|False), not (True|False); set the same"
    ):
        SJDL(7, 0, "test_resnet", last_stride=2, pretrained=file, **form)


def test_a_weights_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever timm would do with the file: its versions differ in how they read one."""
    import timm

    marker = tmp_path / "executed"
    torch.save(Hostile(marker), tmp_path / "weights.pth")
    monkeypatch.setattr(timm.models._helpers, "load_state_dict", lambda *_, **__: pytest.fail("timm was to read it"))
    for options in ({}, {"ibn": True}, {"backbone": "vit_tiny_patch16_224", "transreid": (32, 0)}):
        with pytest.raises(ConfigError, match=r"weights\.pth: not a weights file"):
            SJDL(2, 0, **{"backbone": "resnet18", **options}, pretrained=str(tmp_path / "weights.pth"))
    assert not marker.exists()


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def test_maps_with_channels_last_are_turned() -> None:
    net = SJDL(2, 0, "swin_tiny_patch4_window7_224", last_stride=2)
    out = net.eval()(torch.rand(1, 3, 224, 224))
    assert out.feature.shape == (1, 768)
    assert out.shared.shape == (1, 96, 56, 56)
    assert out.defogged is not None
    assert out.defogged.shape == (1, 3, 224, 224)
    check_image_size(net, 224)
    with pytest.raises(ConfigError, match="cannot take images of 96 x 96 pixels"):
        check_image_size(net, 96)
    net.image_size = 224
    with pytest.raises(DataError, match="224 pixels a side only, and 64 x 96 would be defogged"):
        defog_image(net, np.zeros((64, 96, 3), np.uint8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet19"}, "timm has no such model"),
        ({"backbone": "resnet18", "pretrained": True}, "pretrained=false"),
        ({"backbone": "convnext_atto", "last_stride": 1}, "last_stride=2"),
        ({"backbone": "mobilenetv3_small_050", "last_stride": 2, "ibn": True}, "cannot have ibn"),
        ({"backbone": "test_vit", "transreid": (64, 0), "ibn": True}, "neither ibn nor last_stride=1"),
        ({"backbone": "test_vit", "transreid": (64, 0), "last_stride": 1}, "neither ibn nor last_stride=1"),
        ({"backbone": "resnet18", "whole_contrast": True}, "set local_contrast=true"),
    ],
)
def test_what_cannot_be_made_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SJDL(2, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shared_stage"):
        SJDL(2, 0, "resnet18", 6)
