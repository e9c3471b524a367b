"""What stays whole, and why: the answer to "why is this layer not in the space?"."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frozen:
    """Outputs of a layer that stay whole, and why.

    Attributes:
        name: Tensor whose rows make them, without ``.weight``.
        width: How many of its rows stay.
        reason: For the reader: ``output of the model``, ``aten.foo has no rule``, ``excluded``, ...
        operator: ATen operator at which it was decided, such as ``aten.select.int``.
        module: Module that called the operator, such as ``blocks.3.attn``.
        line: Where in the model's code, such as ``vision_transformer.py:123``.
    """

    name: str
    width: int
    reason: str
    operator: str | None = None
    module: str | None = None
    line: str | None = None
