from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from toys import PLAIN, same_state, state, toy_data, toy_task

from evaluators import ladder as module
from evaluators.candidate import Candidate
from evaluators.criteria import keep_order
from evaluators.evaluation import METHODS, SEARCHED, Method, Outcome
from evaluators.ladder import Ladder
from evaluators.precision import Precision
from evaluators.prepare import prepare, train_dense
from evaluators.reconstruct import refit as reconstruct
from evaluators.scoring import evaluate
from evaluators.seeding import training_seed
from spaces import Architecture, cut, rebuild, trace, write_architecture

if TYPE_CHECKING:
    from pathlib import Path

    from evaluators.evaluation import Evaluator

WIDTHS = {"conv1": 3, "conv2": 2}


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    """On a trained toy network."""
    folder = tmp_path_factory.mktemp("run")
    task = toy_task(pretrained=False)
    train_dense(task, PLAIN, seed=0, folder=folder)
    space = trace(task.model, task.example_inputs)
    found = prepare(task, space, PLAIN, seed=0, folder=folder, criteria=("l1", "l2", "taylor", "random"))
    return Ladder(task, space, found.scores, found.refit, PLAIN)


def candidate(ladder: Ladder, criterion: str = "l1", **widths: int) -> Candidate:
    return Candidate.of(ladder.space, Architecture.of(widths or WIDTHS), criterion)


def test_the_best_units_of_each_groups_criterion_stay(ladder: Ladder) -> None:
    chosen = {"conv1": "l1", "conv2": "taylor"}
    kept = ladder.kept(Candidate.of(ladder.space, Architecture.of(WIDTHS), chosen))
    assert {name: len(units) for name, units in kept.items()} == WIDTHS
    for name, criterion in chosen.items():
        best = ladder.scores[name][criterion].topk(WIDTHS[name]).indices.sort().values
        assert torch.equal(kept[name], best)


def test_a_group_that_stays_whole_needs_no_criterion(ladder: Ladder) -> None:
    assert set(ladder.kept(candidate(ladder, conv1=6, conv2=2))) == {"conv2"}


@pytest.mark.parametrize(
    ("rung", "method"),
    [*SEARCHED.items(), *((rung, m) for rung, ms in METHODS.items() for m in ms if m != SEARCHED.get(rung))],
)
def test_every_rung_and_method_fills_in_the_evaluation(ladder: Ladder, rung: int, method: Method) -> None:
    dense = state(ladder.task.model)
    which = candidate(ladder)
    evaluator: Evaluator = ladder
    outcome = evaluator.evaluate(which, rung=rung, method=method, seed=3)
    found = outcome.evaluation
    assert (found.candidate, found.rung, found.method, found.seed) == (which.id, rung, method, 3)
    # conv1: 36 positions * 3 * 9; conv2: 36 * 2 * 3 * 9; head: 2 * 3
    assert found.macs == 36 * 27 + 36 * 54 + 6 == ladder.count_macs(outcome.model)
    assert found.params == sum(p.numel() for p in outcome.model.parameters())
    assert found.score == ladder.holdout_score(outcome.model)
    assert not outcome.model.training
    assert same_state(dense, state(ladder.task.model))


def test_equal_seeds_give_equal_outcomes_whatever_ran_before(ladder: Ladder) -> None:
    def run(seed: int) -> Outcome:
        return ladder.evaluate(candidate(ladder), rung=3, method="scratch_e", seed=seed)

    first = run(0)
    torch.rand(5)
    ladder.evaluate(candidate(ladder, "random"), rung=2, method="finetune", seed=9)
    assert same_state(state(first.model), state(run(0).model))
    assert not same_state(state(first.model), state(run(1).model))


@pytest.mark.parametrize(("method", "form"), [("refit", "quick"), ("careful", "thorough")])
def test_rung_one_is_the_cut_and_its_re_fit(
    ladder: Ladder, monkeypatch: pytest.MonkeyPatch, method: Method, form: str
) -> None:
    monkeypatch.setattr(reconstruct, "QUICK_SAMPLES", 24)
    which = candidate(ladder)
    kept = ladder.kept(which)
    found = {}
    for each in ("quick", "thorough"):
        found[each] = cut(ladder.task.model, ladder.space, kept)
        getattr(ladder.refit, each)(found[each], kept)
    outcome = ladder.evaluate(which, rung=1, method=method, seed=0)
    assert same_state(state(found.pop(form)), state(outcome.model))
    assert not same_state(state(found.popitem()[1]), state(outcome.model))
    raw = cut(ladder.task.model, ladder.space, kept)
    assert torch.equal(raw.conv1.weight, outcome.model.conv1.weight)
    assert not torch.allclose(raw.conv2.weight, outcome.model.conv2.weight)


