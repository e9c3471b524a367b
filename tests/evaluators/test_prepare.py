from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from toys import (
    PLAIN,
    Branched,
    Winding,
    first_units,
    randomised,
    same_state,
    state,
    toy_data,
    toy_model,
    toy_task,
)

from evaluators.criteria import keep_order, kept_units
from evaluators.options import OptionError
from evaluators.precision import Precision
from evaluators.prepare import Prepared, check_criteria, prepare, train_dense
from evaluators.scoring import evaluate
from evaluators.task import Task, TensorLoader
from spaces import Space, cut, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: The module: the package offers the function of this name.
module = importlib.import_module("evaluators.prepare")

ALL = ("l1", "l2", "bn_scale", "taylor", "random")


def traced(task: Task) -> Space:
    return trace(task.model, task.example_inputs)


def prepared(
    folder: Path,
    task: Task | None = None,
    criteria: tuple[str, ...] = ALL,
    seed: int = 0,
    precision: Precision = PLAIN,
    **settings: Any,
) -> Prepared:
    task = task or toy_task()
    return prepare(task, traced(task), precision, seed=seed, folder=folder, criteria=criteria, **settings)


class Forbidden:
    def __call__(self, *_: object, **__: object) -> None:
        raise AssertionError("computed anew")


def test_every_group_has_every_score(tmp_path: Path) -> None:
    found = prepared(tmp_path)
    assert {name: {c: len(s) for c, s in scores.items()} for name, scores in found.scores.items()} == {
        "conv1": dict.fromkeys(ALL, 6),
        "conv2": dict.fromkeys(ALL, 4),
    }
    assert found.criteria_for("conv2") == ALL
    assert found.warnings == ()
    task = toy_task()
    torch.testing.assert_close(
        found.scores["conv2"]["l1"], task.model.conv2.weight.detach().double().abs().sum(dim=(1, 2, 3))
    )
    assert found.dense_score == evaluate(task.model, task, task.holdout, PLAIN)


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    task = toy_task()
    before = state(task.model)
    prepared(tmp_path, task)
    assert same_state(before, state(task.model))


#: What costs time, each called once in a preparation of these criteria.
COSTLY = ("gather", "curvature", "removals", "score_all", "sensitivities", "evaluate")


def test_a_second_start_reads_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    criteria = ("l1", "learned", "hessian")
    first = prepared(tmp_path, criteria=criteria)
    for name in COSTLY:
        monkeypatch.setattr(module, name, Forbidden())
    again = prepared(tmp_path, criteria=criteria)
    assert again.dense_score == first.dense_score
    assert again.warnings == first.warnings
    assert same(first.scores, again.scores)
    assert same(first.curves, again.curves)
    assert same(first.sensitivities, again.sensitivities)
    assert not list(tmp_path.glob("*.partial"))
    # The re-fit is made of what was read back.
    monkeypatch.undo()
    task = toy_task()
    space = traced(task)
    kept = first_units(space)
    small, wanted = (cut(task.model, space, kept) for _ in range(2))
    again.refit.cached(small, kept)
    first.refit.cached(wanted, kept)
    assert same_state(state(small), state(wanted))


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Nested dictionaries of tensors, in the same order."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return list(one) == list(other) and all(same(one[key], other[key]) for key in one)


def last_image_changed() -> TensorLoader:
    inputs, targets = toy_data(64, seed=4)
    inputs[-1, 0, 5, 5] += 1
    return TensorLoader(inputs, targets, 16)


