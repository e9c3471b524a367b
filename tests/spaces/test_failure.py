from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import nets
import pytest
import torch
from states import state_of
from torch import Tensor, nn

from spaces import trace
from spaces.failure import describe_failure, first_non_finite

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).name


def line_of(text: str) -> str:
    """``file.py:12`` of the only line of this file that ends with a comment."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"  # {text}")]
    return f"{HERE}:{number}"


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return scale * self.conv(x.relu())  # the call of the convolution


class Nested(nn.Module):
    """The second block expects five channels and gets four."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(3), Block(5)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, scale=2.0)
        return x


def test_the_innermost_module_is_named_with_its_class_line_and_inputs() -> None:
    text = describe_failure(Nested(), (nets.IMAGE,), {})
    assert text.startswith(f"`blocks.1.conv` (Conv2d) at {line_of('the call of the convolution')} raised ")
    assert "RuntimeError: Given groups=1, weight of size [4, 5, 1, 1]" in text
    assert text.endswith("; its inputs: (float32[2, 4, 4, 4])")


def test_a_model_of_torch_modules_alone_has_no_line() -> None:
    text = describe_failure(nn.Sequential(nn.Linear(6, 4), nn.Linear(3, 2)), (nets.VECTOR,), {})
    assert text.startswith("`1` (Linear) raised RuntimeError: ")
    assert text.endswith("; its inputs: (float32[2, 4])")


class Helper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nets.Plain()

    def forward(self, x: Tensor, y: list[Tensor] | None = None) -> Tensor:
        try:
            self.part(x[:, :2])
        except RuntimeError:
            x = x + 1
        return self.check(x, *(y or []))

    def check(self, *inputs: Tensor) -> Tensor:
        raise ValueError(f"{len(inputs)} on the first line\nsecond line")  # the raise


def test_an_exception_of_the_models_own_code_is_told_by_its_first_line() -> None:
    text = describe_failure(Helper(), (nets.IMAGE, [nets.IMAGE]), {})
    assert text == (
        f"the model (Helper) at {line_of('the raise')} raised ValueError: 2 on the first line"
        "; its inputs: (float32[2, 3, 4, 4], (float32[2, 3, 4, 4]))"
    )


@pytest.mark.parametrize("build", [Nested, Helper])
def test_it_is_one_line(build: type[nn.Module]) -> None:
    assert len(describe_failure(build(), (nets.IMAGE,), {}).splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((nets.IMAGE, None, 3), {}, "too many positional arguments"),
        ((nets.IMAGE,), {"z": 2}, "got an unexpected keyword argument 'z'"),
    ],
)
def test_a_wrong_number_of_inputs_names_those_that_are_taken(
    args: tuple[object, ...], kwargs: dict[str, object], reason: str
) -> None:
    text = describe_failure(Helper(), args, kwargs)
    assert text.startswith("the model (Helper) takes (x: 'Tensor', y: 'list[Tensor] | None' = None)")
    assert text.endswith(reason)
    assert ("float32[2, 3, 4, 4]" in text) == bool(args)


def test_a_type_error_inside_is_no_wrong_number_of_inputs() -> None:
    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + None  # type: ignore[operator]

    assert "raised TypeError" in describe_failure(Inside(), (nets.VECTOR,), {})


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (nn.Embedding(4, 3), torch.zeros(1, 2), "float32[1, 2]"),
        (nn.Linear(6, 2), [1, 2], "list"),
        (nn.Linear(6, 2), nets.VECTOR.double(), "float64[2, 6]"),
        (nn.Linear(6, 2), nets.VECTOR.to("meta"), "on meta"),
    ],
    ids=["float-indices", "list", "double", "device"],
)
def test_a_wrong_type_of_input_is_shown(model: nn.Module, inputs: object, reason: str) -> None:
    text = describe_failure(model, (inputs,), {})
    assert text.startswith(f"the model ({type(model).__name__})")
    assert "raised" in text
    assert reason in text.replace("((1, 2))", "list")


def test_a_failure_in_train_mode_only() -> None:
    class Trains(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise NotImplementedError
            return x

    assert describe_failure(Trains(), (nets.VECTOR,), {}) == ""
    text = describe_failure(Trains(), (nets.VECTOR,), {}, training=True)
    assert re.search(r"\(Trains\) at .* raised NotImplementedError: \(no message\); its inputs: ", text)


def test_a_model_that_runs_gives_no_text() -> None:
    assert describe_failure(nets.Plain(), (nets.IMAGE,), {}) == ""


def test_a_lazy_module_must_be_called_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.LazyConv2d(4, 1))
    text = describe_failure(model, (nets.IMAGE,), {})
    assert text == (
        "`1` (LazyConv2d) has no shapes before the first call (weight, bias): call the model once."
    )
    model(nets.IMAGE)
    assert describe_failure(model, (nets.IMAGE,), {}) == ""


