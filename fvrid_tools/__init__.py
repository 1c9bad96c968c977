"""Build, split, check and read the Foggy Vehicle Re-Identification dataset (FVRID).

data = fvrid_tools.open_dataset("data/fvrid-syn")
foggy = fvrid_tools.add_fog(clear, depth, beta, airlight)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset import Dataset, Sample, open_dataset
    from .fog import add_fog
    from .records import FvridError

__all__ = ["Dataset", "FvridError", "Sample", "add_fog", "open_dataset"]
__version__ = "0.1.0"

_HOMES = {
    "Dataset": "dataset",
    "Sample": "dataset",
    "open_dataset": "dataset",
    "add_fog": "fog",
    "FvridError": "records",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `fvrid --help` need not wait for HDF5 and OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
