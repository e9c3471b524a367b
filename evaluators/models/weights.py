"""Weights from a file into a model: every misfit is one line that a user can act on."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evaluators.options import OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

#: Keys that a message names; the others are counted.
NAMED = 3


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict in place; code in the file is never executed.

    ``.safetensors``, or what ``torch.save`` writes: a state dict, or a dict that has one under
    ``state_dict``; a prefix ``module.`` of all keys (from ``DataParallel``) is dropped.

    Raises:
        OptionError: If the file is missing, is no file of tensors, holds code, or does not fit the model.
    """
    state = read_state_dict(path)
    problem = misfit(model.state_dict(), state)
    if problem is not None:
        raise OptionError("weights", path, f"does not fit the model: {problem}.")
    # BatchNorm's batch counter is younger than many public checkpoints.
    model.load_state_dict(state, strict=False)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Raises:
        OptionError: If the file is missing, is no file of tensors, or holds code.
    """
    if not path.is_file():
        raise OptionError("weights", path, "no such file.")
    content = _read(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise OptionError("weights", path, "holds no state dict.")
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise OptionError("weights", path, "holds no state dict: it must map names to tensors.")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}


def misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """What keeps ``given`` from being loaded, with the first few keys; ``None`` if nothing does."""
    missing = [k for k in expected if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in given if k not in expected]
    shapes = [
        f"{k} is {_shape(given[k])} for {_shape(expected[k])}"
        for k in expected
        if k in given and given[k].shape != expected[k].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    return "; ".join(f"{what}: {_first(keys)}" for what, keys in found.items() if keys) or None


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise OptionError("weights", path, "not a file of tensors that safetensors can read.") from error
    try:
        with warnings.catch_warnings():
            # A foreign pickle protocol is reported as an error below, in one line.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds code or objects ({found[1]})" if found else "is a pickle that may hold code"
        rule = f"{what}, which is never executed; save a plain state dict."
        raise OptionError("weights", path, rule) from error
    except Exception as error:  # random bytes make the unpickler raise nearly anything
        raise OptionError("weights", path, "not a file of tensors that torch can read.") from error


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
