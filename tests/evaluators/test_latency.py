"""The estimator on made-up machines, whose noise is known; real runs only for what they return."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from toys import Toy

from evaluators.latency import (
    BACKENDS,
    Comparison,
    LatencyMeter,
    Patience,
    Setting,
    check_backends,
    compare,
    compare_models,
    hardware_divisor,
    machine_name,
    runners,
)
from evaluators.latency.measure import batch_of
from evaluators.options import OptionError
from spaces import Architecture

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLE = torch.rand(1, 1, 6, 6)
QUICK = Patience(tolerance=0.05, seconds=0.2)


@dataclass
class Machine:
    """Its clock moves only when something runs on it.

    Attributes:
        true_ms: Of the network and of its reference.
        slowdown: By which a run at that second takes longer.
        of_preparation: Factor of each network by the number of the preparation.
        runs: Which network ran, in order.
    """

    true_ms: tuple[float, float]
    slowdown: Callable[[float], float] = lambda _: 1.0
    of_preparation: Callable[[int, int], float] = lambda *_: 1.0
    seconds: float = 0.0
    pairs: int = 0
    runs: list[int] = field(default_factory=list)

    def pair(self):
        self.pairs += 1
        return tuple(self._timer(which, self.of_preparation(which, self.pairs)) for which in (0, 1))

    def compare(self, **patience: float) -> Comparison:
        return compare(self.pair, Patience(**patience), lambda: self.seconds)

    def _timer(self, which: int, factor: float):
        def run(times: int) -> list[float]:
            found = []
            for _ in range(times):
                found.append(self.true_ms[which] * factor * self.slowdown(self.seconds))
                self.seconds += found[-1] / 1e3
                self.runs.append(which)
            return found

        return run


def busy(rng: np.random.Generator) -> Callable[[float], float]:
    """A fifth of the runs waits for a core, all jitter by some per cent."""
    return lambda _: float(rng.lognormal(0, 0.05)) * (4 if rng.random() < 0.2 else 1)


def test_a_machine_that_others_use_gives_the_true_ratio_in_its_interval() -> None:
    errors, covered = [], 0
    for seed in range(40):
        found = Machine((5.0, 8.0), busy(np.random.default_rng(seed))).compare(seconds=10.0)
        errors.append(abs(found.ratio * 8 / 5 - 1))
        covered += found.low <= 5 / 8 <= found.high
    assert sorted(errors)[35] < 0.03  # nine of ten
    assert covered >= 34


@pytest.mark.parametrize(
    "slowdown",
    [lambda s: 1 + s / 2, lambda s: 1 + 0.4 * math.sin(s), lambda s: 3.0 if int(s) % 2 else 1.0],
    ids=["slower and slower", "in waves", "half of the seconds"],
)
def test_what_slows_the_machine_down_cancels(slowdown: Callable[[float], float]) -> None:
    found = Machine((6.0, 4.0), slowdown).compare(seconds=10.0)
    assert found.ratio == pytest.approx(1.5, rel=0.005)


def test_a_run_after_a_switch_is_not_timed() -> None:
    machine = Machine((5.0, 5.0))

    def timer(which: int):
        def cold(times: int) -> list[float]:
            found = []
            for _ in range(times):
                found.append(5.0 if machine.runs[-1:] == [which] else 55.0)
                machine.runs.append(which)
                machine.seconds += found[-1] / 1e3
            return found

        return cold

    found = compare(lambda: (timer(0), timer(1)), Patience(seconds=3.0), lambda: machine.seconds)
    for timing in (found.candidate, found.reference):
        assert (timing.median_ms, timing.spread_ms) == (5.0, 0.0)
    assert found.candidate.repeats == found.reference.repeats


def test_a_preparation_that_lies_badly_in_memory_does_not_decide() -> None:
    machine = Machine((1.0, 1.0), of_preparation=lambda which, pair: 1.2 if (which, pair) == (0, 2) else 1.0)
    found = machine.compare(seconds=10.0)
    assert machine.pairs >= 3
    assert found.ratio == 1.0


def test_it_ends_when_the_interval_is_narrow_or_the_time_is_over() -> None:
    still = Machine((2.0, 2.0))
    assert still.compare(seconds=60.0).high == 1.0
    assert still.seconds < 2.0
    rng = np.random.default_rng(0)
    noisy = Machine((2.0, 2.0), lambda _: rng.lognormal(0, 1.0))
    found = noisy.compare(tolerance=0.0001, seconds=1.0)
    assert 1.0 <= noisy.seconds < 1.2
    assert found.high - found.low > 0.01
    slow = Machine((400.0, 800.0))
    assert slow.compare(seconds=0.1).ratio == pytest.approx(0.5)
    assert slow.seconds < 10


def test_quartiles_are_those_of_single_runs() -> None:
    ticks = iter(range(10**6))
    machine = Machine((1.0, 1.0), lambda _: 1.0 + next(ticks) % 4)
    found = machine.compare(tolerance=0.2, seconds=5.0)
    assert found.reference.spread_ms == pytest.approx(1.5, abs=0.3)


# -- real runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_times_a_network_and_leaves_it_as_it_was(backend: str) -> None:
    check_backends("backend", [backend], "cpu")
    model, dense = Toy().train(), Toy().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    found = compare_models(model, dense, EXAMPLE, Setting(backend, 3, 1), QUICK)
    assert found.low <= found.ratio <= found.high
    for timing in (found.candidate, found.reference):
        assert 0 < timing.median_ms < 1e3
        assert timing.spread_ms >= 0
        assert timing.repeats >= 4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert (model.training, dense.training) == (True, False)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.get_num_threads() == threads


def test_batches_are_made_of_the_examples() -> None:
    pair = torch.tensor([[1.0], [2.0]])
    made = batch_of({"a": pair, "b": (pair.int(), 7)}, 3)
    assert made["a"].tolist() == [[1.0], [2.0], [1.0]]
    assert made["b"][0].dtype == torch.int32
    assert made["b"][1] == 7
    assert batch_of(pair, 1).tolist() == [[1.0]]


def test_a_meter_measures_each_architecture_once_and_in_the_runs_milliseconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fake(model: object, reference: object, inputs: object, setting: Setting, _: Patience) -> Comparison:
        asked.append((model, reference, inputs, setting))
        return Comparison(0.5, 0.49, 0.51, None, None)  # type: ignore[arg-type]

    monkeypatch.setattr("evaluators.latency.meter.compare_models", fake)
    dense, setting = Toy(), Setting("eager", 8, 2)
    meter = LatencyMeter(dense, EXAMPLE, setting, dense_ms=12.0)
    first, second = Architecture.of({"conv1": 3}), Architecture.of({"conv1": 4})
    model = Toy()
    assert [meter.latency_ms(a, model) for a in (first, second, first)] == [6.0] * 3
    assert asked == [(model, dense, EXAMPLE, setting)] * 2


def test_what_a_machine_lacks_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"--backend 'eagre': unknown backend; did you mean eager\?"):
        check_backends("backend", ["eagre"], "cpu")
    monkeypatch.setattr(runners.shutil, "which", lambda _: None)
    with pytest.raises(OptionError, match=r"--latency compile: needs a C\+\+ compiler"):
        check_backends("latency", ["eager", "compile"], "cpu")
    monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(OptionError, match=r"onnxruntime: needs onnx: pip install 'espalier-nas\[export\]'"):
        check_backends("backend", ["onnxruntime"], "cpu")


def test_the_divisor_is_a_vector_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, divisor in (("AVX512", 16), ("AVX2", 8), ("DEFAULT", 4)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert hardware_divisor("cpu") == divisor
        assert hardware_divisor("cuda:1") == 8


def test_the_cpu_has_a_name() -> None:
    assert machine_name("cpu").strip()
