"""What mends a cut network: which data it sees, and when BatchNorm statistics are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import (
    PLAIN,
    Branched,
    Toy,
    first_units,
    randomised,
    same_state,
    state,
    toy_data,
    toy_model,
    toy_task,
)

from evaluators.calibration import calibration_batches
from evaluators.precision import Precision
from evaluators.recalibrate import recalibrate
from evaluators.reconstruct import refit as module
from evaluators.reconstruct.careful import Lesson
from evaluators.reconstruct.refit import Refit
from evaluators.statistics.gather import gather
from evaluators.task import Task, TensorLoader
from spaces import Space, cut, trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluators.task import Batch

IMAGES, TARGETS = toy_data(64, seed=4)


def tools(model: nn.Module | None = None, precision: Precision = PLAIN) -> tuple[Task, Space, Refit]:
    task = toy_task(model=model or toy_model())
    space, batches = trace(task.model, task.example_inputs), calibration_batches(task, precision)
    moments = gather(task, space, batches, PLAIN, seed=0).moments
    return task, space, Refit(task, space, moments, batches, precision)


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[Lesson]:
    """All that are made."""
    made: list[Lesson] = []
    original = Lesson.of

    def of(*args: Any, **settings: Any) -> Lesson:
        made.append(original(*args, **settings))
        return made[-1]

    monkeypatch.setattr(Lesson, "of", of)
    return made


FORMS = ["cached", "quick", "thorough"]


class TestEveryForm:
    @pytest.mark.parametrize("form", FORMS)
    def test_mended_networks_lose_less(self, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        # An untrained network's loss says nothing about its statistics.
        monkeypatch.setattr(module, "recalibrate", lambda *_: None)
        torch.manual_seed(0)
        task, space, refit = tools(randomised(Branched()))
        kept = first_units(space)
        small, raw = cut(task.model, space, kept), cut(task.model, space, kept)
        getattr(refit, form)(small, kept)
        with torch.no_grad():
            wanted, before, after = (model(IMAGES) for model in (task.model, raw, small))
        assert (after - wanted).square().mean() < 0.5 * (before - wanted).square().mean()

    @pytest.mark.parametrize("form", FORMS)
    def test_the_dense_network_stays_as_it_is(self, form: str) -> None:
        task, space, refit = tools()
        before, kept = state(task.model), first_units(space)
        getattr(refit, form)(cut(task.model, space, kept), kept)
        assert same_state(before, state(task.model))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())

    @pytest.mark.parametrize("form", FORMS)
    def test_a_network_that_lost_nothing_is_not_touched(self, form: str, lessons: list[Lesson]) -> None:
        task, space, refit = tools()
        whole = cut(task.model, space, {})
        getattr(refit, form)(whole, {g.name: torch.arange(g.width) for g in space.groups})
        assert same_state(state(task.model), state(whole))
        assert lessons == []

    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_the_same_every_time(self, form: str) -> None:
        task, space, refit = tools()
        kept = first_units(space)
        found = []
        for random_state in (1, 2):
            torch.manual_seed(random_state)
            small = cut(task.model, space, kept)
            getattr(refit, form)(small, kept)
            found.append(state(small))
        assert same_state(*found)


class TestLessons:
    def test_each_is_made_once_for_all_candidates(self, lessons: list[Lesson]) -> None:
        task, space, refit = tools()
        for width in (1, 2, 3):
            kept = {"conv1": torch.arange(width)}
            refit.quick(cut(task.model, space, kept), kept)
        assert len(lessons) == 1

    def test_the_quick_form_sees_few_samples_and_the_thorough_one_all(
        self, monkeypatch: pytest.MonkeyPatch, lessons: list[Lesson]
    ) -> None:
        monkeypatch.setattr(module, "QUICK_SAMPLES", 20)
        task, space, refit = tools()
        kept = first_units(space)
        for form in (refit.quick, refit.thorough):
            form(cut(task.model, space, kept), kept)
        assert torch.equal(lessons[0].inputs, IMAGES[:20])
        assert torch.equal(lessons[1].inputs, IMAGES)

    def test_they_fit_into_memory(self, monkeypatch: pytest.MonkeyPatch, lessons: list[Lesson]) -> None:
        # A sample's largest activation: 6 channels of 36 float32 numbers.
        monkeypatch.setattr(module, "_LARGEST_ACTIVATION", 30 * 6 * 36 * 4)
        task, space, refit = tools()
        kept = first_units(space)
        refit.thorough(cut(task.model, space, kept), kept)
        assert torch.equal(lessons[0].inputs, IMAGES[:30])

    def test_they_are_in_fp32_and_in_the_layout_of_the_run(self, lessons: list[Lesson]) -> None:
        task, space, refit = tools(precision=Precision("cpu", "bfloat16", channels_last=True))
        kept = first_units(space)
        refit.quick(cut(task.model, space, kept), kept)
        (lesson,) = lessons
        assert lesson.inputs.is_contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            x = task.model.conv1(IMAGES)
            found = lesson.targets["conv1"]
        torch.testing.assert_close(found.values, task.model.bn1(x).movedim(1, -1)[found.sites])
        assert task.model.conv2.weight.is_contiguous()

    def test_inputs_may_be_nested(self, lessons: list[Lesson]) -> None:
        class Nested(Toy):
            def forward(self, image: Tensor, extra: dict[str, Tensor]) -> Tensor:
                return super().forward(image + extra["shift"])

        shift = torch.arange(64.0)[:, None, None, None] / 64
        parts = (tensor.split(16) for tensor in (IMAGES, shift, TARGETS))
        pairs = [((x, {"shift": s}), y) for x, s, y in zip(*parts, strict=True)]
        torch.manual_seed(0)
        task = toy_task(model=randomised(Nested()), example_inputs=(IMAGES[:1], {"shift": shift[:1]}))
        space = trace(task.model, task.example_inputs)
        refit = Refit(task, space, {}, pairs, PLAIN)
        kept = first_units(space)
        refit.quick(cut(task.model, space, kept), kept)
        image, extra = lessons[0].inputs
        assert torch.equal(image, IMAGES)
        assert torch.equal(extra["shift"], shift)


class TestLoss:
    def test_it_is_the_mean_over_the_last_calibration_samples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_CHECK_SAMPLES", 20)
        # Batches of 24, 24 and 16 samples: the last one alone is too few.
        task = toy_task(calibration=TensorLoader(IMAGES, TARGETS, 24))
        space = trace(task.model, task.example_inputs)
        refit = Refit(task, space, {}, calibration_batches(task, PLAIN), PLAIN)
        with torch.no_grad():
            wanted = F.cross_entropy(task.model(IMAGES[24:]), TARGETS[24:])
        assert refit.loss(task.model) == pytest.approx(float(wanted))
        assert refit.loss(task.model) == refit.loss(task.model)

    def test_streamed_batches_are_read_to_the_end_and_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_CHECK_SAMPLES", 20)
        task, space, _ = tools()
        held = calibration_batches(task, PLAIN)
        monkeypatch.setattr("evaluators.calibration.MEMORY_BYTES", 500)
        streamed = calibration_batches(task, PLAIN)
        assert not isinstance(streamed, list)
        one, other = (Refit(task, space, {}, batches, PLAIN).loss(task.model) for batches in (held, streamed))
        assert one == other

    def test_the_network_keeps_its_modes(self) -> None:
        task, _, refit = tools()
        task.model.train().bn1.eval()
        before = state(task.model)
        refit.loss(task.model)
        assert (task.model.training, task.model.bn1.training) == (True, False)
        assert same_state(before, state(task.model))


class PreActivation(nn.Module):
    """Its first norm stands behind an activation, so that no layer's fit covers it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(torch.relu(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean(dim=(2, 3)))


