from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nets
import pytest
import torch
from states import state_of
from torch import Tensor, nn

from spaces import trace
from spaces.data_paths import DATA_DEPENDENT, data_warning, depends_on_data

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).name


class Looks(nn.Module):
    """Does something with the numbers inside a submodule."""

    def __init__(self, look: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.enter, self.router, self.head = nn.Linear(6, 8), Router(look), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.router(self.enter(x).relu()))


class Router(nn.Module):
    def __init__(self, look: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.look = look

    def forward(self, x: Tensor) -> Tensor:
        self.look(x)  # the look
        return x


LOOKS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "bool": (lambda x: bool(x.sum() > 0), "aten._local_scalar_dense"),
    "item": (lambda x: x[0, 0].item(), "aten._local_scalar_dense"),
    "in": (lambda x: 1.0 in x, "aten._local_scalar_dense"),
    "slice": (lambda x: x[: (x > 0).sum()], "aten._local_scalar_dense"),
    "list": (lambda x: x.tolist(), "Tensor.tolist"),
    "numpy": (lambda x: x.detach().numpy(), "Tensor.numpy"),
    "nonzero": (lambda x: x.nonzero(), "aten.nonzero"),
    "where": (lambda x: torch.where(x > 0), "aten.nonzero"),
    "mask": (lambda x: x[x > 0], "aten.index"),
    "masked_select": (lambda x: x.masked_select(x > 0), "aten.masked_select"),
    "equal": (lambda x: torch.equal(x, x + 1), "aten.equal"),
    "allclose": (lambda x: torch.allclose(x, x + 1), "aten.allclose"),
    "unique": (lambda x: torch.unique(x), "aten._unique2"),
    "repeat": (lambda x: x[0].repeat_interleave((x[0] > 0).long()), "aten.repeat_interleave"),
    "bincount": (lambda x: torch.bincount((x[0] > 0).long()), "aten.bincount"),
    "written": (lambda x: x.new_zeros(3, 8).index_copy_(0, torch.tensor([0, 2]), x)[0, 0].item(), ""),
    "written-view": (lambda x: _through_a_view(x), "aten._local_scalar_dense"),
}


def _through_a_view(x: Tensor) -> float:
    buffer = torch.zeros(2, 8)
    buffer[0].copy_(x[0])
    return float(buffer.sum())


@pytest.mark.parametrize("name", LOOKS)
def test_a_forward_that_looks_at_numbers_is_found_with_its_place(name: str) -> None:
    look, operator = LOOKS[name]
    readings = depends_on_data(Looks(look), (nets.VECTOR,), {})
    assert {reading.module for reading in readings} == {"router"}
    assert operator in {reading.operator for reading in readings} | {""}
    assert all(reading.line is not None and reading.line.startswith(HERE) for reading in readings)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.shape[0] > 1,
        lambda x: torch.arange(x.shape[1]).sum().item(),
        lambda x: bool(torch.zeros_like(x).any()),
        lambda x: x[:, torch.arange(3)],
        lambda x: torch.linspace(0, 1, len(x)).tolist(),
        lambda x: x.masked_fill(x > 0, 0.0).sort(),
        lambda x: torch.topk(x, 2).indices,
    ],
    ids=["shape", "constant", "zeros-like", "index", "linspace", "fill", "topk"],
)
def test_numbers_that_do_not_follow_from_the_inputs_are_no_concern(look: Callable[[Tensor], object]) -> None:
    assert depends_on_data(Looks(look), (nets.VECTOR,), {}) == ()


def test_a_models_own_parameter_may_be_read() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale.item()

    assert depends_on_data(Scaled(), (nets.VECTOR,), {}) == ()


def test_the_warning_is_one_sentence_with_module_and_line() -> None:
    readings = depends_on_data(Looks(lambda x: [x[0, 0].item(), x.tolist()]), (nets.VECTOR,), {})
    assert len(readings) == 2
    text = data_warning(readings)
    assert f"in `router` at {HERE}:" in text
    assert text.endswith("only the path that the example inputs took was seen.")
    assert " and 1 more place: " in text
    assert text.count(".py:") == 1


def test_torch_modules_alone_have_no_line_of_the_caller() -> None:
    lengths = torch.tensor([3, 3])
    inputs = torch.randn(5, 2, 4).log_softmax(-1), torch.ones(2, 3, dtype=torch.long), lengths + 2, lengths
    readings = depends_on_data(nn.CTCLoss(), inputs, {})
    assert readings
    assert {(reading.module, reading.line) for reading in readings} == {("", None)}


def test_the_list_holds_every_operator_that_torch_marks_as_such() -> None:
    """So that a new one of torch is noticed."""
    marks = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    aten = torch.ops.aten
    marked = set()
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if name.startswith("aten::") and hasattr(aten, packet) and "out" not in overload:
            operator = getattr(getattr(aten, packet), overload or "default", None)
            if operator is not None and marks & set(operator.tags):
                marked.add(getattr(aten, packet))
    assert len(marked) > 10
    # The first is a mask or a set of indices; the second only by overload; the third's shape is not used.
    assert marked - DATA_DEPENDENT <= {aten.index, aten.repeat_interleave, aten.linalg_lstsq}


def test_the_callers_model_stays_as_it_was() -> None:
    model = Looks(torch.nonzero).train()
    before = state_of(model)
    depends_on_data(model, (nets.VECTOR,), {})
    assert state_of(model) == before


def test_a_trace_says_that_it_saw_one_path_only() -> None:
    warnings = trace(Looks(lambda x: x.sum().item() > 0), nets.VECTOR).warnings
    assert ["only the path that the example inputs took" in text for text in warnings].count(True) == 1
