"""Every counted operator by hand or against the closed form, and which operators are free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from fvcore.nn.jit_analysis import _IGNORED_OPS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

from evaluators import free_operators
from evaluators.counted_operators import COUNTED
from evaluators.einsum import einsum_macs
from evaluators.flops import count_macs
from evaluators.free_operators import is_free
from spaces import trace

if TYPE_CHECKING:
    from collections.abc import Callable


class Apply(nn.Module):
    """A function of the input and of one parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


#: 6 steps of 5 features, 7 hidden units; per layer and direction gates times (inputs + hidden).
RECURRENT = {
    "lstm": (nn.LSTM(5, 7, batch_first=True), 6 * 28 * (5 + 7)),
    "no bias": (nn.LSTM(5, 7, bias=False, batch_first=True), 6 * 28 * (5 + 7)),
    "layers": (nn.LSTM(5, 7, 3, batch_first=True), 6 * 28 * (5 + 7 + 2 * (7 + 7))),
    "both directions": (
        nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True),
        6 * 2 * 28 * (5 + 7 + 14 + 7),
    ),
    "projection": (
        nn.LSTM(5, 7, 2, proj_size=3, batch_first=True),
        6 * (28 * (5 + 3) + 28 * (3 + 3) + 2 * 3 * 7),
    ),
    "gru": (nn.GRU(5, 7, 2, bidirectional=True, batch_first=True), 6 * 2 * 21 * (5 + 7 + 14 + 7)),
    "tanh": (nn.RNN(5, 7, 2, batch_first=True), 6 * 7 * (5 + 7 + 7 + 7)),
    "relu": (nn.RNN(5, 7, nonlinearity="relu", batch_first=True), 6 * 7 * (5 + 7)),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_count_each_step(name: str) -> None:
    layer, expected = RECURRENT[name]
    sequence = torch.randn(1, 6, 5)
    space = trace(layer, sequence)
    assert count_macs(layer, sequence) == space.macs(space.dense) == expected


def test_without_batch_first_the_sequence_is_cut_as_in_a_trace() -> None:
    layer, sequence = nn.LSTM(5, 7), torch.randn(6, 1, 5)
    space = trace(layer, sequence)
    assert count_macs(layer, sequence) == space.macs(space.dense) == 28 * (5 + 7)
    assert count_macs(layer, sequence[:, 0]) == 28 * (5 + 7)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_packed_sequences_count_the_steps_that_they_have(kind: type[nn.RNNBase], gates: int) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            packed = pack_padded_sequence(x.expand(3, 6, 5), torch.tensor([4, 2, 1]), batch_first=True)
            return self.layer(packed)[0].data

    assert count_macs(Packed(), torch.randn(1, 6, 5)) == 7 * gates * 7 * (5 + 7)


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells(cell: type[nn.RNNCellBase], gates: int) -> None:
    assert count_macs(cell(5, 7), torch.randn(1, 5)) == gates * 7 * (5 + 7)


