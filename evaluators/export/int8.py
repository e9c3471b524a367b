"""A network in 8-bit integers: static quantisation after training, by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

from torch import Tensor

from evaluators.calibration import calibration_batches, first_samples
from evaluators.export.fresh import numbers
from evaluators.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from evaluators.task import Task

#: Training samples from which the ranges of activations are read. On CIFAR-10 more changed nothing.
SAMPLES = 512


def write_int8(onnx: Path, task: Task, path: Path) -> None:
    """Quantise an ONNX file: weights per channel and activations per tensor, in QDQ form.

    The range of each activation is its smallest and largest value over the first :data:`SAMPLES` calibration
    samples, which are training data. Entropy and percentiles gave no better score on CIFAR-10 (ResNet-20 at
    45% of the MACs, 5,000 images: within 0.1 points of each other) and hold all activations in memory.

    Args:
        onnx: What :func:`evaluators.export.onnx.write_onnx` wrote.
        task: Where calibration data comes from.
        path: New file.

    Raises:
        Exception: Whatever ONNX Runtime raises for a network that it can not quantise.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = _batches(onnx, task)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    prepared = path.with_name(f"{path.name}.prepared")
    with _silence():
        quant_pre_process(str(onnx), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Batches(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
    prepared.unlink()


def _batches(onnx: Path, task: Task) -> Iterator[dict[str, Any]]:
    """Calibration inputs by the names that the file gives them."""
    import onnxruntime

    names = [given.name for given in onnxruntime.InferenceSession(str(onnx)).get_inputs()]
    for inputs, _ in first_samples(calibration_batches(task, Precision()), SAMPLES):
        if isinstance(inputs, dict):
            found = {name: numbers(inputs[name]) for name in names}
        else:
            tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
            found = dict(zip(names, map(numbers, tensors), strict=True))
        yield found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The quantiser logs advice on steps that were taken already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
