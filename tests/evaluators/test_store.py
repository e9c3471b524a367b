from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from evaluators.statistics.records import Moments, Statistics, UnitStatistics
from evaluators.statistics.store import from_tensors, to_tensors

if TYPE_CHECKING:
    from pathlib import Path


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def unit_statistics(width: int, rank: bool) -> UnitStatistics:
    values = [random(width) for _ in range(7)]
    return UnitStatistics(*values[:4], random(width, 5).round(), values[4] if rank else None, *values[5:])


def full() -> Statistics:
    """Every field filled in at least one record, and missing in another where it may be."""
    torch.manual_seed(0)
    return Statistics(
        moments={
            "stage.1.conv": Moments(
                "stage.1.conv", random(2, 7, 3), random(2, 7, 7), random(2, 7, 7), None, random(2, 3), 3
            ),
            "a.late.name": Moments(
                "a.late.name", random(1, 5, 2), None, None, random(1, 2, 2, 2), random(1, 2), 2
            ),
        },
        units={"stage.1": unit_statistics(4, rank=True), "head": unit_statistics(6, rank=False)},
        gradients={"stage.1.conv.weight": torch.randn(3, 2, 1), "scalar": torch.tensor(0.1)},
        curvature={"stage.1": random(4)},
        removals={"head": random(3, 2)},
        warnings=("First: with 'quotes' and ü.", "Second."),
    )


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif is_dataclass(one):
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("statistics", [full(), Statistics()], ids=["full", "empty"])
def test_statistics_come_back_exactly_from_a_file(tmp_path: Path, statistics: Statistics) -> None:
    tensors, texts = to_tensors(statistics)
    save_file(tensors, tmp_path / "file", texts)
    with safe_open(tmp_path / "file", framework="pt") as file:
        found = from_tensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118
    assert_equal(found, statistics)


def test_layers_come_back_in_the_order_in_which_they_ran() -> None:
    statistics = full()
    tensors, texts = to_tensors(statistics)
    found = from_tensors(dict(sorted(tensors.items())), texts)
    assert list(found.moments) == ["stage.1.conv", "a.late.name"]


def test_other_texts_are_left_alone() -> None:
    tensors, texts = to_tensors(full())
    assert_equal(from_tensors(tensors, texts | {"key": "of the file"}), full())
