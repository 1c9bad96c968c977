"""Norms for images in fog, and for two kinds of images: local contrast; instance norm for half of the channels; batch
norm whose running statistics are kept apart for the two domains, its weights being shared (Chang et al. 2019,
"Domain-specific batch normalization", the statistics alone).

In training every batch is of one domain and is normalised by itself. One set of running statistics, gathered from both
in turn, is that of neither: the test would see another network than the training.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LEAST_CONTRAST = 0.01  # about what camera noise and JPEG make; a uniform image stays finite
MOST_CONTRAST = 2.0  # deviations that lamps and reflections, which shine through fog, come near to
CELLS, WINDOW = 32, 17  # local means are those of WINDOW x WINDOW of CELLS x CELLS cells of the image
_DEVIATION = 1.25  # standard deviation over mean absolute deviation, of a normal distribution


def local_contrast(image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W), each channel without its local mean, over the local deviation of the grey
    value (after Jarrett et al. 2009, "What is the best multi-stage architecture for object recognition?"), in [-2, 2].

    Where transmission and airlight hardly change within the window, fog of Eq. 1 is a gain and an offset there, be the
    airlight coloured or not: both go. One deviation for the three channels keeps how they differ from each other; a
    mean absolute one, large values being squashed, because a lamp is no measure of what the fog leaves of the rest.
    H and W are multiples of 32. The means are those of cells, so that a window of half the image costs next to nothing.
    """
    return _contrast(image, _local_mean)


def whole_contrast(image: Tensor) -> Tensor:
    """The same with the mean and the deviation of the whole image for a window: what is large keeps its contrast, and
    what is far away, where fog is thicker, less of it."""
    return _contrast(image, lambda x: x.mean(dim=(2, 3), keepdim=True))


def _contrast(image: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    grey = image.mean(dim=1, keepdim=True)
    means = mean(torch.cat([image, grey], dim=1))
    deviation = _DEVIATION * mean((grey - means[:, 3:]).abs())
    return MOST_CONTRAST * torch.tanh((image - means[:, :3]) / (MOST_CONTRAST * (deviation + LEAST_CONTRAST)))


def _local_mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> the same; at the border of the part of the window within the image."""
    cells = F.avg_pool2d(x, (x.shape[-2] // CELLS, x.shape[-1] // CELLS))
    means = F.avg_pool2d(cells, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    return F.interpolate(means, size=x.shape[-2:], mode="bilinear", align_corners=False)


class _Apart:
    """Joins the class of a batch norm, of whatever kind: `running_mean` and `running_var` are of synthetic images, the
    buffers beside them of real ones."""

    real_mean: Tensor
    real_var: Tensor
    of_real = False

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.of_real:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        ours = self.running_mean, self.running_var
        self.running_mean, self.running_var = self.real_mean, self.real_var
        try:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        finally:
            self.running_mean, self.running_var = ours

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles find a class by its name, and this one was made while the program ran."""
        return _blank, (type(self).__bases__[1],), vars(self)


def _apart(kind: type[Any]) -> Any:
    return type(f"Apart{kind.__name__}", (_Apart, kind), {})


def _blank(kind: type[Any]) -> Any:
    made = _apart(kind)
    return made.__new__(made)


def keep_apart(net: nn.Module) -> None:
    """Give every batch norm of a network a second set of running statistics, unless it has one."""
    for module in net.modules():
        if isinstance(module, _Apart):
            continue
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            module.register_buffer("real_mean", module.running_mean.clone())
            module.register_buffer("real_var", module.running_var.clone())
            module.__class__ = _apart(type(module))


def are_apart(net: nn.Module) -> bool:
    return any(isinstance(module, _Apart) for module in net.modules())


def use(net: nn.Module, *, real: bool) -> None:
    """Say which statistics are gathered in training and used in the test; nothing where they are not apart."""
    for module in net.modules():
        if isinstance(module, _Apart):
            module.of_real = real


@contextmanager
def unchanged(net: nn.Module) -> Iterator[None]:
    """Within it batches are normalised as ever, but gather no running statistics."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


class _HalfInstanceNorm(nn.Module):
    """The first half of the channels by image, the others by batch; begins with the weights of a batch norm. Its parts
    have the names of the published weights of IBN-Net-a."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.by_image = norm.num_features // 2
        self.IN = nn.InstanceNorm2d(self.by_image, eps=norm.eps, affine=True)
        self.BN = nn.BatchNorm2d(norm.num_features - self.by_image, norm.eps, norm.momentum)
        with torch.no_grad():
            for name in ("weight", "bias"):
                getattr(self.IN, name).copy_(getattr(norm, name)[: self.by_image])
                getattr(self.BN, name).copy_(getattr(norm, name)[self.by_image :])
            for name in ("running_mean", "running_var"):
                getattr(self.BN, name).copy_(getattr(norm, name)[self.by_image :])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return torch.cat([self.IN(x[:, : self.by_image]), self.BN(x[:, self.by_image :])], dim=1)


def mix_instance_norm(net: nn.Module, stages: Iterable[str]) -> bool:
    """Make `bn1` of every block of some stages half an instance norm; whether there was any."""
    found = False
    modules = dict(net.named_modules())
    for stage in stages:
        for block in modules[stage].children() if stage in modules else ():
            norm = getattr(block, "bn1", None)
            if type(norm) is nn.BatchNorm2d:  # and none that holds an activation too, as EfficientNet's
                block.bn1 = _HalfInstanceNorm(norm)
                found = True
    return found
