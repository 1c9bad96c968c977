"""The same few images, looked at after every epoch: what the defogger makes of the validation images, and how hard each
term pulls at the shared stage for a few training images. Neither mAP nor the losses show a defogger that has
collapsed."""

from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from fvrid_tools import images
from fvrid_tools.images import Uint8Image

from .config import Recipe
from .data import Batch, TrainingSet, collate
from .network import SJDL
from .objectives import terms

VEHICLES, IMAGES = 4, 2  # of each, for the gradients: the triplet loss needs two images of a vehicle
_LOST = 0.5  # a correlation with the truth below this share of the foggy input's: the picture is gone
_COPIED = 0.02  # a mean difference to the foggy input below this: nothing was done


def pairs(training: TrainingSet) -> Batch:
    """Eight images of a training set, of vehicles evenly spaced in it, as they are."""
    labels = np.asarray(training.labels)
    chosen = np.linspace(0, training.num_vehicles - 1, VEHICLES).round().astype(int)
    positions = [np.resize(np.flatnonzero(labels == label), IMAGES) for label in chosen]
    return collate([training.as_it_is(int(position)) for position in np.concatenate(positions)])


@torch.inference_mode()
def defogged(net: SJDL, batch: Batch) -> Tensor:
    """(B, 3, S, S) in [0, 1] of a batch that is on the network's device."""
    return net.eval().defog(batch.foggy)


def quality(output: Tensor, batch: Batch) -> dict[str, float]:
    """Of defogged images whose clear ones are known: PSNR and correlation with them, and the foggy input's."""
    assert batch.clear is not None
    return {
        "psnr": psnr(output, batch.clear),
        "psnr_foggy": psnr(batch.foggy, batch.clear),
        "correlation": correlation(output, batch.clear),
        "correlation_foggy": correlation(batch.foggy, batch.clear),
        "change": float((output - batch.foggy).abs().mean()),
    }


def psnr(image: Tensor, truth: Tensor) -> float:
    """Mean over the images of 10 log10(1 / mean squared error), in dB.  (B, 3, H, W) in [0, 1], both."""
    errors = (image.float() - truth.float()).square().flatten(1).mean(dim=1)
    return float((-10 * torch.log10(errors.clamp_min(1e-10))).mean())


def correlation(image: Tensor, truth: Tensor) -> float:
    """Mean over the images of Pearson's correlation of all their values; 0 of an image of one value."""
    a, b = ((x - x.mean(dim=1, keepdim=True)).double() for x in (image.flatten(1), truth.flatten(1)))
    spread = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return float(((a * b).sum(dim=1) / spread.clamp_min(1e-12)).mean())


def verdict(found: dict[str, float], *, warming_up: bool = False) -> str:
    """What `quality` says, in words. While the learning rate still rises nothing is held against the network."""
    values = (
        f"PSNR {found['psnr']:.1f} dB against {found['psnr_foggy']:.1f} dB of the foggy images, correlation with the "
        f"truth {found['correlation']:.2f} against {found['correlation_foggy']:.2f}"
    )
    if warming_up:
        return f"warming up ({values})"
    if not found["correlation"] >= _LOST * found["correlation_foggy"]:  # so is what is not a number
        return f"collapsed: the output no longer shows the image ({values})"
    if found["change"] < _COPIED:
        return f"copies the fog: the output is the input ({values})"
    if found["psnr"] < found["psnr_foggy"]:
        return f"no gain: the output is farther from the clear images than the fog is ({values})"
    return f"defogs ({values})"


def gradients(net: SJDL, batch: Batch, recipe: Recipe) -> dict[str, float]:
    """By term, the L2 norm of its weighted gradient to the weights of the shared stages (CFSM), in eval mode."""
    net.eval()
    recipe = replace(recipe, precision="float32")  # small gradients would vanish in float16
    shared = _shared_parameters(net, batch.foggy)
    factors = asdict(recipe.weights)
    sizes = {}
    found = terms(net, batch, recipe)
    for i, (name, term) in enumerate(found.items()):
        pulls = torch.autograd.grad(factors[name] * term, shared, retain_graph=i + 1 < len(found), allow_unused=True)
        sizes[name] = float(sum(pull.double().square().sum() for pull in pulls if pull is not None)) ** 0.5
    return sizes


def _shared_parameters(net: SJDL, foggy: Tensor) -> list[Tensor]:
    """Those that the shared map depends on, whatever the backbone calls its parts."""
    every = [p for p in net.backbone.parameters() if p.requires_grad]
    reach = torch.autograd.grad(net.maps(foggy[:1])[net.shared].sum(), every, allow_unused=True)
    return [p for p, found in zip(every, reach, strict=True) if found is not None]


def strip(batch: Batch, output: Tensor | None) -> Uint8Image:
    """foggy | defogged | clear, a row an image, as far as they are known."""
    columns = [part for part in (batch.foggy, output, batch.clear) if part is not None]
    picture = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)  # (3, B * S, columns * S)
    return images.to_uint8(np.ascontiguousarray(picture.permute(1, 2, 0).float().nan_to_num().cpu().numpy()))


class Watch:
    """The watched images of both domains on the training device."""

    def __init__(
        self,
        sets: dict[str, TrainingSet],
        validation: dict[str, TrainingSet],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        """sets, validation: by domain, "synthetic" and where there is one "real"."""
        self._recipe = recipe
        self._pairs = {domain: pairs(training).to(device) for domain, training in sets.items()}
        self._validation = {
            domain: collate([held.as_it_is(i) for i in range(len(held))]).to(device)
            for domain, held in validation.items()
        }

    def look(self, net: SJDL) -> tuple[dict[str, float], dict[str, Uint8Image]]:
        """Numbers ("defogging/psnr", "synthetic/gradient/triplet", ...) and, by domain, pictures. The network is in
        eval mode afterwards, and nothing else of it is changed."""
        numbers: dict[str, float] = {}
        pictures = {}
        for domain, batch in self._validation.items():
            net.use_statistics_of(domain)
            output = defogged(net, batch) if net.defogs else None
            pictures[domain] = strip(batch, output)
            if output is not None and batch.clear is not None:
                numbers |= {f"defogging/{name}": value for name, value in quality(output, batch).items()}
        for domain, batch in self._pairs.items():
            sizes = gradients(net, batch, self._recipe)
            numbers |= {f"{domain}/gradient/{name}": value for name, value in sizes.items()}
        return numbers, pictures
