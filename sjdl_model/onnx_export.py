"""The re-identification branch, CFSM and ReIDM, as an ONNX model; nothing of the FIRM is in it.

torch's exporter by torch.export does it (the one by TorchScript is deprecated), without its own optimisation: that
would melt batch norms into convolutions, as every runtime does when it loads the model, and parameters would no longer
be those of the weights file. What is left to tidy is done here. Needs the extra `onnx`.
"""

import math
from importlib.metadata import version

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import numpy_helper, shape_inference
from torch import Tensor, nn
from torch.onnx import OnnxExporterError
from torch.utils.flop_counter import FlopCounterMode

from .config import DataError
from .network import SJDL

INPUT, OUTPUT = "image", "embedding"
_MOST_BYTES = 2**31 - 2**24  # of weights: a model of 2 GiB is no longer one file


class _Embedder(nn.Module):
    """`net.embed` with the modules that it needs, under their names in the weights file."""

    def __init__(self, net: SJDL, before_bn: bool) -> None:
        super().__init__()
        self.backbone, self.neck = net.backbone, net.neck
        self._whole = (net,)  # in a tuple, so that the FIRM and the classifiers are no parts of this module
        self._before_bn = before_bn

    def forward(self, image: Tensor) -> Tensor:
        return self._whole[0].embed(image, self._before_bn)


def to_onnx(
    net: SJDL, size: int, *, before_bn: bool = False, batch: int | None = None, facts: dict[str, str] | None = None
) -> onnx.ModelProto:
    """The model image (batch, 3, size, size) float32 in [0, 1] -> embedding (batch, D), normalisation inside.

    batch: a fixed number of images; None: any.  facts: join image_size, feature and fvrid_version in the metadata.
    The initializers bear the names of the weights file.
    Raises DataError where the backbone cannot be exported, or is too large for one file.
    """
    net.eval()
    if sum(p.numel() * p.element_size() for p in net.backbone.parameters()) > _MOST_BYTES:
        raise DataError("weights of 2 GB and more do not fit into one ONNX file; take a smaller backbone.")
    example = torch.zeros(batch or 2, 3, size, size, device=next(net.parameters()).device)
    part = _Embedder(net, before_bn).eval()
    try:
        program = torch.onnx.export(
            part,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=None if batch else {"image": {0: torch.export.Dim("batch")}},
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    except OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines() or [""]
        raise DataError(f"this backbone cannot be exported at {size} x {size} pixels ({cause[0][:160]}).") from None
    assert program is not None
    names = {name for name, _ in part.named_parameters()}
    onnxscript.optimizer.fold_constants(program.model, should_fold=lambda node: _may_be_folded(node, names))
    onnxscript.optimizer.remove_unused_nodes(program.model)
    model: onnx.ModelProto = program.model_proto
    _tidy(model.graph, names)
    feature = "before-bn" if before_bn else "after-bn"
    told = {"image_size": str(size), "feature": feature, "fvrid_version": version("fvrid"), **(facts or {})}
    onnx.helper.set_model_props(model, told)
    model.doc_string = (
        f"Embeddings of vehicle images, to be compared by Euclidean distance. {INPUT}: RGB in [0, 1], each image "
        f"resized to {size} x {size} (bilinear, antialiased)."
    )
    onnx.checker.check_model(model)
    return model


def _may_be_folded(node: "onnxscript.ir.Node", parameters: set[str]) -> bool | None:
    """Not what is computed of a parameter's values, which is to stay a parameter; None: as the optimizer likes."""
    of_values = node.op_type != "Shape" and any(value is not None and value.name in parameters for value in node.inputs)
    return False if of_values else None


def _tidy(graph: onnx.GraphProto, parameters: set[str]) -> None:
    """Drop the biases of zeros that the exporter gives to convolutions without one, and the traces of this machine."""
    zeros = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.name not in parameters and not np.any(numpy_helper.to_array(tensor))
    }
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]
        del node.metadata_props[:]
    used = {name for node in graph.node for name in node.input}
    for name in zeros.keys() - used:
        graph.initializer.remove(zeros[name])
    del graph.metadata_props[:], graph.value_info[:]
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]


def parameters(model: onnx.ModelProto, net: SJDL) -> int:
    """Of the network's own parameters, how many numbers the model holds."""
    names = {name for name, _ in net.named_parameters()}
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.name in names)


def flops(model: onnx.ModelProto) -> int:
    """Of one image, two a multiply-add of every convolution and matrix product, counted from the graph."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    batch = fixed.graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_value:
        batch.dim_value = 1
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
    shapes = {value.name: _dims(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return 2 * sum(_multiply_adds(node, shapes) for node in graph.node) // int(batch.dim_value)


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _multiply_adds(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])  # (out, in / groups, h, w)
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        turned = any(one.name == "transA" and one.i for one in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else 1]
    return 0


@torch.inference_mode()
def backbone_flops(net: SJDL, size: int) -> int:
    """What torch counts for one image through the plain backbone."""
    image = torch.zeros(1, 3, size, size, device=next(net.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        net.backbone(image)
    return int(counter.get_total_flops())