def test_the_re_fit_makes_up_for_much_of_the_cut(ladder: Ladder) -> None:
    which = candidate(ladder, conv1=4, conv2=2)
    raw = cut(ladder.task.model, ladder.space, ladder.kept(which))
    careful = ladder.evaluate(which, rung=1, method="careful", seed=0)
    assert ladder.refit.loss(careful.model) < 0.9 * ladder.refit.loss(raw)


def test_only_methods_of_a_rung_are_taken(ladder: Ladder) -> None:
    for rung, method in ((1, "finetune"), (2, "refit"), (2, "careful"), (3, "refit")):
        with pytest.raises(AssertionError):
            ladder.evaluate(candidate(ladder), rung=rung, method=method, seed=0)


@pytest.mark.parametrize("method", ["refit", "careful"])
def test_keeping_everything_keeps_every_weight(ladder: Ladder, method: Method) -> None:
    whole = Candidate(ladder.space.dense, ())
    outcome = ladder.evaluate(whole, rung=1, method=method, seed=0)
    assert outcome.evaluation.macs == ladder.space.macs(ladder.space.dense)
    assert same_state(state(ladder.task.model), state(outcome.model))
    assert outcome.evaluation.score == ladder.holdout_score(ladder.task.model)


@pytest.mark.parametrize("rung", [2, 3])
def test_finetuning_starts_from_the_careful_re_fit(
    ladder: Ladder, monkeypatch: pytest.MonkeyPatch, rung: int
) -> None:
    starts = []
    monkeypatch.setattr(module, "train", lambda model, *_, **__: starts.append(state(model)) or 0.0)
    monkeypatch.setattr(reconstruct, "QUICK_SAMPLES", 24)
    which = candidate(ladder)
    careful = ladder.evaluate(which, rung=1, method="careful", seed=0).model
    ladder.evaluate(which, rung=rung, method="finetune", seed=0)
    assert same_state(starts[-1], state(careful))


