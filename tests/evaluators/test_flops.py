from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.flops import count_macs
from spaces import trace


def test_a_convolution_by_hand() -> None:
    # 5x5 outputs, 4 of them, each from 3 channels of 3x3; the bias is free
    assert count_macs(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 7, 7)) == 5 * 5 * 4 * 3 * 9


def test_a_grouped_convolution_by_hand() -> None:
    assert count_macs(nn.Conv2d(4, 8, 3, groups=2), torch.zeros(1, 4, 5, 5)) == 3 * 3 * 8 * 2 * 9


def test_norms_activations_and_pooling_are_free() -> None:
    layers = [
        nn.BatchNorm2d(2),
        nn.ReLU(inplace=True),
        nn.Hardswish(),
        nn.SiLU(),
        nn.MaxPool2d(2),
        nn.Dropout(),
    ]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5))
    assert count_macs(model, torch.zeros(1, 2, 4, 4)) == 10


def test_a_larger_batch_counts_as_one() -> None:
    assert count_macs(nn.Linear(3, 5), torch.zeros(64, 3)) == 15


class Products(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = torch.einsum("bij,bjk->bik", left, right)
        return torch.bmm(both, right.transpose(1, 2)) + left @ torch.ones(4, 4)


@pytest.mark.parametrize("named", [False, True])
def test_matrix_products_of_tuple_and_dict_inputs(named: bool) -> None:
    left, right = torch.zeros(1, 3, 4), torch.zeros(1, 4, 4)
    inputs = {"right": right, "left": left} if named else (left, right)
    assert count_macs(Products(), inputs) == 3 * (3 * 4 * 4)


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


def test_fused_attention_counts_both_products() -> None:
    query, key, value = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 7, 8), torch.zeros(1, 2, 7, 3)
    assert count_macs(Attention(), (query, key, value)) == 2 * (5 * 7 * 8 + 5 * 7 * 3)


def test_the_fast_path_of_attention_layers_hides_nothing() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).eval()
    # per token: projections 4 * 64, feed-forward 2 * 128; scores and mixture 2 * 5 * 8
    assert count_macs(layer, torch.zeros(1, 5, 8)) == 5 * (4 * 64 + 2 * 128 + 2 * 5 * 8)
    assert torch.backends.mha.get_fastpath_enabled()


class Distances(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(x) + torch.cdist(x, x)


def test_an_unknown_operator_is_an_error_that_names_it() -> None:
    with pytest.raises(RuntimeError, match=r"can not count aten::cdist, aten::linalg_inv: neither counted"):
        count_macs(Distances(), torch.eye(3)[None])


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.unused = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 7), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x + 1)
        return self.head(x)


def test_results_that_nobody_uses_count() -> None:
    space = trace(Unused(), torch.zeros(1, 4))
    assert count_macs(Unused(), torch.zeros(1, 4)) == space.macs(space.dense) == 4 * 3 + 4 * 7


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_model_that_cannot_be_followed_is_an_error() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 3)))
    with pytest.raises(RuntimeError, match=r"fvcore can not follow the model: \w+"):
        count_macs(model, torch.zeros(1, 4))


class UnusedDistances(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.cdist(x, x)
        return x


def test_unknown_operators_whose_results_nobody_uses_are_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"can not count aten::cdist: neither"):
        count_macs(UnusedDistances(), torch.zeros(1, 3, 3))


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG004
        return F.linear(x, weight).round(), x

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG004
        return Rounded.apply(Rounded.apply(x, weight)[0], weight)[0]


class OwnFunctions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return Rounded.apply(x, self.weight)[0] + Twice.apply(x, self.weight)


def test_functions_with_gradients_of_their_own_count_what_they_run() -> None:
    model, x = OwnFunctions(), torch.zeros(1, 4)
    space = trace(model, x)
    assert count_macs(model, x) == space.macs(space.dense) == 3 * 16


@dataclass
class Result:
    logits: Tensor
    note: str = "fine"
    hidden: Tensor | None = None


class Options(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, times: int, *, extra: dict[str, Any] | None = None) -> Any:
        for _ in range(times):
            logits = self.head(x)
        return Result(logits + (extra["added"] if extra else 0))


@pytest.mark.parametrize(
    "inputs",
    [
        (torch.zeros(1, 4), 2),
        {"times": 2, "extra": {"added": torch.zeros(1, 3), "name": None}, "x": torch.zeros(1, 4)},
    ],
)
def test_inputs_and_outputs_need_not_be_tensors(inputs: Any) -> None:
    model = Options()
    space = trace(model, inputs)
    assert count_macs(model, inputs) == space.macs(space.dense) == 2 * 12


def test_modes_are_restored_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Identity())
    model[1].eval()
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        count_macs(model, torch.zeros(1, 1, 2, 2))
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert not caplog.records
    assert logging.root.manager.disable == logging.NOTSET


def test_inputs_without_a_batch_are_counted_as_a_trace_counts_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
    image = torch.zeros(3, 5, 4)
    space = trace(model, image)
    assert count_macs(model, image) == space.macs(space.dense) == 20 * 9 * (3 * 8 + 8 * 2)
