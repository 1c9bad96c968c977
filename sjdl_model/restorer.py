"""A restorer by itself, after MPRNet (Zamir et al. 2021): what two-stage methods put in front of re-identification.

Three stages, each given what the last one made of the image: encoder and decoder on quarters, the same on halves, and
channel attention blocks at full resolution. Supervised attention between the stages. Much narrower than the published.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 16  # channels at full resolution; the published has 40 to 96
WIDER = 8  # more with each halving


def _conv(channels_in: int, channels_out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)


class ChannelAttention(nn.Module):
    """x + two convolutions of x, their channels weighted by what they are on average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.PReLU(), _conv(channels, channels))
        self.weight = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            _conv(channels, channels // 4, 1),
            nn.ReLU(),
            _conv(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        found = self.body(x)
        result: Tensor = x + found * self.weight(found)
        return result


class EncoderDecoder(nn.Module):
    """Three resolutions down and up again, joined by channel attention."""

    def __init__(self) -> None:
        super().__init__()
        widths = (WIDTH, WIDTH + WIDER, WIDTH + 2 * WIDER)
        self.down = nn.ModuleList(ChannelAttention(width) for width in widths)
        self.across = nn.ModuleList(ChannelAttention(width) for width in widths[:-1])
        self.up = nn.ModuleList(ChannelAttention(width) for width in widths[:-1])
        self.wider = nn.ModuleList(_conv(low, high, 1) for low, high in pairwise(widths))
        self.narrower = nn.ModuleList(_conv(high, low, 1) for low, high in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(B, WIDTH, H, W), H and W multiples of 4 -> the same."""
        kept = []
        for i, block in enumerate(self.down):
            x = block(x)
            if i < len(self.wider):
                kept.append(x)
                x = self.wider[i](F.avg_pool2d(x, 2))
        for i in reversed(range(len(kept))):
            x = F.interpolate(self.narrower[i](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up[i](x + self.across[i](kept[i]))
        return x


class SupervisedAttention(nn.Module):
    """Features -> the stage's image, and the features that it says are worth handing on."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.image, self.mask = _conv(WIDTH, WIDTH), _conv(WIDTH, 3), _conv(3, WIDTH)

    def forward(self, x: Tensor, foggy: Tensor) -> tuple[Tensor, Tensor]:
        """(B, WIDTH, H, W), (B, 3, H, W) -> the same, and (B, 3, H, W)."""
        image = self.image(x) + foggy
        return self.features(x) * torch.sigmoid(self.mask(image)) + x, image


class Restorer(nn.Module):
    """Foggy image -> clear image."""

    def __init__(self) -> None:
        super().__init__()
        self.shallow = nn.ModuleList(nn.Sequential(_conv(3, WIDTH), ChannelAttention(WIDTH)) for _ in range(3))
        self.stages = nn.ModuleList(EncoderDecoder() for _ in range(2))
        self.attention = nn.ModuleList(SupervisedAttention() for _ in range(2))
        self.join = nn.ModuleList(_conv(2 * WIDTH, WIDTH, 1) for _ in range(2))
        self.last = nn.Sequential(*(ChannelAttention(WIDTH) for _ in range(3)), _conv(WIDTH, 3))

    def forward(self, foggy: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1], sides multiples of 8 -> the image of each stage, the last of which is the result."""
        x = self.shallow[0](foggy)
        found = []
        for i, parts in enumerate(((2, 2), (2, 1))):
            x = _joined(self.stages[i](_parted(x, *parts)), *parts)
            handed, image = self.attention[i](x, foggy)
            found.append(image)
            x = self.join[i](torch.cat([self.shallow[i + 1](foggy), handed], dim=1))
        return [*found, self.last(x) + foggy]

    def defog(self, foggy: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without fog."""
        result: Tensor = self(foggy)[-1]
        return result.clamp(0, 1)


def _parted(x: Tensor, down: int, across: int) -> Tensor:
    """(B, C, H, W) -> (B * down * across, C, H / down, W / across)."""
    b, c, h, w = x.shape
    parts = x.view(b, c, down, h // down, across, w // across).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(b * down * across, c, h // down, w // across)


def _joined(parts: Tensor, down: int, across: int) -> Tensor:
    """The inverse of `_parted`."""
    n, c, h, w = parts.shape
    b = n // (down * across)
    return parts.view(b, down, across, c, h, w).permute(0, 3, 1, 4, 2, 5).reshape(b, c, down * h, across * w)


def restorer_loss(stages: list[Tensor], clear: Tensor) -> Tensor:
    """Charbonnier's distance of every stage's image, and 0.05 times that of the Laplacians (MPRNet, Eqs. 1 to 3)."""
    total = clear.new_zeros(())
    for image in stages:
        for weight, difference in ((1.0, image - clear), (0.05, _laplacian(image) - _laplacian(clear))):
            total = total + weight * (difference.float().square() + 1e-6).sqrt().mean()
    return total


def _laplacian(image: Tensor) -> Tensor:
    kernel = image.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
