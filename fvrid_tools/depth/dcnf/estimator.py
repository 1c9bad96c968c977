"""The two estimators of this kind: our own small network, and the original's model read from its file."""

import math
import shlex
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import files, images
from ...fog import depth_of
from ...images import FloatArray, Uint8Image
from ...records import FARTHEST_M, FvridError, ImageRecord
from .. import Refinement
from ..inference import inference
from . import field, matconvnet, refine
from .network import DCNFNetwork
from .similarities import similarities
from .superpixels import Superpixels

WEIGHTS = Path(__file__).with_name("dcnf.safetensors")
_METHOD = "2"  # raised with whatever changes depth that is made with the same weights
SIDE = 128  # pixels a side of the network's input, as in training
NODES = 334  # superpixels of an image, about
_LARGEST = 160  # pixels of the longer side of the image that is cut into superpixels
_REACH = 0.3  # of the guided filter, in sides of a superpixel: larger ones blur what is beside an edge
_FINEST = 640  # and of the image whose edges the guided filter follows
_ORIGINAL_LARGEST, _ORIGINAL_REGION = 600, 16  # of the original's outdoor model


@dataclass(frozen=True)
class DCNF:
    """Our network, of a safetensors file; the package has one."""

    weights: Path | None = None  # None: the package's, wherever that lies on the machine that works
    refine: Refinement = "guided"

    @property
    def name(self) -> str:
        spec = "dcnf" if self.weights is None else shlex.quote(f"dcnf:{self.weights}")
        return spec + ("" if self.refine == "guided" else f" --refine {self.refine}")

    @property
    def versions(self) -> dict[str, str]:
        return _versions(self.weights or WEIGHTS)

    def load(self) -> None:
        """Read the file now. Raises FvridError where the weights are not ours."""
        _load(self.weights or WEIGHTS)

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32. Raises FvridError where the weights are not ours."""
        net, device = _load(self.weights or WEIGHTS)
        small = images.shrink(image, _LARGEST)
        nodes = Superpixels.of(small, region_of(small))
        with inference():
            scene = torch.from_numpy(images.stretch(image, SIDE)).to(device).permute(2, 0, 1)[None].float() / 255
            z = unary(net, both_ways(net, scene)[0], nodes)
            y = most_probable(small, nodes, z, net.betas)
        return to_pixels(image, small, nodes, y, self.refine)


@dataclass(frozen=True)
class OriginalDCNF:
    """The original's model, read from its MatConvNet file."""

    file: Path
    refine: Refinement = "levin"

    @property
    def name(self) -> str:
        return shlex.quote(f"dcnf-mat:{self.file}") + ("" if self.refine == "levin" else f" --refine {self.refine}")

    @property
    def versions(self) -> dict[str, str]:
        return _versions(self.file)

    def load(self) -> None:
        """Read the file now. Raises FvridError naming what of it is not understood."""
        _load_original(self.file)

    def predict(self, image: Uint8Image, record: ImageRecord) -> FloatArray:
        """(H, W, 3) -> (H, W) float32. Raises FvridError as `load` does."""
        model = _load_original(self.file)
        small = images.shrink(image, _ORIGINAL_LARGEST)
        nodes = Superpixels.of(small, _ORIGINAL_REGION)
        with inference():
            x = torch.from_numpy(small.astype(np.float32)).permute(2, 0, 1)[None] - model.mean
            features = matconvnet.run(model.trunk, x)[0]
            pooling = torch.from_numpy(nodes.pooling(*features.shape[1:])).float()
            pooled = (pooling @ features.flatten(1).T).T[None, :, :, None]  # (1, C, n, 1)
            z = matconvnet.run(model.head, pooled).flatten()
            y = most_probable(small, nodes, z, model.betas)
        metres = model.metres(y)
        return to_pixels(image, small, nodes, depth_of(metres), self.refine)


def region_of(image: Uint8Image) -> int:
    """Pixels a side of a superpixel, of which an image is to have about NODES."""
    height, width = image.shape[:2]
    return max(3, round(math.sqrt(height * width / NODES)))


def both_ways(net: DCNFNetwork, scenes: Tensor) -> Tensor:
    """The trunk's features of images (B, 3, H, W), and of them mirrored and mirrored back: (B, 2, C, h, w)."""
    as_they_are, mirrored = net.trunk(torch.cat([scenes, scenes.flip(3)])).chunk(2)
    return torch.stack([as_they_are, mirrored.flip(3)], dim=1)


def unary(net: DCNFNetwork, both: Tensor, nodes: Superpixels) -> Tensor:
    """z of the superpixels of an image, (n,), the mean over its features `both` (2, C, h, w)."""
    pooling = torch.from_numpy(nodes.pooling(*both.shape[2:])).to(both)
    return (net.pooled(both[0], pooling) + net.pooled(both[1], pooling)) / 2


def most_probable(image: Uint8Image, nodes: Superpixels, z: Tensor, betas: Tensor) -> NDArray[np.float64]:
    """y* (n,) of the network's z (n,)."""
    alike = torch.from_numpy(similarities(image, nodes))
    a = field.precision(alike, betas.double().cpu())
    found: NDArray[np.float64] = field.most_probable(a, z.double().cpu()).numpy()
    return found


def to_pixels(
    image: Uint8Image, small: Uint8Image, nodes: Superpixels, d: NDArray[np.float64], how: Refinement
) -> FloatArray:
    """Depth (H, W) of the image, from d (n,) of the superpixels of its smaller version."""
    d = d.clip(0, 1)
    if how == "levin":  # solved in metres, as the original does
        seeds = np.full(small.shape[:2], np.nan)
        rows, columns = nodes.centres().T
        seeds[rows, columns] = FARTHEST_M ** d[nodes.labels[rows, columns]]
        found = depth_of(refine.colorize(small, seeds))
    elif how == "guided":
        fine = images.shrink(image, _FINEST)
        coarse = images.resize_map(d[nodes.labels].astype(np.float32), *fine.shape[:2])
        found = refine.guided(fine, coarse.astype(np.float64), max(1, round(_REACH * region_of(fine))))
    else:
        found = d[nodes.labels]
    return images.resize_map(found.clip(0, 1).astype(np.float32), *image.shape[:2])


@cache
def _versions(path: Path) -> dict[str, str]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    packages = {name: version(name) for name in ("torch", "scikit-image", "scipy")} | {"dcnf": _METHOD}
    return packages | {path.name: files.sha256_file(path), "device": device}


def read_network(path: Path) -> DCNFNetwork:
    """Our network, ready to be used. Raises FvridError where the file holds no weights of it."""
    net = DCNFNetwork()
    try:
        net.load_state_dict(safetensors.torch.load_file(path))  # 16-bit floats become 32-bit
    except FileNotFoundError:
        raise FvridError(f"{path}: no such weights file; install fvrid again, or name another.") from None
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0][:120]
        raise FvridError(f"{path}: not weights of a DCNF network ({reason}); name another file.") from None
    return net.eval()


@cache
def _load(path: Path) -> tuple[DCNFNetwork, torch.device]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = read_network(path)
    with inference():
        return net.to(device), device


@cache
def _load_original(path: Path) -> matconvnet.OriginalModel:
    return matconvnet.load(path)
