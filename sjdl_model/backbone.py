"""The four feature stages conv_2 .. conv_5 of any timm backbone."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import FeatureListNet
from torch import Tensor, nn

from . import norms
from .config import ConfigError, first_line
from .transreid import TransReID

_OURS = "backbone.stages."  # what tensors of the stages begin with in the weights of an SJDL network


class Backbone(nn.Module):
    """A timm model cut into its last four feature stages, its input normalisation included.

    `channels` and `strides` are those of the stages. With last_stride=1 the last stage keeps the resolution of
    the one before (Luo et al. 2019, "Bag of Tricks"); None means 1 where the backbone can do so, else its own.

    Raises ConfigError where timm does not know the name, the model has fewer than four stages, last_stride=1,
    ibn or whole_contrast cannot be had, alone or together with the others, or the weights cannot be loaded.

    local_contrast: images go in as norms.local_contrast makes them, which takes away most of what fog does, in place of
    the normalisation by the mean and deviation of ImageNet.
    whole_contrast: norms.whole_contrast beside local_contrast, in three more channels, which begin without weight.
    ibn: half of the channels of the first norm of every block of the first three stages are normalised by image, as in
    IBN-Net-a (Pan et al. 2018), whose published weights can be taken; with others these norms begin as the batch norms.
    domain_statistics: the running statistics of a run that has them of each domain are taken so.
    pretrained: True, False, or a file: of timm, of IBN-Net, or weights.safetensors of a run, whose backbone is taken.
    transreid: (pixels a side, number of cameras), of a vision transformer to be made as in transreid.py.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool | str = False,
        last_stride: int | None = None,
        local_contrast: bool = False,
        whole_contrast: bool = False,
        ibn: bool = False,
        domain_statistics: bool = False,
        transreid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if transreid is not None and (ibn or last_stride == 1):
            raise ConfigError("a vision transformer has neither ibn nor last_stride=1; set ibn=false, last_stride=2.")
        if whole_contrast and not local_contrast:
            raise ConfigError("whole_contrast comes beside local_contrast; set local_contrast=true.")
        self.local_contrast, self.whole_contrast = local_contrast, whole_contrast
        self.takes_cameras = transreid is not None
        self.stages: Any
        self.channels: list[int]
        self.strides: list[int]
        given = _read_weights(pretrained) if isinstance(pretrained, str) else None
        of_run = {key.removeprefix(_OURS): value for key, value in (given or {}).items() if key.startswith(_OURS)}
        if of_run:
            form = {
                "backbone": name,
                "local_contrast": local_contrast,
                "whole_contrast": whole_contrast,
                "ibn": ibn,
            }
            _check_run(str(pretrained), {**form, "transreid": transreid is not None})
        unfit = f"{pretrained}: not of a run with this {name}"
        with_real = "classifier_real.weight" in (given or {})  # else those of real images are still as they began
        keeps_apart = domain_statistics and with_real and any(key.endswith(".real_mean") for key in of_run)
        if transreid is not None:
            self.stages = _create_transreid(name, *((False, None) if of_run else (pretrained, given)), *transreid)
            self.channels, self.strides = self.stages.channels, self.stages.strides
            self._prepare_input(self.stages.pretrained_cfg)
            if of_run:
                _fill(self.stages, of_run, unfit, keeps_apart)
            return
        if given and not ibn and any(".IN." in key for key in given):
            raise ConfigError(f"{pretrained}: weights of a network with instance norms; set ibn=true.")
        published = given if given and not of_run and any(".IN." in key for key in given) else None
        source = (False, None) if published or of_run else (pretrained, given)
        self.stages = _create(name, *source)
        self.channels, self.strides = self.stages.feature_info.channels(), self.stages.feature_info.reduction()
        if last_stride != 2:
            shortened = [*self.strides[:3], self.strides[3] // 2]
            if _unstride_last_stage(self.stages) and _has_strides(self.stages, shortened):
                self.strides = shortened
            elif last_stride == 1:
                raise ConfigError(f"backbone {name} cannot have last_stride=1; set last_stride=2.")
            else:
                self.stages = _create(name, *source)
        if ibn and not norms.mix_instance_norm(self.stages, self.stages.feature_info.module_name()[:3]):
            raise ConfigError(f"backbone {name} cannot have ibn: it is of ResNets; set ibn=false.")
        if published:
            _fill(self.stages, published, f"{pretrained}: not weights of {name} with ibn")
        self._prepare_input(self.stages.pretrained_cfg)
        if of_run:
            _fill(self.stages, of_run, unfit, keeps_apart)

    def _prepare_input(self, normalisation: dict[str, Any]) -> None:
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(normalisation[key]).view(1, 3, 1, 1), persistent=False)
        if self.whole_contrast and not _add_channels(self.stages, 3):
            raise ConfigError(
                "the backbone cannot have whole_contrast: it does not begin with one plain convolution; "
                "set whole_contrast=false."
            )

    def forward(self, image: Tensor, camera: Tensor | None = None) -> list[Tensor]:
        """image: (B, 3, H, W) in [0, 1].  camera: (B,) where the backbone takes cameras.

        -> four maps (B, channels[i], H / strides[i], W / strides[i]).
        """
        normal = self._normal(image)
        maps: list[Tensor] = self.stages(normal, camera) if self.takes_cameras else self.stages(normal)
        return [self._channels_first(one) for one in maps]

    def up_to(self, stage: int, image: Tensor) -> Tensor:
        """The map of one of the four stages, as `forward` gives it; the later ones are not computed where timm cut the
        model into a sequence, as of ResNets."""
        if type(self.stages) is not FeatureListNet:
            return self.forward(image)[stage]
        found: Any = self._normal(image)
        last = [*self.stages.return_layers][stage]
        for name, module in self.stages.items():
            found = module(found)
            if name == last:
                break
        return self._channels_first(found[0] if isinstance(found, (tuple, list)) else found)

    def _channels_first(self, found: Tensor) -> Tensor:
        last: bool = getattr(self.stages, "output_fmt", "NCHW") == "NHWC"  # as of Swin
        return found.permute(0, 3, 1, 2) if last else found

    def _normal(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3 or 6, H, W), as the stages take it."""
        if not self.local_contrast:
            return (image - self.mean) / self.std
        local = norms.local_contrast(image)
        return torch.cat([local, norms.whole_contrast(image)], dim=1) if self.whole_contrast else local


def _create_transreid(
    name: str, pretrained: bool | str, given: dict[str, Tensor] | None, size: int, cameras: int
) -> TransReID:
    def make(found: dict[str, Tensor] | None) -> TransReID:
        return TransReID(name, size, cameras, pretrained, **_as_timm_takes(found))

    return cast(TransReID, _made(name, pretrained, given, make, "vit."))


def _create(name: str, pretrained: bool | str, given: dict[str, Tensor] | None) -> Any:
    def make(found: dict[str, Tensor] | None) -> Any:
        stages = {"features_only": True, "out_indices": (-4, -3, -2, -1)}
        return timm.create_model(name, pretrained=bool(pretrained), **stages, **_as_timm_takes(found))

    return _made(name, pretrained, given, make)


def _read_weights(file: str) -> dict[str, Tensor]:
    """The tensors of a weights file. Read here, as some of timm's versions would run code that a file holds.

    Raises ConfigError where it is none.
    """
    try:
        found = timm.models.load_state_dict(file, weights_only=True)
    except Exception as error:  # of many kinds
        raise ConfigError(f"{file}: not a weights file ({first_line(error)}); name another.") from None
    return dict(found)


def _check_run(file: str, form: dict[str, Any]) -> None:
    """Raises ConfigError where the weights of a run say that its network had another form."""
    try:
        with safe_open(file, "pt") as found:
            facts = json.loads((found.metadata() or {}).get("sjdl", "{}"))
    except SafetensorError:
        return  # torch's own format says nothing of it
    for key, value in form.items():
        if facts.get(key, value) != value:
            raise ConfigError(f"{file}: of a run with {key} = {facts[key]}, not {value}; set the same.")


def _as_timm_takes(given: dict[str, Tensor] | None) -> dict[str, Any]:
    """The option that makes timm load these tensors; it changes the dict."""
    return {} if given is None else {"pretrained_cfg_overlay": {"state_dict": dict(given)}}


def _fill(stages: nn.Module, found: dict[str, Tensor], problem: str, keeps_apart: bool = False) -> None:
    """Load the tensors into the stages. Raises ConfigError, beginning with `problem`, unless each is there and fits.

    keeps_apart: the running statistics of real images are among them, and are to be kept."""
    if keeps_apart:
        norms.keep_apart(stages)
    try:
        lacking = stages.load_state_dict(found, strict=False).missing_keys
    except RuntimeError as error:
        raise ConfigError(f"{problem} ({str(error).splitlines()[-1].strip()}).") from None
    if lacking := [key for key in lacking if not key.endswith("num_batches_tracked")]:
        raise ConfigError(f"{problem} (it lacks {lacking[0]}).")


def _made(
    name: str,
    pretrained: bool | str,
    given: dict[str, Tensor] | None,
    make: Callable[[dict[str, Tensor] | None], Any],
    prefix: str = "",
) -> Any:
    """What `make` makes of the tensors of a file. Raises ConfigError where timm cannot, or the file lacks one of those
    with the prefix."""
    try:
        with _quiet():
            made = make(given)
            lacking = [] if given is None else _lacking(made, given, make)
    except Exception as error:  # timm, the hub and torch raise too many kinds to name
        if not timm.is_model(name):
            raise ConfigError(f"backbone {name}: timm has no such model.") from None
        if isinstance(pretrained, str):
            raise ConfigError(f"{pretrained}: not weights of {name} ({first_line(error)}).") from None
        if pretrained:
            raise ConfigError(
                f"the ImageNet weights of {name} cannot be downloaded ({first_line(error)}); "
                "set pretrained=false, or pretrained=FILE to load a copy."
            ) from None
        raise ConfigError(f"backbone {name} cannot be made so ({first_line(error)}).") from None
    lacking = [key for key in lacking if key.startswith(prefix)]
    if lacking:
        raise ConfigError(f"{pretrained}: not weights of {name} (it lacks {lacking[0]}).")
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what timm and its hub log of keys and tries: what matters of it is in the error."""
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _lacking(made: Any, given: dict[str, Tensor], make: Callable[[dict[str, Tensor]], Any]) -> list[str]:
    """The tensors that `make` did not take from those given: timm, which may rename and reshape them, does not say.

    Those that begin at random differ from one time to the next; those that begin as constants, as norms do, are the
    same for other tensors.
    """
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)
        again = make(given).state_dict()
        other = make(_others(given)).state_dict()
    learned = {*(name for name, _ in made.named_parameters()), *(key for key in again if ".running_" in key)}
    found = made.state_dict()
    return [
        key for key in found if not found[key].equal(again[key]) or (key in learned and found[key].equal(other[key]))
    ]


