"""Files that training writes: the checkpoint to go on from, and the weights to use. Both appear whole or not at all."""

import io
import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from fvrid_tools.files import atomic_path, write_atomic

from .config import DataError, first_line
from .network import WEIGHTS, Architecture, weights_file

CHECKPOINT = "checkpoint.pt"


def git_revision() -> str:
    """The commit of this code, with "+" where files were changed since; "unknown" where no repository has it, which
    one around an environment that it is installed in does not."""
    tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        for each in (tracked, command):
            found = subprocess.run(each, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def versions() -> str:
    """Of this package and what it computes with, as JSON."""
    return json.dumps({name: version(name) for name in ("fvrid", "torch", "torchvision", "timm", "numpy")})


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """`state`: as `save_tensors` takes it."""
    save_tensors(run / CHECKPOINT, state)


def save_tensors(path: Path, state: dict[str, Any]) -> None:
    """`state`: tensors, numbers, strings, and dicts and lists of them. Raises OSError where the disk does not take it,
    which torch, writing by itself, would not say."""
    content = io.BytesIO()
    torch.save(state, content)
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())


def load_checkpoint(run: Path) -> dict[str, Any]:
    """Raises DataError where the run has no checkpoint that can be read."""
    path = run / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint; train without --resume.") from None
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise DataError(f"{path}: not a checkpoint ({first_line(error)}).") from None
    return state


def read_facts(weights: Path) -> dict[str, str]:
    """What `save_weights` wrote beside the tensors of a file, or of a folder that holds one."""
    with safe_open(weights_file(weights), "pt") as file:
        return dict(file.metadata() or {})


def save_weights(run: Path, net: nn.Module, architecture: Architecture, facts: dict[str, str]) -> None:
    """Write weights.safetensors with the architecture, and facts such as the git revision, in its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    metadata = {"sjdl": json.dumps(architecture._asdict()), **facts}
    write_atomic(run / WEIGHTS, save(tensors, metadata))
