"""SJDL: one backbone whose shallow stages (CFSM) serve two branches, re-identification and defogging (Fig. 2)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from . import norms
from .backbone import Backbone
from .config import ConfigError, DataError, first_line
from .firm import FIRM

WEIGHTS = "weights.safetensors"

Gather = Callable[[Tensor], Tensor]  # (B, ...) -> (N * B, ...) of N processes


def as_it_is(tensor: Tensor) -> Tensor:
    return tensor


class SJDLOutput(NamedTuple):
    """Of a batch of B images of H x W pixels."""

    feature: Tensor  # (B, D) pooled, before BN: the paper's triplet loss's
    embedding: Tensor  # (B, D) after BN: the identity loss's; the test's is `embedding_of` the feature
    logits_synthetic: Tensor  # (B, num_synthetic)
    logits_real: Tensor | None  # (B, num_real), None where the network has no real vehicles
    defogged: Tensor | None  # (B, 3, H, W) in [0, 1], None where it was not asked for
    shared: Tensor  # (B, C, H / stride, W / stride), the shared stage's map


class SJDL(nn.Module):
    """CFSM = conv_1 .. conv_<shared_stage>, ReIDM = the rest of the backbone with a BNNeck, FIRM = the decoder.

    num_synthetic, num_real: training vehicles of the two domains (num_real may be 0).
    backbone: any timm model with four feature stages; pretrained: True, False, or a local weights file.
    local_contrast, whole_contrast, ibn, transreid: see Backbone.
    domain_statistics: batch norm has running statistics of its own for each domain; see `use_statistics_of`.
    unit_embedding: what `embed` gives after BN has a length of 1, so that Euclidean distance ranks as the cosine does
    (Luo et al. 2019); the losses see it as it was.
    Raises ConfigError where the backbone cannot be made, ValueError for another shared_stage than 2 to 5.
    """

    def __init__(
        self,
        num_synthetic: int,
        num_real: int = 0,
        backbone: str = "resnet50",
        shared_stage: int = 2,
        *,
        last_stride: int | None = None,
        pretrained: bool | str = False,
        local_contrast: bool = False,
        whole_contrast: bool = False,
        ibn: bool = False,
        domain_statistics: bool = False,
        unit_embedding: bool = False,
        transreid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if shared_stage not in (2, 3, 4, 5):
            raise ValueError(f"shared_stage is {shared_stage}: the shared stages end with conv_2, 3, 4 or 5")
        self.backbone = Backbone(
            backbone,
            pretrained=pretrained,
            last_stride=last_stride,
            local_contrast=local_contrast,
            whole_contrast=whole_contrast,
            ibn=ibn,
            domain_statistics=domain_statistics,
            transreid=transreid,
        )
        self.shared = shared_stage - 2  # index of the shared stage's map
        dim = self.backbone.channels[-1]
        self.neck = nn.BatchNorm1d(dim)
        self.neck.bias.requires_grad_(False)  # Luo et al. 2019: a bias would move the embedding off the origin
        self.classifier_synthetic = _classifier(dim, num_synthetic)
        self.classifier_real = _classifier(dim, num_real) if num_real else None
        # made last, so that networks that differ in it alone begin with the same weights in all else
        self.firm = FIRM(self.backbone.channels[self.shared], self.backbone.strides[self.shared])
        if domain_statistics:
            norms.keep_apart(self)
        self.unit_embedding = unit_embedding
        self.cameras: dict[str, int] = {}  # numbers of those that the backbone knows, by data.camera_name
        self.image_size: int | None = None  # pixels, of the images it was trained on, where that is known
        self.defogs = True  # False where it is known that no loss has trained the FIRM

    @staticmethod
    def from_pretrained(folder: str | Path) -> "SJDL":
        """The network that `sjdl train` left in a folder, in eval mode; it was trained on images of `image_size`.

        Raises as `load_network`.
        """
        return load_network(Path(folder))[0]

    def forward(
        self, foggy: Tensor, defog: bool = True, gather: Gather = as_it_is, camera: Tensor | None = None
    ) -> SJDLOutput:
        """foggy: (B, 3, H, W) float in [0, 1]; H and W multiples of 32, else ValueError.

        camera: (B,) numbers as in `cameras`, -1 where not known; heeded by a backbone that takes them.
        gather: joins the features of the processes that share a batch, so that BN, classifiers and the triplet loss
        see the whole of it.
        """
        maps = self.maps(foggy, camera)
        defogged = self.firm(maps[self.shared], foggy) if defog else None
        with torch.autocast(foggy.device.type, enabled=False):  # what the losses compare is float32 in any case
            feature = gather(maps[-1].float().mean(dim=(2, 3)))  # (B, D)
            embedding = self.neck(feature)
            return SJDLOutput(
                feature=feature,
                embedding=embedding,
                logits_synthetic=self.classifier_synthetic(embedding),
                logits_real=None if self.classifier_real is None else self.classifier_real(embedding),
                defogged=defogged,
                shared=maps[self.shared],
            )

    def use_statistics_of(self, domain: str) -> None:
        """Normalise by the running statistics of "synthetic" or "real" images from now on, and gather those; nothing
        changes where they are not kept apart. A network that was trained without real images has those of synthetic
        ones only, and uses them; a loaded one that was trained with them has the real ones in use."""
        norms.use(self, real=domain == "real" and self.classifier_real is not None)

    def embed(self, foggy: Tensor, before_bn: bool = False, camera: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D), by CFSM and ReIDM only.  camera: as in `forward`.

        Raises ValueError as `forward` does; normalises as `use_statistics_of` was told last."""
        feature = self.maps(foggy, camera)[-1].mean(dim=(2, 3))
        return feature if before_bn else self.embedding_of(feature)

    def embedding_of(self, feature: Tensor) -> Tensor:
        """(B, D) before BN -> what the test compares."""
        embedding: Tensor = self.neck(feature)
        return F.normalize(embedding) if self.unit_embedding else embedding

    def defog(self, foggy: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without fog, by CFSM and FIRM only. Raises ValueError as `forward`."""
        defogged: Tensor = self.firm(self.backbone.up_to(self.shared, _checked(foggy)), foggy)
        return defogged

    def maps(self, foggy: Tensor, camera: Tensor | None = None) -> list[Tensor]:
        """The four stages' maps (B, C, H / stride, W / stride); that of the CFSM is maps[self.shared].

        Raises ValueError as `forward` does."""
        maps: list[Tensor] = self.backbone(_checked(foggy), camera)
        return maps


def _checked(foggy: Tensor) -> Tensor:
    if foggy.ndim != 4 or foggy.shape[1] != 3 or foggy.shape[2] % 32 or foggy.shape[3] % 32:
        raise ValueError(f"images are {tuple(foggy.shape)}: (B, 3, H, W) with sides that are multiples of 32 needed")
    return foggy


def _classifier(dim: int, vehicles: int) -> nn.Linear:
    classifier = nn.Linear(dim, vehicles, bias=False)
    with torch.no_grad():
        classifier.weight.normal_(std=0.001)
    return classifier


class Architecture(NamedTuple):
    """What it takes to make the network that weights belong to, and the size it was trained at."""

    num_synthetic: int
    num_real: int
    backbone: str
    shared_stage: int
    last_stride: int
    image_size: int
    local_contrast: bool = False
    domain_statistics: bool = False
    unit_embedding: bool = False
    ibn: bool = False
    transreid: bool = False
    cameras: tuple[str, ...] = ()
    whole_contrast: bool = False
    defogs: bool = True

    def build(self, pretrained: bool | str = False) -> SJDL:
        net = SJDL(
            self.num_synthetic,
            self.num_real,
            self.backbone,
            self.shared_stage,
            last_stride=self.last_stride,
            pretrained=pretrained,
            local_contrast=self.local_contrast,
            whole_contrast=self.whole_contrast,
            ibn=self.ibn,
            domain_statistics=self.domain_statistics,
            unit_embedding=self.unit_embedding,
            transreid=(self.image_size, len(self.cameras)) if self.transreid else None,
        )
        net.cameras = {name: number for number, name in enumerate(self.cameras)}
        net.defogs, net.image_size = self.defogs, self.image_size
        return net


def check_defogs(net: nn.Module) -> None:
    """Raises DataError for an SJDL network whose FIRM no loss has trained: its images would be noise."""
    if not getattr(net, "defogs", True):
        raise DataError("these weights were trained without defogging; take those of a run with defogging.")


@torch.no_grad()
def check_image_size(net: SJDL, size: int) -> None:
    """Raises ConfigError where a network cannot take images of size x size pixels, as some backbones take one size."""
    training = net.training
    try:
        net.eval()(torch.zeros(1, 3, size, size, device=next(net.parameters()).device))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the backbone cannot take images of {size} x {size} pixels ({first_line(error)}); set another image_size"
            " or backbone."
        ) from None
    finally:
        net.train(training)


def weights_file(path: Path) -> Path:
    """Of a weights file, or the folder that holds one."""
    return path / WEIGHTS if path.is_dir() else path


def load_network(path: Path) -> tuple[SJDL, Architecture]:
    """The network of a weights file, or of a folder that holds one (WEIGHTS), in eval mode.

    Raises DataError where there is none, it is not one of ours, or its tensors are not of the architecture it names;
    ConfigError where timm does not know its backbone.
    """
    path = weights_file(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            architecture = Architecture(**json.loads(file.metadata()["sjdl"]))
        architecture = architecture._replace(cameras=tuple(architecture.cameras))
        net = architecture.build()
        net.load_state_dict(load_file(path))
        net.use_statistics_of("real")
    except FileNotFoundError:
        raise DataError(f"{path}: no such weights file; train first, or name another.") from None
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: not weights of an SJDL network ({first_line(error)}).") from None
    return net.eval(), architecture
