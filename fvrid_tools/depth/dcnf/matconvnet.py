"""The original model of Liu et al.: MatConvNet's list of layers in a .mat file, of either version, interpreted.

Layers before the superpixel pooling make a feature map, those after it work on superpixels, the last carries the
field's betas. MATLAB stores filters as H x W x in x out and drops trailing dimensions of 1; HDF5 (version 7.3) shows
all arrays reversed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from ...records import FvridError

_MODEL = "data_obj"
_Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OriginalModel:
    """What the file holds, ready to be run."""

    trunk: tuple[_Layer, ...]  # (1, 3, H, W) in 0..255 less `mean` -> (1, C, h, w)
    head: tuple[_Layer, ...]  # (1, C, n, 1) -> (1, 1, n, 1)
    betas: Tensor  # (3,): texture, histogram, colour
    mean: float
    limits: tuple[float, float]  # of the labels that 0 and 1 stand for, in the units of `norm`
    norm: int  # 2: labels are log2 of metres, 3: log10, else metres

    def metres(self, y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance of the field's values y, which are clipped to [0, 1]."""
        low, high = self.limits
        value = np.clip(y, 0, 1) * (high - low) + low
        base = {2: 2.0, 3: 10.0}.get(self.norm)
        return np.asarray(value if base is None else base**value, np.float64)


def load(path: Path) -> OriginalModel:
    """Read a model. Raises FvridError naming the file and what of it is not understood."""
    try:
        found = _read(path)
        layers, norms = found["net"]["layers"], found["label_norm_info"]
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise TypeError("net.layers is no list of structures")
        mean = float(np.ravel(found["image_norm_info"])[0])
        limits = (float(np.ravel(norms["min_d"])[0]), float(np.ravel(norms["max_d"])[0]))
        norm = int(np.ravel(norms["norm_type"])[0])
    except FileNotFoundError:
        raise FvridError(f"{path}: no such file; name the original model's .mat.") from None
    except (OSError, LookupError, TypeError, ValueError, NotImplementedError, MatReadError) as error:
        raise FvridError(f"{path}: not a DCNF model of MatConvNet ({error!r}); name the original's .mat.") from None
    parts: tuple[list[_Layer], list[_Layer]] = ([], [])
    betas, pooled = None, 0
    for number, layer in enumerate(layers, start=1):
        kind = str(layer.get("type"))
        if kind == "custom":
            pooled += 1
        elif kind == "structured_loss":
            betas = torch.from_numpy(np.ravel(layer["struct_model_w"]).astype(np.float64))
        elif kind in _MAKERS:
            parts[min(pooled, 1)].append(_made(path, number, kind, layer))
        else:
            raise FvridError(f"{path}: layer {number} is of the type {kind!r}, which is not understood.")
    if pooled != 1 or betas is None or betas.shape != (3,) or (betas < 0).any():
        raise FvridError(f"{path}: one superpixel pooling and three betas, not below 0, are needed; it has others.")
    return OriginalModel(tuple(parts[0]), tuple(parts[1]), betas, mean, limits, norm)


def run(layers: tuple[_Layer, ...], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _made(path: Path, number: int, kind: str, layer: dict[str, Any]) -> _Layer:
    try:
        return _MAKERS[kind](layer)
    except (KeyError, ValueError) as error:
        raise FvridError(f"{path}: layer {number} ({kind}) is not understood: {error}.") from None


def _convolution(layer: dict[str, Any]) -> _Layer:
    filters = np.asarray(layer["filters"], np.float32)
    while filters.ndim < 4:
        filters = filters[..., None]
    weight = torch.from_numpy(np.ascontiguousarray(filters.transpose(3, 2, 0, 1)))
    bias = torch.from_numpy(np.ravel(layer["biases"]).astype(np.float32))
    if len(bias) != len(weight):
        raise ValueError(f"{len(weight)} filters, {len(bias)} biases")
    padding, stride = _sides(layer.get("pad", 0)), _pair(layer.get("stride", 1))
    return lambda x: torch.nn.functional.conv2d(torch.nn.functional.pad(x, padding), weight, bias, stride)


def _pool(layer: dict[str, Any]) -> _Layer:
    method = str(layer.get("method", "max"))
    if method != "max":
        raise ValueError(f"the method {method!r}")
    size, stride, padding = _pair(layer["pool"]), _pair(layer.get("stride", 1)), _sides(layer.get("pad", 0))

    def pool(x: Tensor) -> Tensor:
        return torch.nn.functional.max_pool2d(torch.nn.functional.pad(x, padding, value=-torch.inf), size, stride)

    return pool


_MAKERS: dict[str, Callable[[dict[str, Any]], _Layer]] = {
    "conv": _convolution,
    "pool": _pool,
    "relu": lambda layer: torch.relu,
    "logistic": lambda layer: torch.sigmoid,
}


def _pair(value: Any) -> tuple[int, int]:
    numbers = [int(v) for v in np.ravel(value)]
    return (numbers[0], numbers[-1])


def _sides(value: Any) -> tuple[int, int, int, int]:
    """MatConvNet's top, bottom, left, right -> torch's left, right, top, bottom."""
    numbers = [int(v) for v in np.ravel(value)]
    top, bottom, left, right = numbers if len(numbers) == 4 else numbers[:1] * 4
    return left, right, top, bottom


def _read(path: Path) -> dict[str, Any]:
    """The structure as dicts, lists, strings and arrays in MATLAB's order of dimensions."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r", locking=False) as file:
            found = _from_hdf5(file, file[_MODEL])
    else:
        found = _from_struct(loadmat(str(path), struct_as_record=True)[_MODEL])
    if not isinstance(found, dict):
        raise TypeError(f"{_MODEL} is no structure")
    return found


def _from_hdf5(file: h5py.File, item: Any) -> Any:
    if isinstance(item, h5py.Group):
        return {name: _from_hdf5(file, item[name]) for name in item}
    values = item[()]
    if values.dtype == h5py.ref_dtype:
        return [_from_hdf5(file, file[reference]) for reference in values.ravel()]
    if item.attrs.get("MATLAB_class") == b"char" or values.dtype == np.uint16:
        return "".join(map(chr, values.ravel()))
    return values.T


def _from_struct(item: Any) -> Any:
    if not isinstance(item, np.ndarray):
        return item
    if item.dtype.names:
        (one,) = item.ravel()  # a structure of one element
        return {name: _from_struct(one[name]) for name in item.dtype.names}
    if item.dtype == object:
        return [_from_struct(element) for element in item.ravel()]
    if item.dtype.kind in "US":
        return "".join(map(str, item.ravel()))
    return item
