"""The continuous conditional random field over superpixels (Liu et al. 2015, Eqs. 2 to 11), exact.

    E(y, x) = sum_p (y_p - z_p)^2 + sum_{pq} 1/2 R_pq (y_p - y_q)^2,   R = sum_k beta_k S^k, beta_k >= 0
            = y' A y - 2 z' y + z' z,                                   A = I + sum_k beta_k (D^k - S^k)

over ordered pairs of superpixels that touch. A is positive definite, so the most probable depth and the likelihood
are closed forms.
"""

import math

import torch
from torch import Tensor


def precision(similarities: Tensor, betas: Tensor) -> Tensor:
    """A, (n, n), of similarities (K, n, n), symmetric and not negative, and betas (K,), not negative."""
    laplacians = torch.diag_embed(similarities.sum(dim=2)) - similarities
    identity = torch.eye(similarities.shape[1], dtype=similarities.dtype, device=similarities.device)
    return identity + torch.einsum("k,kpq->pq", betas, laplacians)


def most_probable(a: Tensor, z: Tensor) -> Tensor:
    """y* = A^-1 z, (n,): the depth of the largest likelihood, for the network's z (n,)."""
    return torch.cholesky_solve(z[:, None], torch.linalg.cholesky(a))[:, 0]


def negative_log_likelihood(a: Tensor, z: Tensor, y: Tensor) -> Tensor:
    """- log p(y | x) of depths y (n,), a scalar: (y - y*)' A (y - y*) - 1/2 log|A| + n/2 log pi."""
    factor = torch.linalg.cholesky(a)
    left = y - torch.cholesky_solve(z[:, None], factor)[:, 0]
    log_det = 2 * factor.diagonal().log().sum()
    result: Tensor = left @ a @ left - log_det / 2 + len(y) / 2 * math.log(math.pi)
    return result