#: A change, and what it makes stale.
CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "weights": ({"task": lambda: toy_task(1)}, ("gather", "score_all")),
    "calibration data": (
        {"task": lambda: toy_task(calibration=last_image_changed())},
        ("gather", "score_all"),
    ),
    "fewer calibration data": (
        {"task": lambda: toy_task(calibration=TensorLoader(*(t[:48] for t in toy_data(64, seed=4)), 16))},
        ("gather", "score_all"),
    ),
    "seed": ({"seed": 1}, ("gather", "score_all")),
    "memory": ({"memory": 2**20}, ("gather", "score_all")),
    "criteria": ({"criteria": ("l1", "random")}, ("score_all",)),
    "a criterion with a probe": ({"criteria": (*ALL, "hessian")}, ("gather", "score_all", "curvature")),
    "precision": ({"precision": Precision("cpu", "bfloat16")}, ("score_all",)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stale_cache_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    settings, stale = CHANGES[change]
    settings = dict(settings)
    make = settings.pop("task", toy_task)
    prepared(tmp_path)
    (tmp_path / "fresh").mkdir()
    wanted = prepared(tmp_path / "fresh", make(), **settings)
    calls: list[str] = []
    for name in COSTLY:
        monkeypatch.setattr(module, name, noted(calls, name, getattr(module, name)))
    found = prepared(tmp_path, make(), **settings)
    assert {name for name in ("gather", "score_all", "curvature") if name in calls} == set(stale)
    assert found.dense_score == wanted.dense_score
    for part in ("scores", "curves", "sensitivities"):
        assert same(getattr(found, part), getattr(wanted, part))


def noted(calls: list[str], name: str, original: Any) -> Any:
    def wrapper(*args: object, **settings: object) -> object:
        calls.append(name)
        return original(*args, **settings)

    return wrapper


@pytest.mark.parametrize(
    ("criteria", "probes"),
    [
        (("l1", "taylor", "obs"), set()),
        (("hessian",), {"curvature"}),
        (("learned",), {"curvature", "removals"}),
    ],
)
def test_probes_run_only_for_the_criteria_that_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, criteria: tuple[str, ...], probes: set[str]
) -> None:
    calls: list[str] = []
    for name in ("curvature", "removals"):
        monkeypatch.setattr(module, name, noted(calls, name, getattr(module, name)))
    found = prepared(tmp_path, criteria=criteria)
    assert set(calls) == probes
    # What others learn from is not offered to the search.
    assert found.criteria_for("conv1") == criteria


def test_every_stage_is_announced_once(tmp_path: Path) -> None:
    stages: list[str] = []
    task = toy_task()
    settings: dict[str, Any] = {"seed": 0, "folder": tmp_path, "criteria": ("l1", "learned")}
    for _ in range(2):
        prepare(task, traced(task), PLAIN, on_stage=stages.append, **settings)
    assert stages == [
        "gathering statistics of all layers and units",
        "probing second derivatives",
        "measuring what single units are worth",
        "scoring units",
        "cutting single groups",
        "scoring the dense network",
    ]


class TestCurves:
    @pytest.mark.parametrize("model", [toy_model, Branched, Winding])
    def test_they_are_zero_at_full_width_and_never_rise_with_the_units_kept(
        self, tmp_path: Path, model: Callable[[], nn.Module]
    ) -> None:
        task = toy_task(model=randomised(model()))
        found = prepared(tmp_path, task, ("l1",))
        assert {name: len(curve) - 1 for name, curve in found.curves.items()} == {
            group.name: group.width for group in traced(task).groups
        }
        for curve in found.curves.values():
            assert curve[-1] == 0
            assert (curve.diff() <= 1e-9 * curve[0]).all()
            assert curve[0] > 0

    def test_without_any_unit_the_error_is_what_the_readers_add_to_their_sums(self, tmp_path: Path) -> None:
        """The classifier's share of the variance of its own outputs is all of it."""
        found = prepared(tmp_path, criteria=("l1",)).curves["conv2"]
        # The positions that were fitted on are some of those that the variance was taken over.
        assert float(found[0]) == pytest.approx(1, abs=0.15)


class TestSensitivities:
    def test_they_are_rises_of_the_loss(self, tmp_path: Path) -> None:
        task = toy_task(pretrained=False)
        train_dense(task, PLAIN, seed=0, folder=tmp_path)
        space = traced(task)
        found = prepared(tmp_path, task, ("l1", "obs"))
        assert list(found.sensitivities) == ["conv1", "conv2"]
        for group in space.groups:
            damages = found.sensitivities[group.name]
            assert len(damages) == len(group.choices)
            assert (damages >= 0).all()
            assert damages[-1] == 0
            assert damages[0] > 0
            # At the narrowest width: with the units that `obs` keeps, re-fitted from moments.
            kept = {group.name: kept_units(keep_order(found.scores[group.name]["obs"]), group.choices[0])}
            small = cut(task.model, space, kept)
            found.refit.from_moments(small, kept)
            rise = found.refit.loss(small) - found.refit.loss(task.model)
            assert float(damages[0]) == pytest.approx(max(rise, 0))


