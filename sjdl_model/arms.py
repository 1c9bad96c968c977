"""The arms of the ablation: the controls, Tables 3, 4 and 5, other readings of the paper, what goes past it, and
arms of one's own. What differs, not how.

Every arm is a few changes of one recipe, so that nothing else differs, and the images that it is tested on.
"""

import re
from dataclasses import dataclass, replace

from .config import IMAGE_TERMS, ConfigError

NO_DEFOGGING = tuple(f"weights.{name}=0" for name in IMAGE_TERMS)
_TRIPLET = ("weights.identity=0",)
_BOT = ("ibn=true", "last_stride=1", "label_smoothing=0.1")  # Luo et al. 2019, with the backbone of Table 3

# no network of another kind can begin with the backbone that all others begin with
_TRANSREID = ("transreid=true", "backbone=vit_small_patch16_224", "last_stride=2", "shared_stage=2")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Changes of the recipe, as --set takes them, and what the arm is trained and tested on."""

    name: str
    changes: tuple[str, ...] = ()
    real: bool = True  # trained on real fog too
    counterparts: bool = False  # trained with the clear images of its scenes, which only a renderer has
    tested: str = "foggy"  # or "clear", or defogged by one of DEFOGGERS


# defogged by: a prior; a restorer that is trained on the synthetic pairs; the FIRM of the arm sjdl with the same seed
DEFOGGERS = ("dark_channel_prior", "restorer", "firm")

CONTROLS = (
    Arm(name="headroom", changes=("images=clear", *NO_DEFOGGING), counterparts=True, tested="clear"),
    Arm(name="oracle", counterparts=True),
)


def _table_3(name: str, changes: tuple[str, ...]) -> tuple[Arm, ...]:
    """A method trained on clear images and tested on foggy ones, and on defogged ones; and trained in fog."""
    clear = Arm(name=f"{name}_clear", changes=(*NO_DEFOGGING, *changes, "images=clear"), real=False)
    defogged = (replace(clear, name=f"{name}_{how}", tested=how) for how in DEFOGGERS)
    return clear, *defogged, Arm(name=f"{name}_foggy", changes=(*NO_DEFOGGING, *changes))


TABLE_3 = (*_table_3("triplet", _TRIPLET), *_table_3("bot", _BOT), *_table_3("transreid", _TRANSREID))
TABLE_4 = (
    Arm(name="baseline", changes=NO_DEFOGGING),
    Arm(name="jdl", changes=tuple(change for change in NO_DEFOGGING if "restoration" not in change)),
    Arm(name="sjdl_no_sc", changes=("weights.self_constraint=0",)),
    Arm(name="sjdl"),
)
TABLE_5 = tuple(Arm(name=f"conv_{stage}", changes=(f"shared_stage={stage}",)) for stage in (2, 3, 4, 5))
# where the paper leaves a choice, each made otherwise than in the recipe `ablation`
READINGS = (
    # at 96 pixels and 25 dB as strong a pull as l2 at 0.4
    Arm(name="mse", changes=("restoration_norm=mse", "weights.restoration=500")),
    Arm(name="restoration_less", changes=("weights.restoration=0.1",)),
    Arm(name="global", changes=("self_constraint=global",)),
    Arm(name="self_constraint_more", changes=("weights.self_constraint=3",)),
    Arm(name="no_entropy", changes=("weights.color_entropy=0",)),
    Arm(name="real_every_5", changes=("real_every=5",)),
    Arm(name="redrawn", changes=("fog.redraw=true",)),
    Arm(name="last_stride_1", changes=("last_stride=1",)),
)
# past the paper, next to no cost at inference: each alone; together, those that came into the default recipe first
_PAST = {
    "statistics": ("domain_statistics=true",),
    "contrast": ("local_contrast=true",),
    "edge_padding": ("edge_padding=true",),
    "unit_triplet": ("unit_triplet=true",),
    "all_positives": ("all_positives=true",),
    "ibn": ("ibn=true",),
    "agreement": ("weights.agreement_shared=1", "weights.agreement_embedding=1"),
    "physical": ("fog.redraw=true", "fog.preset=physical"),
}
TOGETHER = (  # unit_embedding alone needs no training
    *_PAST["statistics"],
    *_PAST["contrast"],
    *_PAST["edge_padding"],
    *_PAST["unit_triplet"],
    *_PAST["all_positives"],
    "unit_embedding=true",
)
# what gained on top of these later
FURTHER = (*TOGETHER, "ibn=true", "whole_contrast=true", "p=16", "k=2")
PAST = (
    *(Arm(name=name, changes=(*NO_DEFOGGING, *changes)) for name, changes in _PAST.items()),
    Arm(name="together", changes=(*NO_DEFOGGING, *TOGETHER)),
    Arm(name="together_sjdl", changes=TOGETHER),
    Arm(name="further", changes=(*NO_DEFOGGING, *FURTHER)),
)
# what the backbones of all begin with
START = Arm(
    name="start",
    changes=(
        "images=clear",
        "pretrained=false",
        "domain_statistics=false",
        "unit_embedding=false",
        "ibn=false",
        "whole_contrast=false",
        "weights.agreement_shared=0",
        "weights.agreement_embedding=0",
        *NO_DEFOGGING,
    ),
)
GROUPS = {
    "controls": CONTROLS,
    "table3": TABLE_3,
    "table4": TABLE_4,
    "table5": TABLE_5,
    "readings": READINGS,
    "past": PAST,
}
DEFAULT = ("controls", "table4", "table5")
STANDARD = {arm.name: arm for arms in GROUPS.values() for arm in arms}


def chosen(names: str | None, own: tuple[str, ...]) -> list[Arm]:
    """The arms of `--arms a,b`, which may name GROUPS (DEFAULT without it), and of
    `--arm NAME[@ARM]:KEY=VALUE,...`.

    Raises ConfigError for a name that is not known, or taken.
    """
    arms: dict[str, Arm] = {}
    for name in DEFAULT if names is None else filter(None, names.split(",")):
        arms |= {arm.name: arm for arm in GROUPS.get(name) or [_standard(name)]}
    for text in own:
        arm = _parsed(text)
        if arm.name in arms or arm.name in STANDARD:
            raise ConfigError(f"--arm {text}: there is an arm {arm.name} already; take another name.")
        arms[arm.name] = arm
    if not arms:
        raise ConfigError("--arms names none; leave it out, or add --arm.")
    return list(arms.values())


def _standard(name: str) -> Arm:
    if name not in STANDARD:
        raise ConfigError(f"{name} is no arm; take of {', '.join((*GROUPS, *STANDARD))}, or make one with --arm.")
    return STANDARD[name]


def _parsed(text: str) -> Arm:
    """NAME[@ARM]:KEY=VALUE,... on top of a standard arm, sjdl where none is named."""
    form = re.fullmatch(r"(?P<name>[A-Za-z0-9_]+)(@(?P<base>[A-Za-z0-9_]+))?:(?P<changes>[^=]+=.+)", text)
    if form is None or form["name"] in (START.name, *GROUPS):
        raise ConfigError(f"--arm {text}: write NAME:KEY=VALUE,..., or NAME@ARM:KEY=VALUE,... on top of that arm.")
    base = _standard(form["base"] or "sjdl")
    return replace(base, name=form["name"], changes=(*base.changes, *re.split(r",(?=[A-Za-z_.]+=)", form["changes"])))
