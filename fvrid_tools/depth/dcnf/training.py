"""Training of the field from images with exact depth: first the network by itself at every unit, then the exact
likelihood of the field of each image."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import files, images, pictures
from ...images import FloatArray, Uint8Image
from ...progress import Progress, silent
from ...records import FvridError, ImageRecord
from . import field
from .network import STRIDE, DCNFNetwork
from .similarities import similarities
from .superpixels import Superpixels

# The field's density has a variance of its own, 1/2: in this unit of d that is about what the network's errors have.
# In units of 1 they would weigh nothing beside the determinant, which asks for ever smoother fields.
_UNIT = 0.022


@dataclass(frozen=True, kw_only=True)
class DepthRecipe:
    """What decides the weights, beside the scenes."""

    seed: int = 0
    side: int = 128  # pixels a side, a multiple of 32
    batch: int = 32
    dense_epochs: int = 36
    field_epochs: int = 1
    lr: float = 2e-3
    field_lr: float = 1e-4
    beta_lr: float = 2e-2
    weight_decay: float = 1e-4
    bfloat16: bool = True  # of the trunk in the first stage; slow on CPUs that only emulate it
    region: int = 7  # pixels a side of an average superpixel, so that an image has as many as in use


@dataclass(frozen=True, slots=True)
class Scene:
    """An image that was decoded once: (H, W, 3), and its depth (H, W) in 16 bits."""

    image: Uint8Image
    levels: NDArray[np.uint16]

    @classmethod
    def of(cls, record: ImageRecord) -> "Scene":
        """Raises FvridError where it cannot be read."""
        image, depth = pictures.read_scene(record)
        return cls(image, images.levels_of_depth(depth))


def train(records: list[ImageRecord], recipe: DepthRecipe, progress: Progress = silent) -> DCNFNetwork:
    """Train on images that carry depth; `progress` counts images. The same records and recipe give the same weights.

    Raises FvridError where there are fewer images than a batch takes.
    """
    if len(records) < recipe.batch:
        raise FvridError(f"{len(records)} scenes to train on are fewer than a batch of {recipe.batch}; render more.")
    torch.manual_seed(recipe.seed)
    scenes = [Scene.of(record) for record in records]
    net = DCNFNetwork().to(memory_format=torch.channels_last)  # faster on CPUs
    steps = recipe.dense_epochs * (len(records) // recipe.batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    for epoch in range(recipe.dense_epochs):
        for shown, depths in batches(scenes, recipe, epoch):
            net.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                features = net.trunk(shown.contiguous(memory_format=torch.channels_last))
            loss = dense_loss(net.units(features.float()), depths)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            progress(len(shown))
    train_field(net, scenes, recipe, progress)
    return net.eval()


def rate(step: int, steps: int) -> float:
    """Of step 0 to `steps` - 1, as a share of the highest: up for a tenth of the way, then down to 0 by a cosine."""
    done = (step + 1) / max(1, steps)
    return min(done / 0.1, 0.5 * (1 + math.cos(math.pi * max(0.0, done - 0.1) / 0.9)))


def visits(count: int, recipe: DepthRecipe) -> int:
    """How many images a training of `count` images goes through."""
    return (recipe.dense_epochs + recipe.field_epochs) * (count // recipe.batch) * recipe.batch


def save(net: DCNFNetwork, path: Path, recipe: DepthRecipe, scenes: Any) -> None:
    """Write the weights as 16-bit floats, with how they came about: the recipe, that of the scenes, and versions."""
    versions = {name: version(name) for name in ("fvrid", "torch", "numpy", "scikit-image")}
    told = {"recipe": asdict(recipe), "scenes": scenes, "versions": versions}
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in net.state_dict().items()
    }
    metadata = {name: json.dumps(value, sort_keys=True) for name, value in told.items()}
    files.write_atomic(path, safetensors.torch.save(tensors, metadata))


def train_field(net: DCNFNetwork, scenes: list[Scene], recipe: DepthRecipe, progress: Progress) -> None:
    """The second stage: minus the log likelihood a superpixel, of head and betas; the trunk is left as it is."""
    net.eval()
    learned: list[dict[str, Any]] = [
        {"params": list(net.head.parameters())},
        {"params": [net.raw_betas], "lr": recipe.beta_lr, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(learned, lr=recipe.field_lr, weight_decay=recipe.weight_decay)
    with ThreadPoolExecutor(2) as threads:
        for epoch in range(recipe.dense_epochs, recipe.dense_epochs + recipe.field_epochs):
            for shown, depths in batches(scenes, recipe, epoch):
                cut = threads.map(lambda scene: _cut(scene, recipe.region), shown)
                with torch.no_grad():
                    features = net.trunk(shown)
                terms = []
                for (nodes, alike), depth, feature in zip(cut, depths, features, strict=True):
                    pooling = torch.from_numpy(nodes.pooling(*feature.shape[1:])).float()
                    a = field.precision(torch.from_numpy(alike), net.betas.double())
                    y = torch.from_numpy(nodes.mean(depth.numpy()[..., None].astype(np.float64))[:, 0])
                    z = net.pooled(feature, pooling).double()
                    terms.append(field.negative_log_likelihood(a, z / _UNIT, y / _UNIT) / nodes.count)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(torch.stack(terms).mean())
                optimizer.step()
                progress(len(shown))


def _cut(scene: Tensor, region: int) -> tuple[Superpixels, NDArray[np.float64]]:
    """Superpixels of an image (3, S, S) in [0, 1], and their similarities."""
    image = images.to_uint8(np.ascontiguousarray(scene.permute(1, 2, 0).numpy()))
    nodes = Superpixels.of(image, region)
    return nodes, similarities(image, nodes)


def dense_loss(z: Tensor, depth: Tensor) -> Tensor:
    """z: (B, H / 4, W / 4).  depth: (B, H, W).  Differences as they are, without the image's mean, of the slopes, and
    what the correlation within the image lacks of 1."""
    wanted = torch.nn.functional.avg_pool2d(depth[:, None], STRIDE)[:, 0]
    left = z - wanted
    centred = left - left.mean(dim=(1, 2), keepdim=True)
    slopes = (left[:, 1:] - left[:, :-1]).abs().mean() + (left[:, :, 1:] - left[:, :, :-1]).abs().mean()
    a, b = (x - x.mean(dim=(1, 2), keepdim=True) for x in (z, wanted))
    alike = (a * b).mean(dim=(1, 2)) / ((a.square().mean(dim=(1, 2)) * b.square().mean(dim=(1, 2))).sqrt() + 1e-4)
    return left.abs().mean() + centred.abs().mean() + 2 * slopes + (1 - alike).mean()


def batches(scenes: list[Scene], recipe: DepthRecipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, S, S) in [0, 1] and depths (B, S, S), augmented; every draw follows from seed, epoch and image.

    Threads make the next batch while the one before is worked on.
    """
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(scenes))

    def make(i: int) -> tuple[Uint8Image, FloatArray]:
        return augmented(scenes[i], recipe.side, np.random.default_rng([recipe.seed, epoch, i]))

    def collate(pairs: list[Future[tuple[Uint8Image, FloatArray]]]) -> tuple[Tensor, Tensor]:
        shown, depths = (np.stack(column) for column in zip(*(pair.result() for pair in pairs), strict=True))
        return torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(depths)

    with ThreadPoolExecutor(2) as threads:
        coming: list[Future[tuple[Uint8Image, FloatArray]]] = []
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
            ready, coming = coming, [threads.submit(make, int(i)) for i in order[start : start + recipe.batch]]
            if ready:
                yield collate(ready)
        if coming:
            yield collate(coming)