@pytest.mark.parametrize("criterion", ["l1", "taylor", "obs"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, criterion: str) -> None:
    task = toy_task()
    space = traced(task)
    task.model.bn1.weight.data[3] = torch.inf
    with pytest.raises(FloatingPointError, match="'conv2' reads NaN or infinity"):
        prepare(task, space, PLAIN, seed=0, folder=tmp_path, criteria=(criterion,))
    assert not list(tmp_path.iterdir())


def test_too_few_data_and_too_small_a_memory_are_refused(tmp_path: Path) -> None:
    few = TensorLoader(*toy_data(7, seed=0), 7)
    with pytest.raises(OptionError, match="calibrates on 7 samples"):
        prepared(tmp_path, toy_task(calibration=few))
    with pytest.raises(OptionError, match=r"^--statistics-memory 10B"):
        prepared(tmp_path, memory=10)
    assert not list(tmp_path.iterdir())


def test_what_was_approximated_is_told_also_after_a_resume(tmp_path: Path) -> None:
    for _ in range(2):
        found = prepared(tmp_path, memory=1000)
        assert found.warnings == ("Second moments per channel only, for lack of memory: conv2.",)
        # Scored and measured all the same.
        assert found.curves["conv1"][0] > found.curves["conv1"][-1] == 0


class HalfNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(36, 8), nn.BatchNorm1d(8)
        self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x.flatten(1)))))))


def test_a_criterion_that_does_not_apply_is_left_out_with_a_warning(tmp_path: Path) -> None:
    task = toy_task(model=HalfNormed())
    found = prepared(tmp_path, task, ("l1", "bn_scale"))
    assert found.criteria_for("first") == ("l1", "bn_scale")
    assert found.criteria_for("second") == ("l1",)
    assert found.warnings == ("Criterion 'bn_scale' does not apply to second and is left out there.",)


def test_a_group_without_any_criterion_is_refused_before_and_while_scoring(tmp_path: Path) -> None:
    task = toy_task(model=HalfNormed())
    refusal = pytest.raises(OptionError, match=r"^--criterion bn_scale: does not apply to second; allow l1")
    with refusal:
        check_criteria(task, traced(task), ("bn_scale",))
    with refusal:
        prepared(tmp_path, task, ("bn_scale",))
    check_criteria(task, traced(task), ("bn_scale", "random"))


def test_an_unknown_criterion_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"^--criterion 'bnscale': unknown criterion; did you mean bn_scale\?"
    ):
        prepared(tmp_path, criteria=("bnscale",))


def test_the_dense_network_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, steps = toy_task(pretrained=False), []
    train_dense(task, PLAIN, seed=0, folder=tmp_path, on_step=lambda *step: steps.append(step))
    assert steps[-1] == (24, 24)
    assert evaluate(task.model, task, task.holdout, PLAIN) > 0.7
    monkeypatch.setattr(module, "train", Forbidden())
    again = toy_task(pretrained=False)
    train_dense(again, PLAIN, seed=0, folder=tmp_path)
    assert same_state(state(task.model), state(again.model))
    with pytest.raises(AssertionError, match="computed anew"):
        train_dense(toy_task(pretrained=False), PLAIN, seed=1, folder=tmp_path)


def test_a_pretrained_network_is_not_trained(tmp_path: Path) -> None:
    task = toy_task()
    before = state(task.model)
    train_dense(task, PLAIN, seed=0, folder=tmp_path)
    assert same_state(before, state(task.model))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_training_leaves_nothing_behind_that_is_used(tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_dense(toy_task(pretrained=False), PLAIN, seed=0, folder=tmp_path, on_step=interrupt)
    resumed, undisturbed = toy_task(pretrained=False), toy_task(pretrained=False)
    train_dense(resumed, PLAIN, seed=0, folder=tmp_path)
    (tmp_path / "other").mkdir()
    train_dense(undisturbed, PLAIN, seed=0, folder=tmp_path / "other")
    assert same_state(state(resumed.model), state(undisturbed.model))
