"""Depth of a depth-estimation model of the transformers library, from its hub or a local folder: extra `hf`.

Metric models give distance directly. Relative ones (MiDaS, DPT, Depth Anything) give inverse distance of unknown scale
and shift: taken between their first and last percentile, and between the distances that a vehicle's crop shows.
"""

import hashlib
import inspect
import logging
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from ..fog import depth_of
from ..images import FloatArray, Uint8Image
from ..records import FvridError, ImageRecord

NEAR, FAR = 6.0, 20.0  # metres: what a crop of a vehicle shows
_METRIC = ("depth_pro", "glpn", "zoedepth")


@dataclass(frozen=True)
class TransformersDepth:
    """A model by its name on the hub, such as depth-anything/Depth-Anything-V2-Small-hf, or by its folder."""

    model: str

    @property
    def name(self) -> str:
        return f"hf:{self.model}"

    @property
    def versions(self) -> dict[str, str]:
        import torch
        import transformers

        net = _load(self.model)[1]
        packages = {"torch": str(torch.__version__), "transformers": transformers.__version__}
        return packages | {"weights": _weights(self.model), "device": net.device.type}

    def load(self) -> None:
        """Load the model now. Raises FvridError where it cannot be had."""
        _load(self.model)

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32. Raises FvridError as `load` does."""
        from .inference import inference

        processor, net, kind = _load(self.model)
        sizes = {"target_sizes": [image.shape[:2]]}
        finish = processor.post_process_depth_estimation  # takes padding off, makes metres of Depth Pro's inverse
        if "source_sizes" in inspect.signature(finish).parameters:
            sizes["source_sizes"] = [image.shape[:2]]
        with inference():
            output = net(**processor(images=image, return_tensors="pt").to(net.device))
            (found,) = finish(output, **sizes)
            return log_distance(found["predicted_depth"].float().cpu().numpy(), kind)


def log_distance(predicted: FloatArray, kind: Literal["metric", "relative"]) -> FloatArray:
    """A model's output (H, W), metres or relative inverse distance -> d in [0, 1], float32."""
    if kind == "relative":
        low, high = np.percentile(predicted, (1, 99))
        u = np.clip((predicted - low) / max(high - low, 1e-12), 0, 1)
        predicted = 1 / (u / NEAR + (1 - u) / FAR)
    return np.asarray(depth_of(predicted), np.float32)


@cache
def _load(model: str) -> tuple[Any, Any, Literal["metric", "relative"]]:
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        from .inference import inference
    except ImportError:
        raise FvridError("--depth hf: needs transformers and torch: pip install 'fvrid[hf]'.") from None
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # its tries; the error tells the end of them
    try:
        processor = AutoImageProcessor.from_pretrained(model)
        net = AutoModelForDepthEstimation.from_pretrained(model).eval()
    except (OSError, ValueError, SafetensorError) as error:
        raise FvridError(
            f"--depth hf:{model}: cannot be loaded ({str(error).splitlines()[0][:300]}); name a model of the hub that"
            " is reachable, or a folder that holds one."
        ) from None
    said = getattr(net.config, "depth_estimation_type", None)
    metric = said == "metric" or (said is None and net.config.model_type in _METRIC)
    with inference():
        net = net.to("cuda" if torch.cuda.is_available() else "cpu")
    return processor, net, "metric" if metric else "relative"


@cache
def _weights(model: str) -> str:
    """A hash of the weights, wherever they are from."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(_load(model)[1].state_dict().items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()
