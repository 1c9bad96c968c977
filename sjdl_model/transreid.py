"""A vision transformer as four stages, with the camera embedding and the jigsaw branch of TransReID (He et al. 2021).

What is not as published: patches do not overlap, and the five features are compared and classified joined together,
as the rest of this package takes one feature an image. Its batch norm makes all five of one size, so that the local
ones, divided by four as they are, weigh so only in the feature before it.
"""

import copy
from typing import Any

import timm
import torch
from torch import Tensor, nn

CAMERA_WEIGHT = 3.0  # of the camera embedding (lambda)
SHIFT, PARTS = 5, 4  # patches moved to the end before the shuffle; local features
STAGES = 4  # maps for the shared stage to choose from


class TransReID(nn.Module):
    """Any of timm's vision transformers with a class token. `channels` and `strides` are those of the four maps."""

    def __init__(self, name: str, size: int, cameras: int, pretrained: bool | str = False, **options: Any) -> None:
        """size: pixels a side of the images.  cameras: how many are known, 0 for no embedding.

        Raises ValueError where timm's model is none.
        """
        super().__init__()
        vit = timm.create_model(name, pretrained=bool(pretrained), img_size=size, num_classes=0, **options)
        if not isinstance(vit, timm.models.VisionTransformer) or vit.num_prefix_tokens != 1:
            raise ValueError("not a vision transformer with one class token")
        self.vit = vit
        self.pretrained_cfg = vit.pretrained_cfg
        self.grid = vit.patch_embed.grid_size
        self.local = copy.deepcopy(nn.Sequential(vit.blocks[-1], vit.norm))  # the jigsaw branch
        self.camera = nn.Embedding(cameras, vit.embed_dim) if cameras else None
        if self.camera is not None:
            nn.init.trunc_normal_(self.camera.weight, std=0.02)
        self.channels = [vit.embed_dim] * (STAGES - 1) + [vit.embed_dim * (1 + PARTS)]
        self.strides = [vit.patch_embed.patch_size[0]] * STAGES

    def forward(self, image: Tensor, camera: Tensor | None = None) -> list[Tensor]:
        """image: (B, 3, S, S), normalised.  camera: (B,) numbers of cameras, -1 where not known; None: of none.

        -> three maps (B, D, h, w) of the patches, and the global feature with the local ones, (B, 5 D, 1, 1).
        """
        vit = self.vit
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(image))))  # (B, 1 + h * w, D)
        if self.camera is not None and camera is not None:
            known = (camera >= 0)[:, None, None]
            x = x + CAMERA_WEIGHT * self.camera(camera.clamp_min(0))[:, None] * known
        maps = []
        blocks = list(vit.blocks)[:-1]
        ends = {round(len(vit.blocks) * (i + 1) / STAGES) for i in range(STAGES - 1)}
        for number, block in enumerate(blocks, start=1):
            x = block(x)
            if number in ends:
                maps.append(self._as_map(x))
        whole = vit.norm(vit.blocks[-1](x))[:, 0]  # (B, D)
        token, patches = x[:, :1], shuffled(x[:, 1:])
        parts = [
            self.local(torch.cat([token, part], dim=1))[:, 0] / PARTS for part in patches.tensor_split(PARTS, dim=1)
        ]
        maps.append(torch.cat([whole, *parts], dim=1)[..., None, None])
        return maps

    def _as_map(self, x: Tensor) -> Tensor:
        b, _, d = x.shape
        return x[:, 1:].transpose(1, 2).reshape(b, d, *self.grid)


def shuffled(patches: Tensor) -> Tensor:
    """(B, N, D) -> the same in an order in which every quarter has patches of the whole image (the jigsaw)."""
    moved = patches.roll(-SHIFT, dims=1)
    count = moved.shape[1] - moved.shape[1] % PARTS
    b, _, d = moved.shape
    mixed = moved[:, :count].reshape(b, count // PARTS, PARTS, d).transpose(1, 2).reshape(b, count, d)
    return torch.cat([mixed, moved[:, count:]], dim=1)
