"""The two estimators of this kind: our own small network, and the original's model read from its file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import images as pictures
from ...images import FloatArray, Uint8Image
from ...records import FvridError, ImageRecord
from .. import FARTHEST_M
from . import field, matconvnet, refine
from .network import DCNFNetwork
from .similarities import similarities
from .superpixels import Superpixels

Refinement = Literal["guided", "levin", "none"]
SIDE = 128  # pixels a side of the network's input, and
NODES = 164  # superpixels, about: both as in training
_LARGEST = 320  # pixels of the longer side: larger images are estimated at this size
_ORIGINAL_LARGEST, _ORIGINAL_REGION = 600, 16  # of the original's outdoor model


@dataclass(frozen=True)
class DCNF:
    """Our network, of a safetensors file."""

    weights: Path
    refine: Refinement = "guided"
    batch_size: int = 16

    @property
    def name(self) -> str:
        return "dcnf"

    def predict(self, images: Sequence[Uint8Image], records: Sequence[ImageRecord]) -> list[FloatArray]:
        """(H, W, 3) each -> (H, W) float32 each. Raises FvridError where the weights are not ours."""
        net, device = _load(self.weights)
        stretched = np.stack([pictures.stretch(image, SIDE) for image in images])
        scenes = torch.from_numpy(stretched).to(device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            maps = net.trunk(scenes)
            made = []
            for image, features in zip(images, maps, strict=True):
                small = pictures.shrink(image, _LARGEST)
                nodes = Superpixels.of(small, region_of(small))
                pooling = torch.from_numpy(nodes.pooling(*features.shape[1:])).to(features)
                y = most_probable(small, nodes, net.pooled(features, pooling), net.betas)
                made.append(to_pixels(image, small, nodes, y, self.refine))
        return made


@dataclass(frozen=True)
class OriginalDCNF:
    """The original's model, read from its MatConvNet file."""

    file: Path
    refine: Refinement = "levin"
    batch_size: int = 1

    @property
    def name(self) -> str:
        return f"dcnf-mat:{self.file}"

    def load(self) -> None:
        """Read the file now. Raises FvridError naming what of it is not understood."""
        _load_original(self.file)

    def predict(self, images: Sequence[Uint8Image], records: Sequence[ImageRecord]) -> list[FloatArray]:
        """(H, W, 3) each -> (H, W) float32 each. Raises FvridError as `load` does."""
        model = _load_original(self.file)
        return [self._predict(model, image) for image in images]

    def _predict(self, model: matconvnet.OriginalModel, image: Uint8Image) -> FloatArray:
        small = pictures.shrink(image, _ORIGINAL_LARGEST)
        nodes = Superpixels.of(small, _ORIGINAL_REGION)
        with torch.inference_mode():
            x = torch.from_numpy(small.astype(np.float32)).permute(2, 0, 1)[None] - model.mean
            features = matconvnet.run(model.trunk, x)[0]
            pooling = torch.from_numpy(nodes.pooling(*features.shape[1:])).float()
            pooled = (pooling @ features.flatten(1).T).T[None, :, :, None]  # (1, C, n, 1)
            z = matconvnet.run(model.head, pooled).flatten()
            y = most_probable(small, nodes, z, model.betas)
        metres = model.metres(y)
        return to_pixels(image, small, nodes, np.log(np.clip(metres, 1, FARTHEST_M)) / np.log(FARTHEST_M), self.refine)


def region_of(image: Uint8Image) -> int:
    """Pixels a side of a superpixel, of which an image is to have about NODES."""
    height, width = image.shape[:2]
    return max(3, round(math.sqrt(height * width / NODES)))


def most_probable(image: Uint8Image, nodes: Superpixels, z: Tensor, betas: Tensor) -> NDArray[np.float64]:
    """y* (n,) of the network's z (n,)."""
    alike = torch.from_numpy(similarities(image, nodes)).to(z.device)
    found: NDArray[np.float64] = field.most_probable(field.precision(alike, betas.double()), z.double()).cpu().numpy()
    return found


def to_pixels(
    image: Uint8Image, small: Uint8Image, nodes: Superpixels, d: NDArray[np.float64], how: Refinement
) -> FloatArray:
    """Depth (H, W) of the image, from d (n,) of the superpixels of its smaller version."""
    d = d.clip(0, 1)
    if how == "levin":  # solved in metres, as the original does
        seeds = np.full(small.shape[:2], np.nan)
        seeds[tuple(nodes.centres().T)] = FARTHEST_M**d
        found = np.log(np.clip(refine.colorize(small, seeds), 1, FARTHEST_M)) / np.log(FARTHEST_M)
    elif how == "guided":
        found = refine.guided(small, d[nodes.labels], region_of(small))
    else:
        found = d[nodes.labels]
    return pictures.resize_map(found.clip(0, 1).astype(np.float32), *image.shape[:2])


@cache
def _load(path: Path) -> tuple[DCNFNetwork, torch.device]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = DCNFNetwork()
    try:
        net.load_state_dict(safetensors.torch.load_file(path))  # 16-bit floats become 32-bit
    except FileNotFoundError:
        raise FvridError(f"{path}: no such weights file; install fvrid again, or name another.") from None
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0][:120]
        raise FvridError(f"{path}: not weights of a DCNF network ({reason}); name another file.") from None
    return net.to(device).eval(), device


@cache
def _load_original(path: Path) -> matconvnet.OriginalModel:
    return matconvnet.load(path)
