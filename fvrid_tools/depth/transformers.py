"""Depth of a depth-estimation model of the transformers library, from its hub or a local folder: extra `hf`.

Metric models give distance directly. Relative ones (MiDaS, DPT, Depth Anything) give inverse distance of unknown scale
and shift: taken between their first and last percentile, and between the distances that a vehicle's crop shows.
"""

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from ..images import FloatArray, Uint8Image
from ..records import FARTHEST_M, FvridError, ImageRecord

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

        return {"torch": str(torch.__version__), "transformers": transformers.__version__}

    def load(self) -> None:
        """Load the model now. Raises FvridError where it cannot be had."""
        _load(self.model)

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32. Raises FvridError as `load` does."""
        import torch

        processor, net, kind = _load(self.model)
        inputs = processor(images=image, return_tensors="pt").to(net.device)
        with torch.inference_mode():
            predicted = net(**inputs).predicted_depth[None].float()
        full = torch.nn.functional.interpolate(predicted, image.shape[:2], mode="bicubic", align_corners=False)
        return log_distance(full[0, 0].cpu().numpy(), kind)


def log_distance(predicted: FloatArray, kind: Literal["metric", "relative"]) -> FloatArray:
    """A model's output (H, W), metres or relative inverse distance -> d in [0, 1], float32."""
    if kind == "relative":
        low, high = np.percentile(predicted, (1, 99))
        u = np.clip((predicted - low) / max(high - low, 1e-12), 0, 1)
        predicted = 1 / (u / NEAR + (1 - u) / FAR)
    return np.asarray(np.log(np.clip(predicted, 1, FARTHEST_M)) / np.log(FARTHEST_M), np.float32)


@cache
def _load(model: str) -> tuple[Any, Any, Literal["metric", "relative"]]:
    try:
        import torch
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation
    except ImportError:
        raise FvridError("--depth hf: needs transformers and torch: pip install 'fvrid[hf]'.") from None
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # its tries; the error tells the end of them
    try:
        processor = AutoImageProcessor.from_pretrained(model)
        net = AutoModelForDepthEstimation.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        raise FvridError(
            f"--depth hf:{model}: not to be had ({str(error).splitlines()[0][:300]}); name a model of the hub that is"
            " reachable, or a folder that holds one."
        ) from None
    said = getattr(net.config, "depth_estimation_type", None)
    metric = said == "metric" or (said is None and net.config.model_type in _METRIC)
    return processor, net.to("cuda" if torch.cuda.is_available() else "cpu"), "metric" if metric else "relative"
