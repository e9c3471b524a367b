"""A process that holds one exported network, seen from the process that asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from evaluators.export import fresh

if TYPE_CHECKING:
    from types import TracebackType

#: Espalier's own packages.
OURS = ("spaces", "evaluators", "search")


class ExportError(RuntimeError):
    """A network can not be written in a format, or what was written is not the network."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the process is to load, and with what.

    Attributes:
        runtime: ``onnxruntime``, ``torch.export``, ``spaces`` (its ``rebuild``) or ``plain`` (the ``load.py``
            beside the weights).
        path: File, or folder for the last two.
        dense: For the last two, lines of Python that make ``dense``, the network before it was cut.
        forbidden: Packages that can not be imported while the file is loaded and run.
    """

    runtime: Literal["onnxruntime", "torch.export", "spaces", "plain"]
    path: str
    dense: str = ""
    forbidden: tuple[str, ...] = OURS


class FreshProcess:
    """Holds one exported network; a context manager, whose process ends with it.

    Args:
        job: What to load.
        scratch: Empty folder of its own, for arrays on their way and for what it says.

    Raises:
        ExportError: If it can not be loaded.
    """

    def __init__(self, job: Job, scratch: Path) -> None:
        scratch.mkdir()
        self._scratch = scratch
        self._said: IO[bytes] = (scratch / "stderr").open("w+b")
        root = str(Path(fresh.__file__).parents[2])
        known = [path for path in (root, os.environ.get("PYTHONPATH", "")) if path]
        self._process = subprocess.Popen(
            # Without -P the script's folder would come first, and its onnx.py before the package onnx.
            [sys.executable, "-P", fresh.__file__, json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            # Threads that wait for work would take the cores from the process that works now.
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": os.pathsep.join(known)},
        )
        self._number = 0

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            assert stream is not None
            stream.close()

    def wait_ready(self) -> None:
        """Return once the network is loaded.

        Raises:
            ExportError: If it can not be.
        """
        self._answer("loaded")

    def outputs(self, inputs: Any) -> list[np.ndarray]:
        """What the network makes of inputs: its output tensors in order.

        Raises:
            ExportError: If it fails, or the inputs can not be handed over.
        """
        arrays: list[np.ndarray] = []
        try:
            structure = fresh.pack(inputs, arrays, _numbers)
        except TypeError as error:
            raise ExportError(str(error)) from error
        name = self._scratch / f"{self._number}.npz"
        self._number += 1
        stored: dict[str, Any] = {str(i): array for i, array in enumerate(arrays)}
        np.savez(name, **stored, structure=np.array(json.dumps(structure)))
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{name}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # how it ended is told when it does not answer
        self._answer("run")
        made = name.with_name(f"{name.name}.out.npz")
        with np.load(made, allow_pickle=False) as found:
            outputs = [found[str(i)] for i in range(len(found.files))]
        name.unlink()
        made.unlink()
        return outputs

    def _answer(self, what: str) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            code = self._process.wait()
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            raise ExportError(f"can not be {what} in a new process: {lines[-1] if lines else f'exit {code}'}")


def _numbers(value: Any) -> np.ndarray | None:
    return fresh.numbers(value) if isinstance(value, Tensor) else None
