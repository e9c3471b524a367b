"""Ways of running a network: PyTorch eager, ``torch.compile`` and ONNX Runtime."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from evaluators.export.onnx import write_onnx
from evaluators.options import OptionError, choose
from evaluators.precision import Precision, at_rest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from evaluators.latency.setting import Setting

#: One forward pass.
Run = Callable[[], object]

#: Prepares a network anew, somewhere else in memory.
Fresh = Callable[[], Run]


@contextlib.contextmanager
def _eager(model: nn.Module, inputs: Any, setting: Setting) -> Iterator[Fresh]:
    precision = Precision(device=setting.device)
    args, kwargs = _call(precision.place_inputs(inputs))

    def fresh() -> Run:
        placed = precision.place(copy.deepcopy(model))
        return lambda: placed(*args, **kwargs)

    yield fresh


@contextlib.contextmanager
def _compiled(model: nn.Module, inputs: Any, setting: Setting) -> Iterator[Fresh]:
    precision = Precision(device=setting.device)
    args, kwargs = _call(precision.place_inputs(inputs))
    # Cut networks share their code with the dense one: each is compiled for its own shapes, however many.
    with torch._dynamo.config.patch(recompile_limit=1024, accumulated_recompile_limit=4096):
        compiled = torch.compile(precision.place(copy.deepcopy(model)), dynamic=False)

        def fresh() -> Run:
            compiled(*args, **kwargs)  # is compiled now, for the threads of now
            return lambda: compiled(*args, **kwargs)

        yield fresh


@contextlib.contextmanager
def _onnxruntime(model: nn.Module, inputs: Any, setting: Setting) -> Iterator[Fresh]:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
    # Threads that wait busily for the next run would be in the way of the other network's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if setting.is_gpu else "CPUExecutionProvider"
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(at_rest(copy.deepcopy(model)), inputs, path)

        def fresh() -> Run:
            session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
            binding = session.io_binding()
            for node, tensor in zip(session.get_inputs(), tensors, strict=True):
                binding.bind_cpu_input(node.name, tensor.numpy())
            for node in session.get_outputs():
                binding.bind_output(node.name)
            return lambda: session.run_with_iobinding(binding)

        yield fresh


#: Takes a network in eval mode and a batch, and leaves both as they are.
BACKENDS: dict[str, Callable[[nn.Module, Any, Setting], AbstractContextManager[Fresh]]] = {
    "eager": _eager,
    "compile": _compiled,
    "onnxruntime": _onnxruntime,
}


def check_backends(option: str, names: Iterable[str], device: str) -> None:
    """Whether this machine can run networks in these ways.

    Args:
        option: To be named in what is raised.
        names: Of backends.
        device: Where to.

    Raises:
        OptionError: Where a backend is unknown, or lacks something.
    """
    for name in names:
        choose(option, name, BACKENDS)
        if name == "compile" and not _compiler(device):
            rule = "needs a C++ compiler such as g++ (and Triton on a GPU); install one, or leave it out."
            raise OptionError(option, name, rule)
        if name == "onnxruntime":
            _check_onnxruntime(option, device)


def _compiler(device: str) -> bool:
    found = any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)
    return found and (device == "cpu" or importlib.util.find_spec("triton") is not None)


def _check_onnxruntime(option: str, device: str) -> None:
    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]
    if missing:
        rule = f"needs {', '.join(missing)}: pip install 'espalier-nas[export]'."
        raise OptionError(option, "onnxruntime", rule)
    if device != "cpu":
        onnxruntime = importlib.import_module("onnxruntime")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            rule = "this ONNX Runtime has no CUDA; install onnxruntime-gpu, or measure with --device cpu."
            raise OptionError(option, "onnxruntime", rule)


def _call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a forward pass."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
