"""Which terms a batch of each domain is trained with: Eq. 5 (synthetic) and Eqs. 11, 12 (real)."""

from dataclasses import asdict

import torch
from torch import Tensor

from . import losses
from .config import Recipe, Weights
from .data import Batch
from .network import SJDL, SJDLOutput

_REAL_IMAGE_TERMS = ("color_entropy", "dark_channel", "total_variation", "self_constraint")


def terms(net: SJDL, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """Run the network on a batch and return the terms of its domain whose weight is not 0, unweighted."""
    weights = recipe.weights
    image_terms = ("restoration",) if batch.clear is not None else _REAL_IMAGE_TERMS
    out = run_network(net, batch.foggy, any(getattr(weights, name) for name in image_terms), recipe.precision)
    found = reid_terms(out, batch, recipe)
    if out.defogged is not None:
        if batch.clear is not None:
            found["restoration"] = losses.restoration_loss(out.defogged, batch.clear, recipe.restoration_norm)
        else:
            found |= unsupervised_terms(out.defogged, batch.foggy, recipe)
    return found


def run_network(net: SJDL, foggy: Tensor, defog: bool, precision: str) -> SJDLOutput:
    """The network's output in float32, its products being made in `precision`."""
    with torch.autocast(foggy.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        out = net(foggy, defog=defog)
    return SJDLOutput._make(None if tensor is None else tensor.float() for tensor in out)


def reid_terms(out: SJDLOutput, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """Eqs. 2 and 3, with the classifier of the batch's domain."""
    logits = out.logits_synthetic if batch.clear is not None else out.logits_real
    assert logits is not None, "a real batch needs a network with real vehicles"
    found = {}
    if recipe.weights.triplet:
        found["triplet"] = losses.batch_hard_triplet_loss(out.feature, batch.label, recipe.margin)
    if recipe.weights.identity:
        found["identity"] = losses.identity_loss(logits, batch.label, recipe.label_smoothing)
    return found


def unsupervised_terms(defogged: Tensor, foggy: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    """L_DFu of Eq. 11, term by term."""
    weights = recipe.weights
    found = {}
    if weights.color_entropy:
        found["color_entropy"] = losses.color_entropy_loss(defogged)
    if weights.dark_channel:
        found["dark_channel"] = losses.dark_channel_loss(defogged)
    if weights.total_variation:
        found["total_variation"] = losses.total_variation_loss(defogged)
    if weights.self_constraint:
        found["self_constraint"] = losses.self_constraint_loss(defogged, foggy, recipe.self_constraint)
    return found


def total(found: dict[str, Tensor], weights: Weights) -> Tensor:
    """The weighted sum that is minimised."""
    factors = asdict(weights)
    return torch.stack([factors[name] * term for name, term in found.items()]).sum()
