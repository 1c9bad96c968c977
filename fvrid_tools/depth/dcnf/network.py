"""The unary part: a small convolutional trunk, and the head that makes a depth of a superpixel's mean feature."""

import torch
from torch import Tensor, nn

STRIDE = 4  # of the trunk's features
MULTIPLE = 32  # of pixels: the sides of its input
_WIDTHS = (40, 80, 160, 288, 384)  # at strides 2 to 32: width costs little where memory is what a layer waits for
_FEATURES = 128


class DCNFNetwork(nn.Module):
    """Trunk and head; `z` of a superpixel is the head's output for the average of the trunk's features over it.

    The head is 128-16-1 with a ReLU and a logistic function between, as in Liu et al. 2015.  betas (3,), not negative,
    weigh the similarities of texture, colour histogram and mean colour.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.head = nn.Sequential(
            nn.Linear(_FEATURES, 128), nn.ReLU(), nn.Linear(128, 16), nn.Sigmoid(), nn.Linear(16, 1)
        )
        self.raw_betas = nn.Parameter(torch.full((3,), -1.0))

    @property
    def betas(self) -> Tensor:
        return nn.functional.softplus(self.raw_betas)

    def dense(self, images: Tensor) -> Tensor:
        """z of every unit, (B, H / 4, W / 4), of images (B, 3, H, W)."""
        return self.units(self.trunk(images))

    def units(self, features: Tensor) -> Tensor:
        """z of every unit of the trunk's features (B, C, h, w): (B, h, w)."""
        z: Tensor = self.head(features.permute(0, 2, 3, 1))
        return z[..., 0]

    def pooled(self, features: Tensor, pooling: Tensor) -> Tensor:
        """z of the superpixels of an image, (n,). features: (C, h, w).  pooling: (n, h * w), rows sum to 1."""
        z: Tensor = self.head(pooling @ features.flatten(1).T)
        return z[:, 0]


class Trunk(nn.Module):
    """(B, 3, H, W) in [0, 1], sides multiples of 32 -> (B, C, H / 4, W / 4).

    A pyramid of separable convolutions, merged from the coarsest level down; it is told the row of each pixel, since
    the ground's distance follows from it, and not the column, so that mirroring an image mirrors its depth.
    """

    def __init__(self) -> None:
        super().__init__()
        first, *rest = _WIDTHS
        self.stem = _block(4, first, 2, groups=1)
        self.stages = nn.ModuleList(
            nn.Sequential(_separable(before, width, 2), _separable(width, width), _separable(width, width))
            for before, width in zip(_WIDTHS, rest, strict=False)
        )
        self.whole = nn.Sequential(nn.Linear(_WIDTHS[-1], _FEATURES), nn.ReLU())
        self.lateral = nn.ModuleList(nn.Conv2d(width, _FEATURES, 1) for width in rest)
        self.merge = nn.ModuleList(
            nn.Sequential(_separable(_FEATURES, _FEATURES), _separable(_FEATURES, _FEATURES)) for _ in rest
        )

    def forward(self, images: Tensor) -> Tensor:
        batch, _, rows, columns = images.shape
        if rows % MULTIPLE or columns % MULTIPLE:
            raise ValueError(f"images are {tuple(images.shape)}: sides that are multiples of {MULTIPLE} needed")
        place = torch.linspace(-1, 1, rows, device=images.device, dtype=images.dtype)[:, None]
        x = self.stem(torch.cat([images * 4 - 2, place.expand(batch, 1, rows, columns)], dim=1))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = self.whole(x.mean(dim=(2, 3)))[:, :, None, None]
        for x, lateral, merge in zip(reversed(maps), reversed(self.lateral), reversed(self.merge), strict=True):
            larger = nn.functional.interpolate(merged, x.shape[2:], mode="bilinear", align_corners=False)
            merged = merge(lateral(x) + larger)
        features: Tensor = merged
        return features


def _block(inside: int, outside: int, stride: int, groups: int, side: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, side, stride, side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


def _separable(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_block(inside, inside, stride, groups=inside), _block(inside, outside, 1, groups=1, side=1))
