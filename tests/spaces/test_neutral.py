from __future__ import annotations

import copy
import functools
import random
import weakref
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import pytest
import torch
import torchvision
from states import numbers, shown, state_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaces.neutral import neutral, seed
from spaces.shared import remember

if TYPE_CHECKING:
    from collections.abc import Callable

FLIPS: dict[str, Callable[[], object]] = {
    "sdp-flash": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "sdp-efficient": lambda: torch.backends.cuda.enable_mem_efficient_sdp(False),
    "sdp-math": lambda: torch.backends.cuda.enable_math_sdp(False),
    "sdp-cudnn": lambda: torch.backends.cuda.enable_cudnn_sdp(False),
    "sdp-left-open": lambda: sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], True).__enter__(),
    "mha-fastpath": lambda: torch.backends.mha.set_fastpath_enabled(True),
    "cudnn-enabled": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "cudnn-benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "cudnn-deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "cudnn-tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "cublas-tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "mkldnn": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "matmul-precision": lambda: torch.set_float32_matmul_precision("medium"),
    "precision-of-all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "precision-of-cudnn": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "precision-of-matmul": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "deterministic": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "gradients": lambda: torch.set_grad_enabled(True),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(2),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast-dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "autocast-cache": lambda: torch.set_autocast_cache_enabled(False),
    "torch-seed": lambda: torch.manual_seed(5),
    "torch-numbers": lambda: torch.rand(3, device="cpu"),
    "numpy-numbers": lambda: np.random.rand(3),
    "numpy-seed": lambda: np.random.seed(5),
    "python-numbers": random.random,
    "python-seed": lambda: random.seed(5),
}


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("name", FLIPS)
def test_whatever_is_flipped_is_put_back(name: str, fails: bool) -> None:
    model = nn.Linear(2, 2)
    before = state_of(model)
    raised = False
    try:
        with neutral(model):
            FLIPS[name]()
            inside = state_of(model)
            if fails:
                raise KeyError(name)
    except KeyError:
        raised = True
    assert raised == fails
    assert inside != before  # else the test would say nothing
    assert state_of(model) == before


def test_what_the_caller_had_chosen_is_kept() -> None:
    """Not the defaults are put back but what was there."""
    model = nn.Linear(2, 2)
    with neutral(), torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        torch.backends.cudnn.benchmark = True
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        before = state_of(model)
        with neutral(model):
            torch.backends.cudnn.benchmark = False
            torch.set_default_dtype(torch.float32)
            torch.use_deterministic_algorithms(False)
        assert state_of(model) == before


def test_inside_there_are_no_gradients_and_attention_is_unfused() -> None:
    with torch.inference_mode(), neutral():
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()


def test_a_seed_makes_every_kind_of_number_repeat_and_is_forgotten_outside() -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    before = state_of(nn.Identity())["random cuda, later"]
    with neutral():
        seed(3)
        first = draw()
        seed(3)
        assert draw() == first
        seed(4)
        assert all(a != b for a, b in zip(draw(), first, strict=True))
        assert state_of(nn.Identity())["random cuda, later"] == before


# -- what deep copies share ---------------------------------------------------------------------------

_LOG: list[Tensor] = []
_COUNTS: dict[str, list[int]] = {"calls": [0]}
_CALLS = 0
_TABLE = torch.zeros(4)
_ARRAY = np.zeros(4)
_DRAWS = np.random.default_rng(0)
_GENERATOR = torch.Generator().manual_seed(0)
_NORM = nn.BatchNorm1d(6)


