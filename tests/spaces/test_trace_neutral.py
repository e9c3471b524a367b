"""A trace never changes the caller's model or process, also when it fails in the middle."""

from __future__ import annotations

import contextlib
import gc
import random
from typing import TYPE_CHECKING, Any

import nets
import numpy as np
import pytest
import torch
from states import state_of
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from spaces import trace, trial_cuts
from spaces.neutral import neutral

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def contained() -> Iterator[None]:
    """What a test finds changed must not change the next test."""
    with neutral(), torch.enable_grad():
        yield


class MixedModes(nn.Module):
    """Some layers train and some do not, as in fine-tuning with frozen statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.drop, self.head = nn.Dropout(0.5), nn.Conv2d(6, 2, 1)
        self.norm1.eval()
        self.drop.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        return self.head(self.drop(self.norm2(self.conv2(x)).relu()))


def hooked() -> nn.Module:
    model = nets.Residual()
    seen: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen["output"] = output

    def halve(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] / 2,)

    model.inner.register_forward_hook(keep)
    model.outer.register_forward_pre_hook(halve)
    model.register_full_backward_hook(lambda *_: None)
    model.register_state_dict_pre_hook(lambda *_: None)
    model.seen = seen
    return model


def weight_normed() -> nn.Module:
    model = nets.Plain()
    parametrizations.weight_norm(model.conv1)
    return model


def spectral_normed() -> nn.Module:
    model = nets.Plain()
    parametrizations.spectral_norm(model.conv1)
    return model.train()


def old_weight_normed() -> nn.Module:
    model = nets.Plain()
    with contextlib.suppress(FutureWarning):
        nn.utils.weight_norm(model.conv1)
    return model


class WritesToItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.calls, self.history = 0, [torch.zeros(1)]
        self.cached: Tensor | None = None
        self.register_buffer("running", torch.zeros(8))
        self.register_buffer("first", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cached = x = self.enter(x).relu()
        self.history.append(x)
        self.running.mul_(0.9).add_(0.1 * x.detach().mean(0))
        self.first = x[0] if self.first is None else self.first
        self.extra = "written"
        return self.head(x + self.running)


def ran_before() -> nn.Module:
    """Its attributes hold activations with a gradient history."""
    model = WritesToItself()
    model(nets.VECTOR).sum().backward()
    return model


class DrawsNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x + 0.1 * torch.randn(x.shape, device=x.device, dtype=x.dtype))
        return self.head((x * float(np.random.rand()) + random.random()).relu())


class SeedsEverything(DrawsNumbers):
    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        return super().forward(x)


class FlipsFlags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.mha.set_fastpath_enabled(True)
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_grad_enabled(True)
        torch.set_autocast_cache_enabled(False)
        return self.head(self.enter(x).relu())


class DefaultsToDouble(FlipsFlags):
    def forward(self, x: Tensor) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return self.head(self.enter(x).relu())


def frozen() -> nn.Module:
    model = nets.Residual()
    for parameter in model.inner.parameters():
        parameter.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    return model


def in_bfloat16() -> nn.Module:
    return nets.Plain().bfloat16()


class OwnTrain(MixedModes):
    """A network that keeps its norms in eval mode, whatever it is told."""

    def train(self, mode: bool = True) -> OwnTrain:
        super().train(mode)
        self.norm1.eval()
        self.switched = getattr(self, "switched", 0) + 1
        return self


RUNNING: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mixed-modes": (MixedModes, nets.IMAGE),
    "own-train": (OwnTrain, nets.IMAGE),
    "hooks": (hooked, nets.IMAGE),
    "weight-norm": (weight_normed, nets.IMAGE),
    "weight-norm-old": (old_weight_normed, nets.IMAGE),
    "spectral-norm": (spectral_normed, nets.IMAGE),
    "tied": (nets.Tied, nets.VECTOR),
    "writes-to-itself": (WritesToItself, nets.VECTOR),
    "ran-before": (ran_before, nets.VECTOR),
    "draws-numbers": (DrawsNumbers, nets.VECTOR),
    "seeds": (SeedsEverything, nets.VECTOR),
    "flips-flags": (FlipsFlags, nets.VECTOR),
    "default-dtype": (DefaultsToDouble, nets.VECTOR),
    "frozen": (frozen, nets.IMAGE),
    "bfloat16": (in_bfloat16, nets.IMAGE.bfloat16()),
    "meta": (lambda: nets.Plain().to("meta"), nets.IMAGE.to("meta")),
    "meta-model-only": (lambda: nets.Plain().to("meta"), nets.IMAGE),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("mode", ["as it is", "train", "eval"])
@pytest.mark.parametrize("name", RUNNING)
def test_a_trace_changes_nothing(name: str, mode: str) -> None:
    build, example = RUNNING[name]
    model = build()
    if mode != "as it is":
        model.train(mode == "train")
    before, input_before = state_of(model), (example.clone(), example._version)
    trace(model, example)
    assert state_of(model) == before
    assert input_before[1] == example._version
    assert example.is_meta or torch.equal(example, input_before[0])


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("name", RUNNING)
def test_what_a_model_does_beside_computing_costs_it_no_choice(name: str) -> None:
    build, example = RUNNING[name]
    space = trace(build(), example)
    # A model without numbers can not be verified, which must be said.
    assert space.groups or (name.startswith("meta") and any("meta" in str(one) for one in space.frozen))


def test_a_trace_inside_the_callers_contexts_leaves_them_alone() -> None:
    model = nets.Plain()
    for context in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            before = state_of(model)
            groups = [group.name for group in trace(model, nets.IMAGE).groups]
            assert state_of(model) == before
        assert groups == ["conv1", "conv2"]


def test_an_input_that_the_forward_overwrites_is_left_alone() -> None:
    class Overwrites(nets.Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2).clamp_(min=0))

    example = nets.IMAGE.clone()
    trace(Overwrites(), example)
    assert torch.equal(example, nets.IMAGE)
    assert example._version == 0


# -- failing in the middle ----------------------------------------------------------------------------


class Meddling(nn.Module):
    """Changes whatever it can, then raises when told to."""

    def __init__(self, when: Callable[[nn.Module, Tensor], bool]) -> None:
        super().__init__()
        self.enter, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.when, self.calls = when, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        torch.rand(2)
        np.random.rand()
        random.random()
        torch.backends.cudnn.benchmark = True
        torch.set_default_dtype(torch.float64)
        x = self.norm(self.enter(x))
        torch.set_default_device("meta")
        if self.when(self, x):
            raise RuntimeError("in the middle")
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
        return self.head(x.relu())


FAILING: dict[str, tuple[Callable[[nn.Module, Tensor], bool], bool | None]] = {
    # when it raises, and whether the model still counts as one that runs; a trace that raises says ValueError
    "always": (lambda module, x: True, False),  # noqa: ARG005
    "on-meta": (lambda module, x: x.is_meta, True),  # noqa: ARG005
    "for-real": (lambda module, x: not x.is_meta, None),  # noqa: ARG005
    "in-train-mode": (lambda module, x: module.training, True),  # noqa: ARG005
    "in-eval-mode": (lambda module, x: not module.training, False),  # noqa: ARG005
    "when-cut": (lambda module, x: x.shape[1] < 8, True),  # noqa: ARG005
    "in-float64": (lambda module, x: x.dtype == torch.float64, True),  # noqa: ARG005
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", FAILING)
def test_a_trace_that_fails_in_the_middle_changes_nothing(name: str, training: bool) -> None:
    when, runs = FAILING[name]
    model = Meddling(when).train(training)
    before = state_of(model)
    refused = pytest.raises(ValueError, match="in the middle")
    either = contextlib.suppress(ValueError)  # runs without numbers, but not with the example's
    with {True: contextlib.nullcontext(), False: refused, None: either}[runs]:
        trace(model, nets.VECTOR)
    assert state_of(model) == before


def test_an_error_of_our_own_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Iterator[None]:
        raise ZeroDivisionError

    model = Meddling(lambda module, x: False)  # noqa: ARG005
    before = state_of(model)
    monkeypatch.setattr(trial_cuts, "random_kept", broken)
    with contextlib.suppress(ZeroDivisionError):
        trace(model, nets.VECTOR)
    assert state_of(model) == before


def test_an_interrupt_changes_nothing() -> None:
    def interrupt(_module: nn.Module, _x: Tensor) -> bool:
        raise KeyboardInterrupt

    model = Meddling(interrupt)
    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        trace(model, nets.VECTOR)
    assert state_of(model) == before


def test_a_lazy_model_is_refused_and_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    before = state_of(model)
    with pytest.raises(ValueError, match="call the model once"):
        trace(model, nets.IMAGE)
    assert state_of(model) == before
    assert model[0].has_uninitialized_params()


@pytest.mark.parametrize("thresholds", [(700, 10, 10), (0, 10, 10), (100_000, 5, 5)])
def test_thresholds_of_garbage_collection_are_put_back(
    monkeypatch: pytest.MonkeyPatch, thresholds: tuple[int, int, int]
) -> None:
    before, set_threshold = gc.get_threshold(), gc.set_threshold
    seen: list[tuple[int, ...]] = []

    def noted(*values: int) -> None:
        seen.append(values)
        set_threshold(*values)

    try:
        gc.set_threshold(*thresholds)
        monkeypatch.setattr(gc, "set_threshold", noted)
        trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.zeros(1, 3))
        assert gc.get_threshold() == thresholds
        with pytest.raises(ValueError, match="does not run"):
            trace(nn.Linear(3, 4), torch.zeros(1, 5))
        assert gc.get_threshold() == thresholds
    finally:
        set_threshold(*before)
    # Switched off stays switched off.
    assert {values[0] for values in seen} == {thresholds[0], thresholds[0] and max(thresholds[0], 50_000)}
