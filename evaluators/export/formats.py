"""The formats in which a network can be taken away: what each writes, and how it is loaded again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluators.export.int8 import write_int8
from evaluators.export.onnx import write_onnx
from evaluators.export.plain import LOADER, plain_document
from evaluators.export.process import ExportError, Job
from evaluators.export.pt2 import write_pt2
from evaluators.options import OptionError, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from torch import nn

    from evaluators.task import Task

ARCHITECTURE, WEIGHTS, LOAD = "architecture.json", "weights.safetensors", "load.py"
ONNX, PT2, INT8 = "model.onnx", "model.pt2", "model-int8.onnx"


@dataclass(frozen=True, slots=True)
class Network:
    """What is to be taken away.

    Attributes:
        model: The pruned network, on the CPU in eval mode and fp32.
        task: Its task, with the dense network.
        folder: Where the run has its two files.
        dense_code: Lines of Python that make ``dense``, the network before it was pruned.
    """

    model: nn.Module
    task: Task
    folder: Path
    dense_code: str


@dataclass(frozen=True, slots=True)
class Format:
    """One form of a network.

    Attributes:
        write: Writes its files into a folder, where those of other formats may be already; returns how each
            of them is loaded.
        exact: Whether it gives the network's own outputs.
        needs: Modules that must be installed.
    """

    write: Callable[[Network, Path], dict[str, Job]]
    exact: bool = True
    needs: tuple[str, ...] = field(default=())


def _architecture(network: Network, target: Path) -> dict[str, Job]:
    """The two files, and a loader in plain PyTorch where integers are all that a cut changes."""
    shutil.copyfile(network.folder / WEIGHTS, target / WEIGHTS)
    document: dict[str, Any] = json.loads((network.folder / ARCHITECTURE).read_text(encoding="utf-8"))
    plain = plain_document(document, network.task.model, network.model)
    text = json.dumps(plain or document, allow_nan=False)
    (target / ARCHITECTURE).write_text(f"{text}\n", encoding="utf-8")
    jobs = {WEIGHTS: Job("spaces", str(target), network.dense_code, ("evaluators", "search"))}
    if plain is not None:
        (target / LOAD).write_text(LOADER, encoding="utf-8")
        jobs[LOAD] = Job("plain", str(target), network.dense_code)
    return jobs


def _onnx(network: Network, target: Path) -> dict[str, Job]:
    if not (target / ONNX).is_file():
        write_onnx(network.model, network.task.example_inputs, target / ONNX)
    return {ONNX: Job("onnxruntime", str(target / ONNX))}


def _pt2(network: Network, target: Path) -> dict[str, Job]:
    write_pt2(network.model, network.task.example_inputs, target / PT2)
    return {PT2: Job("torch.export", str(target / PT2))}


def _int8(network: Network, target: Path) -> dict[str, Job]:
    source = target / ONNX
    borrowed = source if source.is_file() else target / f"{INT8}.source"
    if borrowed != source:
        write_onnx(network.model, network.task.example_inputs, borrowed)
    write_int8(borrowed, network.task, target / INT8)
    if borrowed != source:
        borrowed.unlink()
    return {INT8: Job("onnxruntime", str(target / INT8))}


_RUNTIME = ("onnx", "onnxscript", "onnxruntime")

#: By name on the command line; written in this order.
FORMATS: dict[str, Format] = {
    "architecture": Format(_architecture),
    "onnx": Format(_onnx, needs=_RUNTIME),
    "pt2": Format(_pt2),
    "int8": Format(_int8, exact=False, needs=_RUNTIME),
}


def chosen_formats(names: Iterable[str]) -> tuple[str, ...]:
    """Names of formats, in the order of :data:`FORMATS`.

    Args:
        names: As given: one or several, with commas between them.

    Raises:
        OptionError: If one is unknown, or something that it needs is not installed.
    """
    wanted = {choose("export", part.strip(), FORMATS) for name in names for part in name.split(",")}
    for name in sorted(wanted):
        missing = [module for module in FORMATS[name].needs if importlib.util.find_spec(module) is None]
        if missing:
            rule = f"needs {' and '.join(missing)}; pip install 'espalier-nas[export]'."
            raise OptionError("export", name, rule)
    return tuple(name for name in FORMATS if name in wanted)


def write_formats(
    network: Network, names: Sequence[str], target: Path, say: Callable[[str], None]
) -> dict[str, tuple[Job, bool]]:
    """Write a network in several formats into a folder.

    Returns:
        By file, how it is loaded, and whether it is to give the network's own outputs.

    Raises:
        ExportError: If the network can not be written in one of them; begins with its name.
    """
    jobs: dict[str, tuple[Job, bool]] = {}
    for name in names:
        say(f"writing {name}")
        try:
            found = FORMATS[name].write(network, target)
        except OSError:
            raise
        except Exception as error:  # whatever another library does not support
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            why = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
            raise ExportError(f"{name}: this network can not be written so ({why})") from error
        jobs |= {file: (job, FORMATS[name].exact) for file, job in found.items()}
    return jobs
