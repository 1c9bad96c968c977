"""The terms of Eqs. 2 to 10, one pure function each, over the whole batch.

Images are (B, 3, H, W) in [0, 1]; every function returns a scalar that minimising improves, computed in float32.
The weights of the paper belong to sums over images of 384 x 384 pixels; the terms keep that meaning at every size, but
for the L2 norm of Eq. 4, which grows with the side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PUBLISHED_SIZE = 384  # pixels; the side of the paper's images
DARK_CHANNEL_WINDOW = 35  # pixels; the released code's, the paper gives none


def batch_hard_triplet_loss(feature: Tensor, label: Tensor, margin: float, *, all_positives: bool = False) -> Tensor:
    """Eq. 2: hinge on the farthest image of the same vehicle and the nearest of another, Euclidean.

    feature: (B, D).  label: (B,), at least two vehicles.
    all_positives: on each other image of the same vehicle in turn, not the farthest alone (not of the paper): in fog
    the farthest is the one that shows least. Each vehicle needs two images.
    """
    # a matrix product would be faster, and wrong for near neighbours
    distance = torch.cdist(feature.float(), feature.float(), compute_mode="donot_use_mm_for_euclid_dist")  # (B, B)
    same = label[:, None] == label[None, :]
    if all_positives:
        nearest_negative = distance.masked_fill(same, torch.inf).amin(dim=1, keepdim=True)
        positive = same & ~torch.eye(len(label), dtype=torch.bool, device=label.device)
        hinge = F.relu(distance - nearest_negative + margin)
        return hinge.masked_fill(~positive, 0).sum() / positive.sum()  # picking them would have a GPU wait for the CPU
    farthest_positive = distance.masked_fill(~same, -torch.inf).amax(dim=1)
    nearest_negative = distance.masked_fill(same, torch.inf).amin(dim=1)
    return F.relu(farthest_positive - nearest_negative + margin).mean()


def identity_loss(logits: Tensor, label: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Eq. 3: cross entropy.  logits: (B, N).  label: (B,), 0..N-1."""
    return F.cross_entropy(logits.float(), label, label_smoothing=label_smoothing)


def restoration_loss(defogged: Tensor, clear: Tensor, norm: str = "l2") -> Tensor:
    """Eq. 4: "l2", the mean over the batch of the L2 norm of the difference; or "mse", the mean of its squares."""
    if defogged.shape != clear.shape:
        raise ValueError(f"defogged is {tuple(defogged.shape)} and clear {tuple(clear.shape)}: they must agree")
    difference = (defogged.float() - clear.float()).flatten(1)
    if norm == "mse":
        return difference.square().mean()
    if norm != "l2":
        raise ValueError(f"restoration norm {norm!r}: 'l2' or 'mse'")
    norms: Tensor = torch.linalg.vector_norm(difference, dim=1)  # (B,)
    return norms.mean()


def agreement_loss(foggy: Tensor, clear: Tensor) -> Tensor:
    """1 - cosine of the features of a foggy image and of its clear twin, the mean over the batch; not of the paper.

    foggy, clear: (B, ...), in [0, 2]: 0 where they point the same way.
    """
    if foggy.shape != clear.shape:
        raise ValueError(f"foggy is {tuple(foggy.shape)} and clear {tuple(clear.shape)}: they must agree")
    return 1 - F.cosine_similarity(foggy.float().flatten(1), clear.float().flatten(1), dim=1).mean()


def color_entropy_loss(defogged: Tensor) -> Tensor:
    """Eq. 6 with the sign that its text asks for: minus the entropy of 256 colour levels, so that less fog is lower.

    The mean over images and over red, green and blue. Each value is shared by the two nearest levels, which makes
    the histogram differentiable at a cost of O(pixels); the released code's hard histogram sends no gradient.
    """
    level = defogged.float().clamp(0, 1).flatten(2).flatten(0, 1) * 255  # (B * 3, H * W)
    below = level.detach().floor().clamp(max=254).nan_to_num()  # a NaN has no level, and makes the loss one by `share`
    share = level - below  # of the level above, in [0, 1]
    index = below.long()
    histogram = torch.zeros(len(level), 256, device=level.device)
    histogram = histogram.scatter_add(1, index, 1 - share).scatter_add(1, index + 1, share)
    probability = histogram / level.shape[1]
    return (probability * torch.log(probability + 1e-8)).sum(dim=1).mean()


def dark_channel_loss(defogged: Tensor) -> Tensor:
    """Eqs. 7 and 8: sum over pixels of the darkest value in a window and all colours; fog lifts it.

    A mean times 384 * 384: at the paper's size its L1 norm, at others as large.
    """
    darkest = -defogged.float().amin(dim=1, keepdim=True)  # (B, 1, H, W)
    half = DARK_CHANNEL_WINDOW // 2
    for window, padding in (((DARK_CHANNEL_WINDOW, 1), (half, 0)), ((1, DARK_CHANNEL_WINDOW), (0, half))):
        darkest = F.max_pool2d(darkest, window, stride=1, padding=padding)
    return -darkest.mean() * PUBLISHED_SIZE**2


def total_variation_loss(defogged: Tensor) -> Tensor:
    """Eq. 9: L1 norm of the differences of neighbours across and down, over pixels and colours.

    Scaled as 384 * size over the number of pixels: at the paper's size the sum, at others as large, since the
    differences shrink as a picture grows.
    """
    defogged = defogged.float()
    batch, _, height, width = defogged.shape
    across = (defogged[..., 1:] - defogged[..., :-1]).abs().sum()
    down = (defogged[..., 1:, :] - defogged[..., :-1, :]).abs().sum()
    return (across * width + down * height) * PUBLISHED_SIZE / (batch * height * width)


def self_constraint_loss(defogged: Tensor, foggy: Tensor, reading: str = "global") -> Tensor:
    """Eq. 10: keep the content of the input; the mean over the batch of a cosine, negated.

    "global": the cosine of the two Fourier transforms as printed, which by Parseval's theorem is that of the images.
    "phase": the mean over frequencies of the cosine of the phase difference, which is what the text argues for.
    """
    defogged, foggy = defogged.float(), foggy.float()
    if reading == "global":
        return -F.cosine_similarity(defogged.flatten(1), foggy.flatten(1), dim=1).mean()
    if reading != "phase":
        raise ValueError(f"self-constraint {reading!r}: 'global' or 'phase'")
    height, width = defogged.shape[-2:]
    ours, input_ = torch.fft.rfft2(defogged), torch.fft.rfft2(foggy)  # (B, 3, H, W // 2 + 1)
    # a phase means nothing below 1e-4 of full scale, and its gradient would have no bound
    size = (ours.real.square() + ours.imag.square() + 1e-8 * height * width).sqrt() * input_.abs().clamp_min(1e-12)
    cosine = (ours.real * input_.real + ours.imag * input_.imag) / size
    mirrored = cosine[..., 1 : (width + 1) // 2].sum(dim=(2, 3))  # frequencies whose conjugates are not stored
    mean: Tensor = (cosine.sum(dim=(2, 3)) + mirrored) / (height * width)  # (B, 3)
    return -mean.mean()
