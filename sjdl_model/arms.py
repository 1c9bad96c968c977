"""The arms of the ablation: the controls, the rows of Tables 4 and 5, and arms of one's own. What differs, not how.

Every arm is a few changes of one recipe, so that nothing else differs.
"""

import re
from dataclasses import dataclass

from .config import IMAGE_TERMS, ConfigError

_NO_DEFOGGING = tuple(f"weights.{name}=0" for name in IMAGE_TERMS)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Changes of the recipe, as --set takes them, and what the arm is trained and tested on."""

    name: str
    changes: tuple[str, ...] = ()
    counterparts: bool = False  # trained with the clear images of the scenes in real fog, which only a renderer has
    clear: bool = False  # trained and tested on clear images


CONTROLS = (
    Arm(name="headroom", changes=("images=clear", *_NO_DEFOGGING), counterparts=True, clear=True),
    Arm(name="oracle", counterparts=True),
)
TABLE_4 = (
    Arm(name="baseline", changes=_NO_DEFOGGING),
    Arm(name="jdl", changes=tuple(change for change in _NO_DEFOGGING if "restoration" not in change)),
    Arm(name="sjdl_no_sc", changes=("weights.self_constraint=0",)),
    Arm(name="sjdl"),
)
TABLE_5 = tuple(Arm(name=f"conv_{stage}", changes=(f"shared_stage={stage}",)) for stage in (2, 3, 4, 5))
STANDARD = {arm.name: arm for arm in (*CONTROLS, *TABLE_4, *TABLE_5)}
START = Arm(name="start", changes=("images=clear", *_NO_DEFOGGING))  # what the backbones of all begin with


def chosen(names: str | None, own: tuple[str, ...]) -> list[Arm]:
    """The arms of `--arms a,b` (all standard ones without it) and of `--arm NAME[@ARM]:KEY=VALUE,...`.

    Raises ConfigError for a name that is not known, or taken.
    """
    arms = {name: _standard(name) for name in (STANDARD if names is None else filter(None, names.split(",")))}
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
        raise ConfigError(f"{name} is no arm; take of {', '.join(STANDARD)}, or make one with --arm.")
    return STANDARD[name]


def _parsed(text: str) -> Arm:
    """NAME[@ARM]:KEY=VALUE,... on top of a standard arm, sjdl where none is named."""
    form = re.fullmatch(r"(?P<name>[A-Za-z0-9_]+)(@(?P<base>[a-z0-9_]+))?:(?P<changes>[^=]+=.+)", text)
    if form is None or form["name"] == START.name:
        raise ConfigError(f"--arm {text}: write NAME:KEY=VALUE,..., or NAME@ARM:KEY=VALUE,... on top of that arm.")
    base = _standard(form["base"] or "sjdl")
    changes = tuple(re.split(r",(?=[A-Za-z_.]+=)", form["changes"]))
    return Arm(name=form["name"], changes=(*base.changes, *changes), counterparts=base.counterparts, clear=base.clear)
