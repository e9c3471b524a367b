"""Multiply-adds of an ``einsum``, as torch runs it: a chain of products of two operands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Size of each index of an operand. Dimensions under an ellipsis are ``1``, ``2``, ... from the right.
_Operand = dict[str, int]


def einsum_macs(equation: str, shapes: Sequence[Sequence[int]], path: Sequence[int] = ()) -> int:
    """Multiply-adds of ``torch.einsum``.

    What only one of two operands has is summed before they meet. Operands without a common index to sum over
    are multiplied element by element, which is free.

    Args:
        equation: Such as ``"bij,bjk->bik"``.
        shapes: Of the operands.
        path: Positions of the operands that meet, two by two; their product goes to the end. Where it is
            empty, they meet from left to right.
    """
    operands, kept = _parsed(equation, shapes)
    positions = list(path)
    macs = 0
    while len(operands) > 1:
        first, second = sorted((positions.pop(0), positions.pop(0))) if positions else (0, 1)
        right, left = operands.pop(second), operands.pop(first)
        needed = kept.union(*operands)
        summed = {index for index in left.keys() & right.keys() - needed if left[index] == right[index]}
        met = {
            index: max(left.get(index, 1), right.get(index, 1))
            for index in left.keys() | right.keys()
            if index in needed | summed
        }
        if summed:
            macs += math.prod(met.values())
        product = {index: size for index, size in met.items() if index in needed}
        operands.insert(len(operands) if path else 0, product)
    return macs


def _parsed(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[list[_Operand], set[str]]:
    """The operands, and the indices that the result keeps."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    operands = [
        dict(zip(_indices(term, len(shape)), shape, strict=True))
        for term, shape in zip(terms.split(","), shapes, strict=True)
    ]
    hidden = {index for operand in operands for index in operand if index.isdigit()}
    if arrow:
        return operands, {*result} | (hidden if "..." in result else set())
    return operands, {index for index in terms if terms.count(index) == 1} | hidden


def _indices(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    hidden = range(rank - len(before) - len(after), 0, -1) if dots else ()
    return [*before, *map(str, hidden), *after]
