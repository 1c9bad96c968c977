"""sjdl export: the re-identification branch in ONNX, run by onnxruntime beside torch."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from test_inference import random_network
from torch.utils.flop_counter import FlopCounterMode

from fvrid_tools.files import sha256_file
from sjdl_model import onnx_export
from sjdl_model.checkpoint import save_weights
from sjdl_model.cli import cli
from sjdl_model.config import DataError
from sjdl_model.network import SJDL, Architecture

SIZE = 64
BACKBONES = (
    "resnet18",
    pytest.param("resnet50", marks=pytest.mark.slow),
    "resnet18+ibn",
    "resnet18+local_contrast+whole_contrast+domain_statistics+unit_embedding",  # as in the recipe default
    pytest.param("convnext_atto", marks=pytest.mark.slow),
)


def architecture(backbone: str) -> Architecture:
    name, *switches = backbone.split("+")
    plain = Architecture(3, 2, name, 2, 1 if name.startswith("resnet") else 2, SIZE)
    return plain._replace(**dict.fromkeys(switches, True))


@cache
def exported(backbone: str) -> tuple[SJDL, onnx.ModelProto]:
    """A network and its model for any batch."""
    net = random_network(0, architecture(backbone))
    net.use_statistics_of("real")
    return net, onnx_export.to_onnx(net, SIZE)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(count))


def run(model: onnx.ModelProto | Path, batch: torch.Tensor) -> np.ndarray:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    (found,) = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(
        ["embedding"], {"image": batch.numpy()}
    )
    return np.asarray(found)


def by_torch(net: SJDL, batch: torch.Tensor, before_bn: bool = False) -> np.ndarray:
    with torch.inference_mode():
        return net.embed(batch, before_bn).numpy()


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative, of the worst row."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_onnxruntime_agrees_with_torch_for_any_batch(backbone: str) -> None:
    net, model = exported(backbone)
    batches = [images(1), images(3)]
    assert difference(by_torch(net, batches[1] ** 4), by_torch(net, batches[1])) > 1e-3  # or nothing is compared
    for batch in batches:
        assert difference(run(model, batch), by_torch(net, batch)) < 1e-4
    assert not net.training


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_model_is_backbone_and_neck_and_nothing_else(backbone: str) -> None:
    net, model = exported(backbone)
    parts = {f"backbone.{name}": p for name, p in net.backbone.named_parameters()}
    parts |= {f"neck.{name}": p for name, p in net.neck.named_parameters()}
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert parts.keys() <= held.keys()
    for name, parameter in parts.items():
        assert np.array_equal(held[name], parameter.detach().numpy())
    assert onnx_export.parameters(model, net) == sum(parameter.numel() for parameter in parts.values())
    buffers = {name for name, _ in net.named_buffers()}
    rest = {name: value for name, value in held.items() if name not in parts.keys() | buffers}
    assert sum(value.size for value in rest.values()) <= 8 * len(rest)  # axes and shapes
    names = [*held, *(n for node in model.graph.node for n in (node.name, *node.input, *node.output))]
    assert not [name for name in names if "firm" in name.lower() or "classifier" in name]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_model_costs_what_the_plain_backbone_does(backbone: str) -> None:
    net, model = exported(backbone)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.backbone(images(1))
    assert onnx_export.flops(model) == counter.get_total_flops() == onnx_export.backbone_flops(net, SIZE)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(images(1))
    assert counter.get_total_flops() > onnx_export.flops(model)  # the FIRM costs something


def test_flops_are_counted_as_by_hand() -> None:
    """A grouped convolution, a transposed Gemm and a stacked MatMul, of two images at a time."""
    nodes = [
        helper.make_node("Conv", ["image", "kernels"], ["a"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMean", ["b", "axes"], ["c"], keepdims=0),
        helper.make_node("Gemm", ["c", "matrix"], ["embedding"], transB=1),
        helper.make_node("MatMul", ["stack", "b"], ["d"]),
    ]
    shapes = {"kernels": (6, 2, 3, 3), "matrix": (5, 6), "stack": (2, 6, 7, 4)}
    constants = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)]
        for name, dims in (("image", [2, 4, 8, 8]), ("embedding", [2, 5]))
    ]
    graph = helper.make_graph(nodes, "graph", *ends, constants)
    convolution = 6 * 4 * 4 * (2 * 3 * 3)  # outputs of an image x (inputs of a group x kernel)
    gemm = 5 * 6
    matmul = 6 * (7 * 4 * 4)  # of each of six channels (7, 4) by (4, 4)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert onnx_export.flops(model) == 2 * (convolution + gemm + matmul)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_weights(folder, random_network(0, architecture("convnext_atto")), architecture("convnext_atto"), {})
    return folder / "weights.safetensors"


def export(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", "--format", "onnx", *map(str, arguments)])


def test_the_command_writes_it_and_says_what_it_costs(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/model.onnx"
    result = export("--weights", weights.parent, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    net, same = exported("convnext_atto")
    gflop = f"{onnx_export.flops(same) / 1e9:.3g}"
    assert result.stdout == f"wrote {out}: 3.4 M parameters, {gflop} GFLOP an image, the backbone's own\n"
    model = onnx.load(out)
    facts = {one.key: one.value for one in model.metadata_props}
    assert facts.pop("fvrid_version")
    expected = {"image_size": "64", "feature": "after-bn", "domain": "real", "weights_sha256": sha256_file(weights)}
    assert facts == expected
    assert model.opset_import[0].version >= 18
    (image,), (embedding,) = model.graph.input, model.graph.output
    dims = [[d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in (image, embedding)]
    assert (image.name, dims[0]) == ("image", ["batch", 3, SIZE, SIZE])
    assert (embedding.name, dims[1]) == ("embedding", ["batch", 320])
    assert image.type.tensor_type.elem_type == embedding.type.tensor_type.elem_type == TensorProto.FLOAT
    assert difference(run(out, images(2)), by_torch(net, images(2))) < 1e-4
    assert str(Path(__file__).parents[1]).encode() not in out.read_bytes()  # no trace of where it was made
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]


def test_a_fixed_batch_and_the_feature_before_bn(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    assert export("--weights", weights, "-o", out, "--batch", 2, "--feature", "before-bn").exit_code == 0
    net, free = exported("convnext_atto")
    assert difference(run(out, images(2)), by_torch(net, images(2), before_bn=True)) < 1e-4
    model = onnx.load(out)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, SIZE, SIZE]
    assert {one.key: one.value for one in model.metadata_props}["feature"] == "before-bn"
    assert onnx_export.flops(model) == onnx_export.flops(free)
    assert onnx_export.parameters(model, net) == sum(p.numel() for p in net.backbone.parameters())
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        run(out, images(3))


def test_what_is_wrong_is_said_in_a_sentence(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = weights.read_bytes()
    for arguments, code, words in (
        (["--weights", tmp_path / "no", "-o", tmp_path / "m.onnx"], 1, "no such weights file"),
        (["--weights", weights, "-o", weights], 1, "would be overwritten"),
        (["--weights", weights, "-o", tmp_path], 1, "is a folder"),
        (["--weights", weights, "-o", tmp_path / "m.onnx", "--batch", 0], 2, "--batch"),
    ):
        result = export(*arguments)
        assert result.exit_code == code, result.output
        assert words in result.stderr
        assert "Traceback" not in result.output

    def fail(*arguments: object, **options: object) -> None:
        raise torch.onnx.OnnxExporterError("long text") from AssertionError("Input height (64) doesn't match\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", fail)
        with pytest.raises(
            DataError, match=r"cannot be exported at 64 x 64 pixels \(Input height \(64\) doesn't match\)"
        ):
            onnx_export.to_onnx(exported("convnext_atto")[0], SIZE)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "sjdl_model.onnx_export")
        patch.delattr("sjdl_model.onnx_export")
        patch.setitem(sys.modules, "onnx", None)
        result = export("--weights", weights, "-o", tmp_path / "m.onnx")
        assert result.exit_code == 1
        assert "pip install 'fvrid[onnx]'" in result.stderr
    assert not list(tmp_path.iterdir())
    assert weights.read_bytes() == content
