"""SJDL: semi-supervised joint defogging learning for foggy vehicle re-identification (AAAI 2022).

from sjdl_model import SJDL, losses, metrics
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import losses, metrics
    from .network import SJDL, SJDLOutput

__all__ = ["SJDL", "SJDLOutput", "losses", "metrics"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `sjdl --help` need not wait for torch."""
    from importlib import import_module

    if name in ("SJDL", "SJDLOutput"):
        return getattr(import_module(f"{__name__}.network"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