def _others(found: Any) -> Any:
    """Tensors that differ from those of a weights file, in as many levels of dicts, whatever their precision."""
    if isinstance(found, dict):
        return {key: _others(value) for key, value in found.items()}
    return 2 * found + 1 if isinstance(found, Tensor) and found.is_floating_point() else found


def _add_channels(stages: nn.Module, count: int) -> bool:
    """Let the convolution of the image take `count` more channels, which have no weight yet; whether that can be. Those
    that standardise their weights cannot, as channels without weight would change the others'."""
    of_image = [module for module in stages.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3]
    if len(of_image) != 1 or type(of_image[0]) not in (nn.Conv2d, timm.layers.Conv2dSame):
        return False
    (first,) = of_image
    new = first.weight.new_zeros(first.out_channels, count, *first.kernel_size)
    first.weight = nn.Parameter(torch.cat([first.weight.detach(), new], dim=1))
    first.in_channels += count
    return True


def _unstride_last_stage(stages: Any) -> bool:
    """Take the stride out of the last stage, where it is made by convolutions that keep the size without it."""
    try:
        stage = stages.get_submodule(stages.feature_info.module_name()[-1])
    except AttributeError:
        return False
    strided = [m for m in stage.modules() if isinstance(m, (nn.Conv2d, nn.AvgPool2d)) and m.stride in (2, (2, 2))]
    if not strided or any(isinstance(m, nn.Conv2d) and m.kernel_size[0] not in (1, 3) for m in strided):
        return False
    for module in strided:
        if isinstance(module, nn.AvgPool2d):
            module.kernel_size, module.padding = 1, 0
        module.stride = (1, 1)
    return True


@torch.no_grad()
def _has_strides(stages: nn.Module, strides: list[int]) -> bool:
    """Whether the maps of a small image are as large as the strides say."""
    training = stages.training
    try:
        maps = stages.eval()(torch.zeros(1, 3, 64, 64))
    except (RuntimeError, AssertionError, ValueError):
        return False
    finally:
        stages.train(training)
    return [64 // one.shape[-1] for one in maps] == strides
