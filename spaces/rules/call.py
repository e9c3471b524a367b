"""One ATen operator call, and the registry of rules for such calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from spaces.slots import Slots, TensorLabels

if TYPE_CHECKING:
    from torch._ops import OpOverload


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call.

    Attributes:
        operator: The ATen overload.
        arguments: By schema name, defaults filled in.
        outputs: Every tensor that came out.
        sizes: Shape of the first argument before the call, which an in-place operator may change.
    """

    operator: OpOverload
    arguments: dict[str, Any]
    outputs: tuple[Tensor, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls,
        operator: OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        result: Any,
        sizes: tuple[int, ...],
    ) -> Call:
        """Bind positional arguments and defaults to their names."""
        arguments = {}
        for position, argument in enumerate(operator._schema.arguments):
            if position < len(args):
                arguments[argument.name] = args[position]
            else:
                arguments[argument.name] = kwargs.get(
                    argument.name, argument.default_value if argument.has_default_value() else None
                )
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        return cls(
            operator, arguments, tuple(output for output in outputs if isinstance(output, Tensor)), sizes
        )

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def inputs(self) -> list[Tensor]:
        """Every tensor among the arguments, those in lists too."""
        flat = (x for a in self.arguments.values() for x in (a if isinstance(a, (tuple, list)) else (a,)))
        return [x for x in flat if isinstance(x, Tensor)]

    def dims(self, name: str, rank: int) -> set[int]:
        """A ``dim`` argument as a set of non-negative dimensions; all of them when it is absent."""
        value = self.arguments.get(name)
        if value is None or value == []:
            return set(range(rank))
        return {d % rank for d in (value if isinstance(value, (tuple, list)) else (value,))}


Rule = Callable[[Slots, Call], "list[TensorLabels]"]
RULES: dict[Any, Rule] = {}


def rule(*operators: Any) -> Callable[[Rule], Rule]:
    """Register a rule for all overloads of some operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def freeze_inputs(slots: Slots, call: Call) -> None:
    """No rule: everything that the operator reads must stay."""
    labelled = [labels for tensor in call.inputs for labels in slots.of(tensor) if labels is not None]
    if labelled:
        slots.freeze(*labelled)
        slots.warnings[f"{call.operator} has no rule: what it reads stays whole."] = None
