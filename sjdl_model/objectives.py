"""Which terms a batch of each domain is trained with: Eq. 5 (synthetic) and Eqs. 11, 12 (real)."""

from dataclasses import asdict

import torch
from torch import Tensor, nn

from . import losses, processes
from .config import Recipe, Weights
from .data import Batch
from .network import SJDL, Gather, SJDLOutput, as_it_is

_SYNTHETIC_IMAGE_TERMS = ("restoration",)
_REAL_IMAGE_TERMS = ("color_entropy", "dark_channel", "total_variation", "self_constraint")
_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Objective(nn.Module):
    """The network with its losses, as one module: what DistributedDataParallel needs to see gradients made."""

    def __init__(self, net: SJDL, recipe: Recipe) -> None:
        super().__init__()
        self.net, self.recipe = net, recipe

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`terms` of a batch, those of features over the batches of all processes."""
        return terms(self.net, batch, self.recipe, processes.gather)


def defogs(weights: Weights, *, real: bool) -> bool:
    """Whether any term of a domain is about the defogged image."""
    return any(getattr(weights, name) for name in (_REAL_IMAGE_TERMS if real else _SYNTHETIC_IMAGE_TERMS))


def terms(net: SJDL, batch: Batch, recipe: Recipe, gather: Gather = as_it_is) -> dict[str, Tensor]:
    """Run the network on a batch and return the terms of its domain whose weight is not 0, unweighted.

    gather: joins features and labels of the processes that share a batch.
    """
    out = run_network(net, batch.foggy, defogs(recipe.weights, real=batch.clear is None), recipe.precision, gather)
    found = reid_terms(out, batch._replace(label=gather(batch.label)), recipe)
    if out.defogged is not None:
        if batch.clear is not None:
            found["restoration"] = losses.restoration_loss(out.defogged, batch.clear, recipe.restoration_norm)
        else:
            found |= unsupervised_terms(out.defogged, batch.foggy, recipe)
    return found


def run_network(net: SJDL, foggy: Tensor, defog: bool, precision: str, gather: Gather = as_it_is) -> SJDLOutput:
    """The network's output in float32, its products being made in `precision`."""
    with torch.autocast(foggy.device.type, _PRECISIONS.get(precision), enabled=precision in _PRECISIONS):
        out = net(foggy, defog=defog, gather=gather)
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