def augmented(scene: Scene, side: int, rng: np.random.Generator) -> tuple[Uint8Image, FloatArray]:
    """An image (S, S, 3) and its depth (S, S): cut, mirrored, coarsened, blurred, coded, lit otherwise."""
    image = scene.image
    height, width = image.shape[:2]
    aspect = float(np.clip(np.exp(rng.normal(0, 0.35)), 0.4, 2.5))  # width over height, as boxes of vehicles have it
    window = _part(rng, height, min(1.0, 1 / aspect)), _part(rng, width, min(1.0, aspect))
    image, depth = image[window], images.depth_of_levels(scene.levels[window])
    if rng.random() < 0.5:
        image, depth = image[:, ::-1], depth[:, ::-1]
    image = np.ascontiguousarray(image)
    native = int(np.exp(rng.uniform(np.log(40), np.log(300))))  # pixels that the camera had for the longer side
    if native < max(image.shape[:2]):
        image = images.shrink(image, native)
    if rng.random() < 0.3:
        image = images.blur(image, float(rng.uniform(0.3, 1.2)) * max(image.shape) / side)
    image = images.decode(images.encode_jpeg(image, int(rng.integers(40, 96)), "420"))
    image = images.stretch(image, side)
    gain = np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.08, 3))
    curve = np.exp(rng.normal(0, 0.2))
    shades = np.clip((np.arange(256)[:, None] / 255) ** curve * gain, 0, 1) * 255
    lit = np.stack([shades[:, c].astype(np.uint8)[image[..., c]] for c in range(3)], -1)
    if rng.random() < 0.15:
        lit = np.repeat(lit.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    return lit, images.resize_map(np.ascontiguousarray(depth), side, side)


def _part(rng: np.random.Generator, length: int, share: float) -> slice:
    """About `share` of a side, and rather its middle."""
    kept = max(1, round(length * share * rng.uniform(0.8, 1)))
    start = round((length - kept) * rng.beta(2, 2))
    return slice(start, start + kept)
