"""The fog-free image reconstruction module (FIRM): features of the shared stage -> the image without fog.

After the paper's "Fog-free Image Reconstruction Module" and Fig. 2. The paper does not give widths or norms:
64 channels at the shared stage, halved by each deconvolution, and group norm, which works at any batch and map size.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64  # channels after the first convolution block
POOLS = (4, 8, 16, 32)  # factors of the pyramid
PYRAMID_WIDTH = 8  # channels of each scale


def _conv(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.GroupNorm(max(1, channels_out // 8), channels_out),
        nn.ReLU(inplace=True),
    )


class ResBlock(nn.Module):
    """x + two 3x3 convolutions of x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(x + self.body(x))


class PyramidEnhancement(nn.Module):
    """Two 3x3 convolutions; their output beside its averages at four scales; a 3x3 convolution (Qu et al. 2019)."""

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        self.front = nn.Sequential(  # no norm: it would take away how bright the image is
            nn.Conv2d(channels_in, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.reduce = nn.ModuleList(nn.Conv2d(width, PYRAMID_WIDTH, 1) for _ in POOLS)
        self.out = nn.Conv2d(width + len(POOLS) * PYRAMID_WIDTH, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), H and W multiples of 32 -> (B, 3, H, W)."""
        x = self.front(x)
        scales = [
            F.interpolate(reduce(F.avg_pool2d(x, factor)), size=x.shape[-2:], mode="bilinear", align_corners=False)
            for reduce, factor in zip(self.reduce, POOLS, strict=True)
        ]
        with torch.autocast(x.device.type, enabled=False):  # of 16 bits, the image would have levels 1/256 apart
            result: Tensor = self.out(torch.cat([x, *scales], dim=1).float())
        return result


class FIRM(nn.Module):
    """(Convolution block, two ResBlocks, deconvolution) per factor of 2, then the input image and the pyramid."""

    def __init__(self, channels: int, stride: int) -> None:
        """channels, stride: of the shared stage; 4, 8, 16 or 32."""
        super().__init__()
        steps = int(math.log2(stride))
        widths = [max(16, WIDTH >> step) for step in range(steps + 1)]
        self.upsample = nn.Sequential()
        for width, narrower in pairwise(widths):
            self.upsample.extend(
                [
                    _conv(channels, width),
                    ResBlock(width),
                    ResBlock(width),
                    nn.ConvTranspose2d(width, narrower, 4, stride=2, padding=1),
                    nn.ReLU(inplace=True),
                ]
            )
            channels = narrower
        self.enhance = PyramidEnhancement(channels + 3, max(16, channels))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, shared: Tensor, foggy: Tensor) -> Tensor:
        """shared: (B, C, H / stride, W / stride).  foggy: (B, 3, H, W) in [0, 1].  -> (B, 3, H, W) in (0, 1)."""
        features = self.upsample(shared)  # (B, C', H, W)
        image = ((foggy - 0.5) * 4).to(features.dtype)  # of their magnitude, or the pyramid would hardly see it
        return torch.sigmoid(self.enhance(torch.cat([features, image], dim=1)))