def _log_globally(x: Tensor) -> None:
    _LOG.append(x)
    _COUNTS["calls"][0] += 1


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.count = 0

    def __call__(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.seen.append(output)
        self.count += 1


class Base(nn.Module):
    calls = 0
    outputs: dict[str, Tensor] = {}  # noqa: RUF012 (shared on purpose)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class OnTheClass(Base):
    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        self.outputs[str(self.calls)] = x
        OnTheClass.added = True  # type: ignore[attr-defined]
        return super().forward(x)


class InGlobals(Base):
    def forward(self, x: Tensor) -> Tensor:
        global _CALLS
        _CALLS += 1
        _log_globally(x)
        _TABLE.add_(1)
        _ARRAY[0] += 1
        _DRAWS.random()
        torch.rand(2, generator=_GENERATOR)
        return super().forward(_NORM(x))


class InDefaults(Base):
    def forward(self, x: Tensor, seen: list[Tensor] = []) -> Tensor:  # noqa: B006 (shared on purpose)
        seen.append(x)
        return super().forward(x)


class OfItsOwnCopy(Base):
    def __deepcopy__(self, memo: dict[int, object]) -> OfItsOwnCopy:
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight.mul_(2)
        self.layer.weight.requires_grad_(False)
        self.last = x
        return super().forward(x)


class WithParent(Base):
    """The copy's weak reference is to the original."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(()))
        self.me = weakref.ref(self)

    def forward(self, x: Tensor) -> Tensor:
        parent = self.me()
        assert parent is not None
        parent.sum += 1
        parent.train(False)
        return super().forward(x)


class Enclosed(Base):
    """A function that encloses the original's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.block = lambda x: self.norm(self.layer(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Counted(Base):
    def __init__(self) -> None:
        super().__init__()
        count = 0

        def step(scale: float, x: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return x * scale * count

        self.steps = [functools.partial(step, 2.0)]
        self.count = lambda: count

    def forward(self, x: Tensor) -> Tensor:
        return self.steps[0](super().forward(x))


def _with_hooks() -> tuple[nn.Module, Callable[[], Any]]:
    model = Base()
    activations: OrderedDict[str, Tensor] = OrderedDict(first=torch.zeros(1))
    recent: deque[Tensor] = deque(maxlen=2)

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        activations["layer"] = output
        activations.move_to_end("first")
        recent.append(output)

    model.layer.register_forward_hook(hook)
    recorder = Recorder()
    # A lambda encloses the recorder; as a hook itself it would be copied along.
    model.layer.register_forward_hook(lambda *call: recorder(*call))
    return model, lambda: (
        list(activations),
        [shown(v) for v in activations.values()],
        vars(recorder),
        recent,
    )


def _shares(build: type[nn.Module], watched: Callable[[nn.Module], Any]) -> Any:
    def make() -> tuple[nn.Module, Callable[[], Any]]:
        model = build()
        return model, lambda: watched(model)

    return make


SHARED: dict[str, Callable[[], tuple[nn.Module, Callable[[], Any]]]] = {
    "hooks": _with_hooks,
    "class": _shares(OnTheClass, lambda _: (OnTheClass.calls, Base.outputs, hasattr(OnTheClass, "added"))),
    "globals": _shares(
        InGlobals,
        lambda _: (
            _CALLS,
            _LOG,
            _COUNTS,
            _TABLE.tolist(),
            _ARRAY.tolist(),
            str(_DRAWS.bit_generator.state),
            numbers(_GENERATOR.get_state()),
            [numbers(x) for x in _NORM.buffers()],
        ),
    ),
    "defaults": _shares(InDefaults, lambda _: InDefaults.forward.__defaults__),
    "own-copy": _shares(OfItsOwnCopy, lambda _: None),
    "weak-reference": _shares(WithParent, lambda _: None),
    "closure": _shares(Enclosed, lambda _: None),
    "counter": _shares(Counted, lambda model: model.count()),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", SHARED)
def test_what_copies_share_is_put_back(name: str, mode: str) -> None:
    model, watch = SHARED[name]()
    model.train(mode == "train")
    before, watched = _facts(model), repr(watch())
    with neutral(model):
        copy.deepcopy(model).train()(nets.VECTOR)
        changed = repr(watch()) != watched or _facts(model) != before
    assert changed or (name, mode) == ("closure", "eval")  # else the test would say nothing
    assert repr(watch()) == watched
    assert _facts(model) == before


def _facts(model: nn.Module) -> dict[str, object]:
    """The state with tensors by value: putting numbers back counts as one more version of a tensor."""
    state = {key: value for key, value in state_of(model).items() if not key.startswith("attribute")}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"tensor {name}"] = (id(tensor), tensor.requires_grad, tensor.grad, numbers(tensor))
    for name, module in model.named_modules():
        state[f"names {name}"] = list(vars(module))
    return state


def test_a_model_that_is_changed_itself_gets_its_modes_hooks_and_attributes_back() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).train()
    model[0].weight.grad = torch.ones(6, 6)
    before = state_of(model)
    with neutral(model):
        model.eval()
        model[0].register_forward_hook(lambda *_: None)
        model[0].in_features = 3
        model[0].weight.requires_grad_(False)
        model[0].weight.grad = None
        model[0].extra = 1
        model[1].weight = nn.Parameter(torch.zeros(6))
        model.add_module("more", nn.ReLU())
        del model[1].bias
    assert state_of(model) == before


def test_the_library_behind_a_model_is_not_searched() -> None:
    model = torchvision.models.resnet18()
    assert len(remember(model)) < 50 * len(list(model.modules()))


def test_one_thing_that_can_not_be_put_back_keeps_nothing_else_from_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(type):
        def __setattr__(cls, name: str, value: object) -> None:
            if name == "calls" and value == 0:
                raise RuntimeError("stubborn")
            super().__setattr__(name, value)

    class Model(nn.Module, metaclass=Stubborn):
        calls = 0

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with neutral(Model()):
        Model.calls = 1
        torch.backends.cudnn.benchmark = True
    assert not torch.backends.cudnn.benchmark
    assert "could not be put back" in caplog.text
