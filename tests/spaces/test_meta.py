"""Quick shapes equal PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spaces import meta

aten = torch.ops.aten


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "layer norm": (aten.native_layer_norm.default, (empty(2, 5, 6), [6], empty(6), empty(6), 1e-5)),
    "layer norm, two dims": (aten.native_layer_norm.default, (empty(2, 5, 6), [5, 6], None, None, 1e-5)),
    "layer norm, strided": (
        aten.native_layer_norm.default,
        (empty(2, 6, 5).transpose(1, 2), [6], empty(6), None, 1e-5),
    ),
    "batch norm": (
        aten.native_batch_norm.default,
        (empty(2, 3, 4, 4), empty(3), empty(3), empty(3), empty(3), False, 0.1, 1e-5),
    ),
    "batch norm, training": (
        aten.native_batch_norm.default,
        (empty(2, 3, 4, 4), None, None, empty(3), empty(3), True, 0.1, 1e-5),
    ),
    "batch norm, channels last": (
        aten.native_batch_norm.default,
        (
            empty(2, 3, 4, 4).to(memory_format=torch.channels_last),
            empty(3),
            empty(3),
            empty(3),
            empty(3),
            False,
            0.1,
            1e-5,
        ),
    ),
    "softmax": (aten._safe_softmax.default, (empty(2, 3, 4), -1)),
    "softmax, strided": (aten._safe_softmax.default, (empty(2, 3, 4).transpose(0, 1), -1)),
    "addmm": (aten.addmm.default, (empty(7), empty(3, 4), empty(7, 4).t())),
    "addmm, matrix": (aten.addmm.default, (empty(3, 7), empty(3, 4), empty(4, 7))),
    "bilinear": (aten.upsample_bilinear2d.default, (empty(1, 3, 4, 4), [8, 9], False, None, None)),
    "bilinear, channels last": (
        aten.upsample_bilinear2d.default,
        (empty(1, 3, 4, 4).to(memory_format=torch.channels_last), [8, 9], False, None, None),
    ),
    "bicubic": (aten.upsample_bicubic2d.default, (empty(1, 3, 4, 4), [2, 2], True, None, None)),
    "add": (aten.add.Tensor, (empty(2, 3), empty(2, 3))),
    "add, number": (aten.add.Tensor, (empty(2, 3), 1)),
    "add, stretched": (aten.add.Tensor, (empty(2, 3), empty(3))),
    "add, two types": (aten.add.Tensor, (empty(2, 3), empty(2, 3, dtype=torch.float64))),
    "add, strided": (aten.add.Tensor, (empty(3, 2).t(), empty(2, 3))),
    "add, integers": (aten.add.Tensor, (empty(2, 3, dtype=torch.int64), 1.5)),
    "mul": (aten.mul.Tensor, (empty(2, 3), empty(2, 3))),
    "sub": (aten.sub.Tensor, (empty(2, 3), 2.5)),
    "gelu": (aten.gelu.default, (empty(2, 3),)),
}


def looks(made: Any) -> list[tuple[Any, ...]]:
    tensors = made if isinstance(made, tuple) else (made,)
    return [(tuple(x.shape), x.stride(), x.dtype, x.device.type) for x in tensors]


@pytest.mark.parametrize("name", CALLS)
def test_what_is_made_looks_like_what_pytorch_makes(name: str) -> None:
    func, args = CALLS[name]
    assert looks(meta.run(func, args, {})) == looks(func(*args))


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.native_layer_norm.default, (empty(2, 6), [5], None, None, 1e-5)),
        (aten.addmm.default, (empty(7), empty(3, 4), empty(5, 7))),
        (aten.add.Tensor, (empty(2, 3), empty(2, 4))),
    ],
)
def test_what_does_not_fit_raises(func: Any, args: tuple[Any, ...]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 (PyTorch's own, of several classes)
        meta.run(func, args, {})


def test_a_batch_norm_of_other_channels_is_left_to_pytorch() -> None:
    args = (empty(2, 3, 4), empty(4), None, None, None, True, 0.1, 1e-5)
    assert meta._batch_norm(*args) is None


def test_numbers_are_left_alone() -> None:
    x = torch.randn(2, 6)
    made = meta.run(aten.native_layer_norm.default, (x, [6], None, None, 1e-5), {})
    assert torch.equal(made[0], torch.nn.functional.layer_norm(x, [6]))


@pytest.mark.parametrize("name", meta._ACTIVATIONS)
@pytest.mark.parametrize("x", [empty(2, 3, 4), empty(2, 3, 4).transpose(0, 1)], ids=["plain", "strided"])
def test_activations(name: str, x: Tensor) -> None:
    func, in_place = (getattr(aten, form).default for form in (name, f"{name}_"))
    assert looks(meta.run(func, (x,), {})) == looks(func(x))
    assert meta.run(in_place, (x,), {}) is x
