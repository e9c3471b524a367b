"""A cut network beside the one that it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spaces import Space, cut
from spaces.double import full_precision
from spaces.neutral import neutral
from spaces.reference import expected
from spaces.structure import flatten
from spaces.verify import randomised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelzoo.entry import Made
    from spaces.follow import Arguments

#: Largest difference of a cut from what it stands for, relative to the largest output, by arithmetic. Where a
#: model does not run in float64, rounding is all that can be told from a wrong cut.
_TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-2}

#: Of everything random while a model runs.
_SEED = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """A copy of a model with random numbers everywhere, whose cuts are looked at.

    Attributes:
        model: The copy, in eval mode.
        inputs: In the copy's arithmetic.
        dtype: Float64 where the model runs in it.
    """

    model: nn.Module
    inputs: Arguments
    dtype: torch.dtype

    @classmethod
    def of(cls, made: Made, generator: torch.Generator) -> Checked:
        """A copy with numbers from ``generator``.

        Raises:
            ValueError: If the copy does not run, or its outputs are no numbers.
        """
        failure: Exception | None = None
        for dtype in _TOLERANCES:
            arguments = _arguments(made.inputs, dtype)
            try:
                model = randomised(made.model, generator, arguments, dtype)
                outputs, _ = flatten(_run(model, arguments))
            except Exception as error:  # a foreign forward may raise anything
                failure = error
                continue
            if any(x.is_floating_point() and not x.isfinite().any() for x in outputs):
                raise ValueError("The random copy returns no numbers: nothing can be compared.")
            return cls(model, arguments, dtype)
        raise ValueError(f"The random copy does not run: {failure}")

    @property
    def arithmetic(self) -> str:
        """Name of the arithmetic."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def tolerance(self) -> float:
        """Largest difference that may pass for rounding."""
        return _TOLERANCES[self.dtype]

    def difference(self, space: Space, kept: Mapping[str, Tensor]) -> float:
        """Between a cut and what it stands for, relative to the largest output.

        NaN where the outputs differ in structure, or in where they are finite.
        """
        with neutral(self.model), torch.no_grad():
            torch.manual_seed(_SEED)
            theirs, wanted = flatten(expected(self.model, space, kept, self.inputs))
        mine, found = flatten(_run(cut(self.model, space, kept), self.inputs))
        if found != wanted or [x.shape for x in mine] != [x.shape for x in theirs]:
            return float("nan")
        return max((_difference(a, b) for a, b in zip(mine, theirs, strict=True)), default=0.0)

    def structure(self, space: Space, kept: Mapping[str, Tensor]) -> object:
        """Of the outputs of a cut, shapes included."""
        return structure(_run(cut(self.model, space, kept), self.inputs))


def structure(outputs: Any, *, free: Sequence[int] = ()) -> object:
    """Something that is equal for outputs of equal structure and shapes, but for the ``free`` dimensions."""
    tensors, around = flatten(outputs)
    return around, [[size for dim, size in enumerate(x.shape) if dim not in free] for x in tensors]


def _run(model: nn.Module, inputs: Arguments) -> Any:
    """As a user would, attention's fused operators included."""
    torch.manual_seed(_SEED)
    with torch.no_grad(), full_precision(model):
        return model(*inputs[0], **inputs[1])


def _difference(mine: Tensor, theirs: Tensor) -> float:
    finite = theirs.isfinite()
    if not torch.equal(mine.isfinite(), finite):
        return float("nan")
    if not finite.any():
        return 0.0
    a, b = mine[finite].double(), theirs[finite].double()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-300))


def _arguments(inputs: Any, dtype: torch.dtype) -> Arguments:
    """Positional and keyword arguments, real numbers in this arithmetic."""
    inputs = pytree.tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, inputs)
    return ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
