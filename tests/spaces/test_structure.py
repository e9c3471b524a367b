"""What a model returns is taken apart into tensors, in order, and what is around them."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from spaces.structure import flatten

A, B, C = (torch.full((size,), float(size)) for size in (1, 2, 3))


def tensors(value: Any) -> list[float]:
    return [float(x[0]) for x in flatten(value)[0]]


def structure(value: Any) -> object:
    return flatten(value)[1]


@dataclass
class Boxes:
    corners: Tensor
    scores: Tensor | None = None
    labels: list[str] = field(default_factory=list)


@dataclass
class Kind:
    corners: Tensor


class Output(OrderedDict[str, Any]):
    """A dictionary whose keys are attributes, too."""

    def __init__(self, **fields: Any) -> None:
        super().__init__({name: value for name, value in fields.items() if value is not None})

    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclass
class DataclassOutput(Output):
    """As those of transformers: fields that are ``None`` are no keys."""

    first: Tensor
    second: Tensor | None = None

    def __post_init__(self) -> None:
        OrderedDict.__init__(self)
        self.update({name: value for name, value in vars(self).items() if value is not None})


class Cache:
    """Of keys and values; nothing is known of it."""

    def __init__(self, *kept: Tensor) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Any:
        return iter(self.kept)


Pair = namedtuple("Pair", ["left", "right"])

IN_ORDER: dict[str, tuple[Any, list[float]]] = {
    "a tensor": (A, [1]),
    "a tuple": ((A, B), [1, 2]),
    "a list": ([B, A], [2, 1]),
    "a dict, by its order": ({"z": A, "a": B}, [1, 2]),
    "keys of any kind": ({0: A, (1, 2): B, None: C}, [1, 2, 3]),
    "a named tuple": (Pair(B, A), [2, 1]),
    "a dataclass": (Boxes(B, A), [2, 1]),
    "a dataclass in part": (Boxes(B), [2]),
    "nested": ({"out": (A, [B, {"more": Boxes(C)}]), "none": None}, [1, 2, 3]),
    "a mapping with attributes": (Output(x=B, y=None, z=A), [2, 1]),
    "a dataclass that is a mapping": (DataclassOutput(A, B), [1, 2]),
    "the same twice": ((A, A), [1, 1]),
    "an opaque object": (Cache(A, B), []),
    "opaque and not": ((Cache(A), C), [3]),
    "nothing": (None, []),
    "the class of a dataclass": (Boxes, []),
    "empty": (((), [], {}), []),
}


@pytest.mark.parametrize("name", IN_ORDER)
def test_tensors_come_in_the_order_in_which_they_stand(name: str) -> None:
    value, order = IN_ORDER[name]
    assert tensors(value) == order


def test_the_tensors_are_those_that_are_there() -> None:
    assert flatten({"x": (A,)})[0][0] is A


LIKE: dict[str, tuple[Any, Any]] = {
    "other numbers": (A, torch.tensor([9.0])),
    "other sizes": (A, torch.zeros(4, 5)),
    "other types of numbers": (A, torch.ones(2, dtype=torch.int64)),
    "in a nest": ({"a": (A, [B])}, {"a": (B, [C])}),
    "dataclasses": (Boxes(A, B, ["x"]), Boxes(C, A, ["x"])),
    "mappings with attributes": (Output(x=A), Output(x=C)),
    "dataclasses that are mappings": (DataclassOutput(A), DataclassOutput(B)),
    "opaque objects": (Cache(A), Cache(B, C)),
    "real numbers, which may follow from weights": ((A, 0.5), (B, 0.25)),
}


@pytest.mark.parametrize("name", LIKE)
def test_values_of_equal_structure_have_equal_structure(name: str) -> None:
    one, other = LIKE[name]
    assert structure(one) == structure(other)


UNLIKE: dict[str, tuple[Any, Any]] = {
    "a tensor and a tuple of it": (A, (A,)),
    "a tuple and a list": ((A, B), [A, B]),
    "a tuple and a named tuple": ((A, B), Pair(A, B)),
    "a dict and an ordered one": ({"a": A}, OrderedDict(a=A)),
    "lengths": ((A,), (A, B)),
    "keys": ({"a": A}, {"b": A}),
    "kinds of keys": ({"1": A}, {1: A}),
    "where tensors stand": ({"a": A, "b": None}, {"a": None, "b": A}),
    "how deep tensors stand": (((A, B), C), (A, (B, C))),
    "a missing field": (Boxes(A, B), Boxes(A)),
    "classes of dataclasses": (Boxes(A), Kind(A)),
    "a missing key of a mapping": (Output(x=A, y=B), Output(x=A)),
    "a missing field of a dataclass that is a mapping": (DataclassOutput(A, B), DataclassOutput(A)),
    "an opaque object and nothing": (Cache(A), None),
    "an opaque object and what it holds": (Cache(A), (A,)),
    "integers": ((A, 3), (A, 4)),
    "a number and a text": ((A, 3), (A, "3")),
    "a flag and a number": ((A, True), (A, 1)),
    "a text and a tensor": ("tensor", A),
    "texts of a dataclass": (Boxes(A, None, ["cat"]), Boxes(A, None, ["dog"])),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_values_of_other_structure_have_other_structure(name: str) -> None:
    one, other = UNLIKE[name]
    assert structure(one) != structure(other)