class TestStatistics:
    """New BatchNorm statistics are kept where the loss falls, and nowhere else."""

    def cut_and_mended(
        self, monkeypatch: pytest.MonkeyPatch, shift: float, form: str, model: nn.Module | None = None
    ) -> tuple[nn.Module, Refit, list[dict[str, Tensor]]]:
        """The mended network, and its state before each trial; statistics come out wrong by ``shift``."""
        task, space, refit = tools(model)
        before = []

        def spoiled(model: nn.Module, batches: Iterable[Batch], precision: Precision) -> None:
            before.append(state(model))
            recalibrate(model, batches, precision)
            model.bn2.running_mean += shift

        monkeypatch.setattr(module, "recalibrate", spoiled)
        kept = first_units(space)
        small = cut(task.model, space, kept)
        getattr(refit, form)(small, kept)
        return small, refit, before

    def test_worse_ones_are_taken_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small, _, (before,) = self.cut_and_mended(monkeypatch, -30.0, "cached")
        assert same_state(before, state(small))

    @pytest.mark.parametrize("old", [1.0, torch.nan])
    def test_better_ones_stay(self, monkeypatch: pytest.MonkeyPatch, old: float) -> None:
        losses = iter([old, 0.9])
        monkeypatch.setattr(Refit, "loss", lambda *_: next(losses))
        small, _, (before, _) = self.cut_and_mended(monkeypatch, 0.0, "cached")
        changed = {name for name, tensor in state(small).items() if not torch.equal(tensor, before[name])}
        assert {"bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"} <= changed
        assert all("bn" in name for name in changed)

    @pytest.mark.parametrize("after", [1.0, torch.nan])
    def test_ones_that_are_no_better_are_taken_back(
        self, monkeypatch: pytest.MonkeyPatch, after: float
    ) -> None:
        losses = iter([1.0, after])
        monkeypatch.setattr(Refit, "loss", lambda *_: next(losses))
        small, _, (before,) = self.cut_and_mended(monkeypatch, 0.0, "cached")
        assert same_state(before, state(small))

    @pytest.mark.parametrize("form", ["quick", "thorough"])
    def test_a_careful_fit_leaves_its_own_norms_alone(
        self, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        _, _, before = self.cut_and_mended(monkeypatch, 0.0, form)
        assert not before

    @pytest.mark.parametrize("form", ["quick", "thorough"])
    def test_norms_that_no_fit_covers_are_tried(self, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        _, _, before = self.cut_and_mended(monkeypatch, 0.0, form, PreActivation().eval())
        assert before

    def test_a_network_without_batchnorm_is_not_even_scored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Refit, "loss", None)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        task, space, refit = tools(model)
        kept = first_units(space)
        for form in FORMS:
            small = cut(task.model, space, kept)
            getattr(refit, form)(small, kept)

    def test_few_samples_decide_and_all_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_TRIAL_SAMPLES", 20)
        losses = iter([1.0, 0.9])
        monkeypatch.setattr(Refit, "loss", lambda *_: next(losses))
        counts = []
        monkeypatch.setattr(
            module, "recalibrate", lambda _, batches, __: counts.append(sum(len(y) for _, y in batches))
        )
        task, space, refit = tools()
        kept = first_units(space)
        refit.cached(cut(task.model, space, kept), kept)
        assert counts == [32, 64]  # whole batches of 16


def test_from_moments_leaves_statistics_alone_but_for_the_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "recalibrate", None)
    task, space, refit = tools()
    kept = first_units(space)
    small, raw = cut(task.model, space, kept), cut(task.model, space, kept)
    refit.from_moments(small, kept)
    changed = {
        name for name, tensor in state(small).items() if not torch.equal(tensor, raw.state_dict()[name])
    }
    assert changed == {"conv2.weight", "bn2.running_mean", "head.weight", "head.bias"}