@pytest.mark.parametrize("method", ["scratch_e", "scratch_b"])
def test_scratch_training_knows_the_architecture_alone(
    ladder: Ladder, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    starts = []
    monkeypatch.setattr(module, "train", lambda model, *_, **__: starts.append(state(model)) or 0.0)
    blind = Ladder(ladder.task, ladder.space, ladder.scores, None, PLAIN)  # type: ignore[arg-type]
    # Other criteria keep other units, to the same start; and the re-fit is not even there.
    for name in ("l1", "random"):
        blind.evaluate(candidate(ladder, name), rung=3, method=method, seed=0)
    assert same_state(*starts)
    inherited = cut(ladder.task.model, ladder.space, ladder.kept(candidate(ladder)))
    assert not torch.isclose(starts[0]["conv1.weight"], inherited.conv1.weight).any()


#: The toy task has 6 steps per epoch; half the MACs and less, so Scratch-B is at its cap.
LENGTHS = {(2, "finetune"): 3, (3, "finetune"): 12, (3, "scratch_e"): 24, (3, "scratch_b"): 48}


@pytest.mark.parametrize(("rung", "method"), LENGTHS)
def test_the_length_and_rate_of_every_training(
    ladder: Ladder, monkeypatch: pytest.MonkeyPatch, rung: int, method: Method
) -> None:
    calls = []
    monkeypatch.setattr(module, "train", lambda *_, **settings: calls.append(settings) or 0.0)
    ladder.evaluate(candidate(ladder), rung=rung, method=method, seed=5)
    (settings,) = calls
    assert settings["epochs"] * len(ladder.task.train) == LENGTHS[rung, method]
    assert settings["lr"] == (0.05 if method == "finetune" else 0.1)
    assert settings["seed"] == training_seed(method, 5)


def test_scratch_b_of_a_mild_cut_gets_the_dense_compute(
    ladder: Ladder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(module, "train", lambda *_, **settings: calls.append(settings) or 0.0)
    which = candidate(ladder, conv1=5, conv2=4)
    ladder.evaluate(which, rung=3, method="scratch_b", seed=0)
    spent = calls[0]["epochs"] * ladder.space.macs(which.architecture)
    assert spent == pytest.approx(4 * ladder.space.macs(ladder.space.dense))


def test_training_seeds_are_the_same_in_every_process_and_differ_by_method() -> None:
    assert training_seed("finetune", 0) == 2792624253150549491
    assert len({training_seed(m, s) for m in ("finetune", "scratch_e", "scratch_b") for s in range(3)}) == 9


def test_only_rung_three_is_scored_in_fp32(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def spy(model: torch.nn.Module, task: object, loader: object, precision: Precision) -> float:
        used.append((precision.dtype, precision.channels_last))
        return evaluate(model, task, loader, precision)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "evaluate", spy)
    fast = Ladder(ladder.task, ladder.space, ladder.scores, ladder.refit, Precision("cpu", "bfloat16", True))
    outcome = fast.evaluate(candidate(ladder), rung=1, method="refit", seed=0)
    fast.evaluate(candidate(ladder), rung=2, method="finetune", seed=0)
    fast.evaluate(candidate(ladder), rung=3, method="finetune", seed=0)
    fast.holdout_score(outcome.model)
    assert used == [("bfloat16", True), ("bfloat16", True), ("float32", False), ("float32", False)]
    assert outcome.model.conv2.weight.is_contiguous()


def test_the_test_split_stays_sealed_until_it_is_opened(ladder: Ladder) -> None:
    task = replace(ladder.task, test=toy_task().test)
    sealed = Ladder(task, ladder.space, ladder.scores, ladder.refit, PLAIN)
    for rung, methods in METHODS.items():
        for method in methods:
            model = sealed.evaluate(candidate(ladder), rung=rung, method=method, seed=0).model
    with pytest.raises(RuntimeError, match="before the front was final"):
        sealed.test_score(model)
    task.test.unseal()
    images, targets = toy_data(60, seed=3)
    with torch.no_grad():
        assert sealed.test_score(model) == (model(images).argmax(dim=1) == targets).double().mean().item()


def test_a_divergence_is_reported_and_leaves_the_dense_network_alone(ladder: Ladder) -> None:
    dense = state(ladder.task.model)
    wild = replace(ladder.task, recipe=replace(ladder.task.recipe, lr=1e30))
    with pytest.raises(FloatingPointError, match=r"in step \d+ of 24"):
        Ladder(wild, ladder.space, ladder.scores, ladder.refit, PLAIN).evaluate(
            candidate(ladder), rung=3, method="scratch_e", seed=0
        )
    assert same_state(dense, state(ladder.task.model))


def test_units_are_sorted_once(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0

    def counting(scores: torch.Tensor) -> torch.Tensor:
        nonlocal counted
        counted += 1
        return keep_order(scores)

    monkeypatch.setattr(module, "keep_order", counting)
    fresh = Ladder(ladder.task, ladder.space, ladder.scores, ladder.refit, PLAIN)
    for width in (1, 2, 3):
        fresh.evaluate(candidate(ladder, conv1=width, conv2=4), rung=1, method="refit", seed=0)
    assert counted == 1


def test_progress_is_reported_step_by_step(ladder: Ladder) -> None:
    steps: list[tuple[int, int]] = []
    watched = Ladder(
        ladder.task,
        ladder.space,
        ladder.scores,
        ladder.refit,
        PLAIN,
        on_step=lambda *step: steps.append(step),
    )
    watched.evaluate(candidate(ladder), rung=2, method="finetune", seed=0)
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_written_outcome_is_rebuilt_with_equal_outputs(ladder: Ladder, tmp_path: Path) -> None:
    which = candidate(ladder)
    outcome = ladder.evaluate(which, rung=3, method="finetune", seed=0)
    write_architecture(tmp_path, ladder.architecture_document(which), outcome.model.state_dict())
    again = rebuild(toy_task(7).model, tmp_path).eval()
    images, _ = toy_data(8, seed=8)
    with torch.no_grad():
        assert torch.equal(again(images), outcome.model(images))


def test_the_document_names_widths_units_and_criteria(ladder: Ladder) -> None:
    which = candidate(ladder, "l2")
    document = ladder.architecture_document(which)
    assert document["widths"] == WIDTHS
    assert document["criteria"] == {"conv1": "l2", "conv2": "l2"}
    assert document["kept"] == {name: units.tolist() for name, units in ladder.kept(which).items()}
