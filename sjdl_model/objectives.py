"""Which terms a batch of each domain is trained with: Eq. 5 (synthetic) and Eqs. 11, 12 (real)."""

from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import losses, norms, processes
from .config import SUPERVISED_TERMS, UNSUPERVISED_TERMS, Recipe, Weights
from .data import Batch
from .devices import autocast
from .network import SJDL, Gather, SJDLOutput, as_it_is


class Objective(nn.Module):
    """The network with its losses, as one module: what DistributedDataParallel needs to see gradients made."""

    def __init__(self, net: SJDL, recipe: Recipe) -> None:
        super().__init__()
        self.net, self.recipe = net, recipe

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`terms` of a batch, those of features over the batches of all processes."""
        return terms(self.net, batch, self.recipe, processes.gather)


def defogs(weights: Weights, *, supervised: bool) -> bool:
    """Whether any term is about the defogged image: of images whose clear ones are known, or of the others."""
    return any(getattr(weights, name) for name in (SUPERVISED_TERMS if supervised else UNSUPERVISED_TERMS))


def agrees(weights: Weights) -> bool:
    """Whether any term compares a clear image with its foggy twin."""
    return bool(weights.agreement_shared or weights.agreement_embedding)


def terms(net: SJDL, batch: Batch, recipe: Recipe, gather: Gather = as_it_is) -> dict[str, Tensor]:
    """Run the network on a batch and return the terms of its domain whose weight is not 0, unweighted.

    gather: joins features and labels of the processes that share a batch.
    """
    truth = batch.clear if batch.domain == "synthetic" else batch.counterpart
    net.use_statistics_of(batch.domain)
    defog = defogs(recipe.weights, supervised=batch.domain == "synthetic" or truth is not None)
    out = run_network(net, batch.foggy, defog, recipe.precision, gather, batch.camera)
    found = reid_terms(out, batch._replace(label=gather(batch.label)), recipe)
    if out.defogged is not None:
        if truth is not None:
            found["restoration"] = losses.restoration_loss(out.defogged, truth, recipe.restoration_norm)
        else:
            found |= unsupervised_terms(out.defogged, batch.foggy, recipe)
    if batch.clear is not None and agrees(recipe.weights):
        with norms.unchanged(net):  # the test has no clear images
            twin = run_network(net, batch.clear, False, recipe.precision, gather, batch.camera)
        found |= agreement_terms(out, twin, recipe)
    return found


def run_network(
    net: SJDL, foggy: Tensor, defog: bool, precision: str, gather: Gather = as_it_is, camera: Tensor | None = None
) -> SJDLOutput:
    """The network's output in float32, but for the shared maps, its products being made in `precision`."""
    with autocast(precision, foggy.device):
        out: SJDLOutput = net(foggy, defog=defog, gather=gather, camera=camera)
    return out


def reid_terms(out: SJDLOutput, batch: Batch, recipe: Recipe) -> dict[str, Tensor]:
    """Eqs. 2 and 3, with the classifier of the batch's domain.

    Where the hardest pairs are all alike, features can pay the least by shrinking; embeddings of length 1 cannot."""
    logits = out.logits_synthetic if batch.domain == "synthetic" else out.logits_real
    assert logits is not None, "a real batch needs a network with real vehicles"
    found = {}
    if recipe.weights.triplet:
        compared = F.normalize(out.embedding) if recipe.unit_triplet else out.feature
        found["triplet"] = losses.batch_hard_triplet_loss(
            compared, batch.label, recipe.margin, all_positives=recipe.all_positives
        )
    if recipe.weights.identity:
        found["identity"] = losses.identity_loss(logits, batch.label, recipe.label_smoothing)
    return found


def agreement_terms(out: SJDLOutput, twin: SJDLOutput, recipe: Recipe) -> dict[str, Tensor]:
    """How far foggy images are from their clear twins for the network; the twins' clear features are pulled too."""
    found = {}
    if recipe.weights.agreement_shared:
        found["agreement_shared"] = losses.agreement_loss(out.shared, twin.shared)
    if recipe.weights.agreement_embedding:
        # after BN: before it all features are positive, and point the same way whatever they say
        found["agreement_embedding"] = losses.agreement_loss(out.embedding, twin.embedding)
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