CONVOLUTIONS = {
    "same": (nn.Conv2d(4, 6, 3, padding="same", groups=2), 8 * 8 * 6 * 2 * 9),
    "same, even": (nn.Conv2d(4, 6, 4, padding="same", dilation=2), 8 * 8 * 6 * 4 * 16),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid", stride=2), 3 * 3 * 6 * 4 * 9),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), 8 * 8 * 4 * 3 * 9),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    layer, expected = CONVOLUTIONS[name]
    image = torch.randn(1, 4, 8, 8)
    space = trace(layer, image)
    assert count_macs(layer, image) == space.macs(space.dense) == expected


def test_a_convolution_with_named_padding_needs_no_batch() -> None:
    assert count_macs(nn.Conv1d(4, 6, 3, padding="same"), torch.randn(4, 8)) == 8 * 6 * 4 * 3


PRODUCTS: dict[str, tuple[Apply, tuple[int, ...], int]] = {
    "stretched to the right": (Apply(lambda x, w: w @ x, 3, 4), (1, 5, 4, 2), 5 * 3 * 4 * 2),
    "stretched both": (Apply(lambda x, w: w @ x, 6, 1, 3, 4), (1, 5, 4, 2), 6 * 5 * 3 * 4 * 2),
    "matrix, vector": (Apply(lambda x, w: x @ w, 4), (1, 5, 4), 5 * 4),
    "vector, matrix": (Apply(lambda x, w: w @ x, 4), (1, 4, 5), 5 * 4),
    "vectors": (Apply(lambda x, w: w @ x[0] + torch.dot(w, w) + torch.vdot(w, w), 4), (1, 4), 3 * 4),
    "mv": (Apply(lambda x, w: torch.mv(x[0], w) + torch.addmv(w[:1], x[0], w), 4), (1, 5, 4), 2 * 5 * 4),
    "linear, a vector": (Apply(F.linear, 4), (1, 5, 4), 5 * 4),
    "inner": (Apply(torch.inner, 3, 4), (1, 5, 4), 5 * 3 * 4),
    "tensordot": (
        Apply(lambda x, w: torch.tensordot(x, w, ([1, -1], [0, 2])), 5, 3, 4),
        (2, 5, 4),
        5 * 4 * 3,
    ),
    "outer": (Apply(lambda x, w: torch.outer(x[0], w), 4), (1, 5), 0),
    "summand": (
        Apply(lambda x, w: torch.baddbmm(x[:1, :1, :3], x, w) + torch.addbmm(w[0, :1], x, w), 1, 4, 3),
        (1, 5, 4),
        2 * 5 * 4 * 3,
    ),
    "in place": (
        Apply(lambda x, w: torch.zeros(5, 3).addmm_(x[0], w) + torch.zeros(5, 3).addbmm_(x, w[None]), 4, 3),
        (1, 5, 4),
        2 * 5 * 4 * 3,
    ),
    "few heads of keys": (
        Apply(lambda x, w: F.scaled_dot_product_attention(x, w, w, enable_gqa=True), 1, 2, 7, 4),
        (1, 6, 5, 4),
        2 * 6 * 5 * 7 * 4,
    ),
    "stretched queries": (
        Apply(lambda x, w: F.scaled_dot_product_attention(w, x, x), 1, 1, 2, 4),
        (1, 6, 5, 4),
        2 * 6 * 2 * 5 * 4,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    model, shape, expected = PRODUCTS[name]
    example = torch.randn(shape)
    space = trace(model, example)
    assert count_macs(model, example) == space.macs(space.dense) == expected


def test_products_in_groups() -> None:
    def of_rows(x: Tensor, weight: Tensor) -> Tensor:
        return torch._grouped_mm(x[0], weight, offs=torch.tensor([3, 8], dtype=torch.int32))

    model = Apply(of_rows, 2, 16, 32).bfloat16()
    assert count_macs(model, torch.randn(1, 8, 16).bfloat16()) == 8 * 16 * 32


class Products(TorchDispatchMode):
    """Multiply-adds of the matrix products that really run."""

    macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            self.macs += args[0].numel() * args[1].shape[-1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("equation", "shapes", "path"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)], []),
        ("ij , jk", [(2, 3), (3, 4)], []),
        ("bij,bjk->bki", [(2, 3, 4), (2, 4, 5)], []),
        ("bhwc,hkc->bhwk", [(2, 3, 4, 5), (3, 6, 5)], []),  # one that fvcore rounds at larger sizes
        ("ij,j->ij", [(2, 3), (3,)], []),
        ("i,j->ij", [(2,), (3,)], []),
        ("ij,jk->k", [(2, 3), (3, 4)], []),
        ("ij,k->k", [(2, 3), (4,)], []),
        ("ij,ij->", [(2, 3), (2, 3)], []),
        ("ij,jk->ik", [(2, 1), (3, 4)], []),
        ("ii,ij->j", [(3, 3), (3, 2)], []),
        ("ij->ji", [(2, 3)], []),
        ("...ij,...jk->...ik", [(7, 1, 2, 3), (5, 3, 4)], []),
        ("...ij,jk", [(7, 5, 2, 3), (3, 4)], []),
        ("...i,...i->", [(7, 5, 2), (5, 2)], []),
        ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 5), (5, 6)], []),
        ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 5), (5, 6)], [2, 3, 0, 1, 0, 1]),
        ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 5), (5, 6)], [3, 2, 1, 0, 0, 1]),
        ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 5), (5, 6)], [1, 2, 0, 1, 0, 1]),
        ("bij,jk,kl->bil", [(2, 3, 4), (4, 5), (5, 2)], [1, 2, 0, 1]),
    ],
)
def test_einsum_counts_the_products_that_run(equation: str, shapes: list[Any], path: list[int]) -> None:
    operands = [torch.randn(shape) for shape in shapes]
    options = {"path": path} if path else {}

    def run(*operands: Tensor) -> Tensor:
        return torch._VF.einsum(equation, list(operands), **options)

    with Products() as products:
        run(*operands)
    assert einsum_macs(equation, shapes, path) == products.macs
    model = Apply(lambda x, _: run(x[0], *operands[1:]))
    assert count_macs(model, operands[0][None]) == products.macs


def test_einsum_is_not_rounded() -> None:
    model = Apply(lambda x, w: torch.einsum("bhc,hkc->bhk", x, w), 101, 103, 107)
    assert count_macs(model, torch.randn(1, 101, 107)) == 101 * 103 * 107


def test_a_contracted_index_of_one_slot_counts_as_in_the_closed_form() -> None:
    assert einsum_macs("ij,jk->ik", [(2, 1), (1, 4)]) == 2 * 4


FREE = """
add_ relu_ clamp_min ceil round_ where __and__ __iand__ __xor__ bitwise_left_shift gelu logical_or_ diff eye
arange randperm tril_indices linspace zeros_like normal_ view transpose_ diagonal unfold detach_ im2col
col2im _upsample_bicubic2d_aa cumsum_ index_add_ scatter_reduce_ unsafe_chunk fft_rfft2 outer
"""


@pytest.mark.parametrize("name", FREE.split())
def test_free_operators(name: str) -> None:
    assert is_free(f"aten::{name}")


NOT_FREE = """
aten::mm aten::addmm_ aten::baddbmm_ aten::_convolution_mode aten::conv_tbc aten::bilinear aten::cdist
aten::linalg_inv aten::linalg_multi_dot aten::matrix_exp aten::lstm aten::quantized_lstm aten::_trilinear
aten::_native_multi_head_attention aten::_scaled_dot_product_flash_attention aten::no_such_operator aten::
torchvision::deform_conv2d mine::relu prim::CallFunction
"""


@pytest.mark.parametrize("name", NOT_FREE.split())
def test_operators_that_make_products_are_not_free(name: str) -> None:
    assert not is_free(name)


def test_no_operator_is_both() -> None:
    assert not [name for name in COUNTED if is_free(name)]


def test_what_fvcore_ignores_is_free() -> None:
    assert all(map(is_free, _IGNORED_OPS))


def test_the_list_names_operators_that_torch_has_and_does_not_describe() -> None:
    for name in free_operators._NAMES:
        assert any(torch._C._jit_get_schemas_for_operator(f"aten::{name}{end}") for end in ("", "_")), name
        assert not free_operators._is_free_by_nature(name), name