def test_an_attribute_that_can_not_be_copied_is_named() -> None:
    model = nn.Sequential(nets.Plain())
    model[0].lock = threading.Lock()
    text = describe_failure(model, (nets.IMAGE,), {})
    assert text.startswith("`0` (Plain) can not be copied for its attribute 'lock': TypeError: cannot pickle")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_modules_say_their_reason() -> None:
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.jit.script(nn.Linear(5, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    assert "mat1 and mat2 shapes cannot be multiplied" in describe_failure(Scripted(), (nets.VECTOR,), {})


# -- outputs that are no numbers ----------------------------------------------------------------------


class Steps(nn.Module):
    def __init__(self, **steps: nn.Module) -> None:
        super().__init__()
        for name, step in steps.items():
            self.add_module(name, step)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for step in self.children():
            x = step(x)
        return {"out": x}


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_the_module_that_overflows_is_named_and_not_those_behind_it() -> None:
    model = Steps(
        a=nn.Linear(6, 6), b=Apply(lambda x: x * 1e38 * 1e38), c=nn.BatchNorm1d(6), d=nn.Linear(6, 2)
    )
    assert first_non_finite(model, (nets.VECTOR,), {}) == "`b` (Apply)"


def test_a_parameter_that_is_not_a_number_names_its_layer() -> None:
    model = Steps(a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    with torch.no_grad():
        model.b.bias[1] = float("nan")
    assert first_non_finite(model, (nets.VECTOR,), {}) == "`b` (Linear)"


def test_the_models_own_code_between_two_layers() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.b((self.a(x) - 1e3).log())

    assert first_non_finite(Steps(own=Own()), (nets.VECTOR,), {}) == "`own` (Own)"


def test_minus_infinity_as_a_mask_is_not_to_blame() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask = Apply(lambda x: torch.full_like(x, -float("inf")).triu(1))
            self.head = Apply(lambda x: x / 0 - x / 0)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.softmax(x + self.mask(x), dim=-1))

    model, x = Masked(), torch.rand(4, 4)
    assert first_non_finite(model, (x,), {}) == "`head` (Apply)"
    model.head = nn.Identity()
    assert first_non_finite(model, (x,), {}) is None


def test_an_activation_that_works_in_place_is_judged_by_what_went_in() -> None:
    model = Steps(a=Apply(lambda x: x.mul_(float("inf"))), b=nn.Linear(6, 2))
    assert first_non_finite(model, (nets.VECTOR,), {}) == "`a` (Apply)"
    assert nets.VECTOR.isfinite().all()


def test_inputs_that_are_not_finite_are_to_blame_themselves() -> None:
    assert first_non_finite(nn.Linear(6, 2), (nets.VECTOR / 0,), {}) == "the example inputs"


def test_finite_outputs_blame_nobody() -> None:
    assert first_non_finite(nets.Plain(), (nets.IMAGE,), {}) is None


@pytest.mark.parametrize("function", [describe_failure, first_non_finite])
def test_the_callers_model_stays_as_it_was(function: Callable[..., object]) -> None:
    model = Steps(a=nn.Linear(6, 6), b=nn.BatchNorm1d(6), c=nn.Dropout()).train()
    before = state_of(model)
    function(model, (nets.VECTOR,), {})
    assert state_of(model) == before


# -- what a trace says --------------------------------------------------------------------------------


def said_by_a_trace(model: nn.Module, inputs: object) -> str:
    try:
        return "\n".join(trace(model, inputs).warnings)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        (Nested(), nets.IMAGE, "`blocks.1.conv` (Conv2d) at"),
        (Helper(), (), "the example inputs are (): missing a required argument: 'x'"),
        (nn.Sequential(nn.Linear(6, 4), nn.LazyLinear(3)), nets.VECTOR, "`1` (LazyLinear) has no shapes"),
        (
            Steps(a=nn.Linear(6, 6), b=Apply(lambda x: (x.abs() * -1 - 1).log()), c=nn.Linear(6, 2)),
            nets.VECTOR,
            "`b` (Apply)",
        ),
    ],
    ids=["raises", "inputs", "lazy", "nan"],
)
def test_a_trace_says_what_is_wrong_and_where(model: nn.Module, inputs: object, said: str) -> None:
    text = said_by_a_trace(model, inputs)
    assert said in text
    assert text.count(said) == 1
