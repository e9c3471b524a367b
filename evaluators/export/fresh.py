"""Runs one exported network in a process of its own, with nothing but the runtime that its file is for.

Started as a script by :mod:`evaluators.export.process`, with one JSON job as its argument. For every line
on stdin, the name of an ``.npz`` file with inputs, it writes ``NAME.out.npz`` with the outputs and answers
with a line. Arrays travel as plain numbers, never as pickles. It imports nothing of Espalier that the job
does not ask for.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Key of the JSON text in an ``.npz`` file that says how its arrays belong together.
STRUCTURE = "structure"


def pack(value: Any, arrays: list[np.ndarray], as_array: Callable[[Any], np.ndarray | None]) -> object:
    """What a network is called with as JSON, its tensors put into ``arrays``.

    Args:
        value: Tensors, numbers, texts and ``None`` in tuples, lists and dicts with texts as keys.
        arrays: Grows.
        as_array: A tensor's numbers; ``None`` for what is no tensor.

    Raises:
        TypeError: If there is anything else in it.
    """
    if (array := as_array(value)) is not None:
        arrays.append(array)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(some, arrays, as_array) for some in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: pack(some, arrays, as_array) for key, some in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"inputs with a {type(value).__name__} can not be handed to another process.")


def unpack(structure: Any, array: Callable[[int], Any]) -> Any:
    """The inverse of :func:`pack`; ``array`` gives the tensor of each number."""
    ((kind, inside),) = structure.items()
    if kind == "array":
        return array(inside)
    if kind == "dict":
        return {key: unpack(some, array) for key, some in inside.items()}
    if kind == "value":
        return inside
    made = [unpack(some, array) for some in inside]
    return tuple(made) if kind == "tuple" else made


class _Forbidden(importlib.abc.MetaPathFinder):
    """Refuses to import some top-level packages, so that what runs here is known not to need them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002
        if name.partition(".")[0] in self._names:
            raise ImportError(f"{name} is not to be needed by an exported network")


def forbid(names: Sequence[str]) -> None:
    """From now on these packages can not be imported; what was imported already is forgotten."""
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Forbidden(names))


def open_network(job: dict[str, Any]) -> Callable[[Any], list[np.ndarray]]:
    """The network of a job, loaded: from unpacked inputs (arrays as NumPy's) to its outputs in order."""
    path, runtime = Path(job["path"]), job["runtime"]
    if runtime == "onnxruntime":
        forbid([*job["forbidden"], "torch"])
        return _open_onnx(path)
    if runtime == "torch.export":
        forbid(job["forbidden"])
        import torch

        return _torch_call(torch.export.load(path).module())
    dense = dense_network(job["dense"])
    forbid(job["forbidden"])
    if runtime == "spaces":
        from spaces import rebuild

        return _torch_call(rebuild(dense, path).eval())
    spec = importlib.util.spec_from_file_location("load", path / "load.py")
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    return _torch_call(plain.load(dense).eval())


def dense_network(code: str) -> Any:
    """What the lines of ``code`` call ``dense``."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names["dense"]


def _open_onnx(path: Path) -> Callable[[Any], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Any) -> list[np.ndarray]:
        found = inputs if isinstance(inputs, dict) else {}
        if not set(names) <= set(found):
            found = dict(zip(names, _arrays(inputs), strict=True))
        return list(session.run(None, {name: found[name] for name in names}))

    return run


def _torch_call(model: Any) -> Callable[[Any], list[np.ndarray]]:
    import torch
    from torch.utils import _pytree as pytree

    def run(inputs: Any) -> list[np.ndarray]:
        given = pytree.tree_map_only(np.ndarray, torch.from_numpy, inputs)
        args = (
            tuple(given) if isinstance(given, tuple | list) else () if isinstance(given, dict) else (given,)
        )
        kwargs = given if isinstance(given, dict) else {}
        with torch.inference_mode():
            made = pytree.tree_leaves(model(*args, **kwargs))
        return [numbers(some) for some in made if isinstance(some, torch.Tensor)]

    return run


def numbers(tensor: Any) -> np.ndarray:
    """A tensor's numbers; bfloat16, which NumPy does not know, as float32."""
    tensor = tensor.detach().cpu()
    exact = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    return np.asarray(exact.contiguous().numpy())


def _arrays(inputs: Any) -> Iterator[np.ndarray]:
    if isinstance(inputs, np.ndarray):
        yield inputs
    elif isinstance(inputs, dict | list | tuple):
        for some in inputs.values() if isinstance(inputs, dict) else inputs:
            yield from _arrays(some)


def main(job: dict[str, Any]) -> None:
    """Answer every line on stdin; whatever the network's own code prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    network = open_network(job)
    print("ready", file=answers)
    for line in sys.stdin:
        name = line.rstrip("\n")
        with np.load(name, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files if key != STRUCTURE}
            structure = json.loads(str(stored[STRUCTURE]))
        inputs = unpack(structure, partial(_numbered, arrays))
        made: dict[str, Any] = {str(i): array for i, array in enumerate(network(inputs))}
        np.savez(f"{name}.out.npz", **made)
        print("done", file=answers)


def _numbered(arrays: dict[str, np.ndarray], number: int) -> np.ndarray:
    return arrays[str(number)]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
