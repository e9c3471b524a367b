"""How each ATen operator hands slot labels from its inputs to its outputs.

A rule takes the slots and one call and returns the labels of each output tensor. An operator without a
rule freezes whatever it reads and is named in ``Space.warnings``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from spaces.rules import (  # noqa: F401 (registers their rules)
    arrangements,
    contractions,
    indexing,
    layers,
    ordering,
    products,
    reductions,
    shapes,
)
from spaces.rules.call import RULES, Call, Rule, freeze_inputs
from spaces.rules.elementwise import pointwise

if TYPE_CHECKING:
    from torch._ops import OpOverload

    from spaces.slots import Slots

__all__ = ["RULES", "Call", "Rule", "apply"]

logger = logging.getLogger(__name__)

aten = torch.ops.aten


def apply(slots: Slots, call: Call) -> None:
    """Run the operator's rule, or freeze what it reads."""
    found = _rule_for(call.operator)
    try:
        if found is not None:
            for output, labels in zip(call.outputs, found(slots, call), strict=False):
                slots.put(output, labels)
            return
    except Exception:
        # A use that the rule's author did not think of must not stop a model that runs.
        logger.warning("The rule of %s failed; what it reads stays whole.", call.operator, exc_info=True)
    freeze_inputs(slots, call)
    for output in call.outputs:
        slots.put(output, (None,) * output.dim())


def _rule_for(operator: OpOverload) -> Rule | None:
    """The operator's own rule; an in-place operator such as ``hardswish_`` follows its functional twin."""
    packet = operator.overloadpacket
    twin = getattr(aten, packet.__name__.removesuffix("_"), packet)
    found = RULES.get(packet) or RULES.get(twin)
    if found is None and any(
        torch.Tag.pointwise in getattr(one, name).tags for one in (packet, twin) for name in one.overloads()
    ):
        return pointwise
    return found
