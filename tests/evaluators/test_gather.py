"""The sweep against brute force: all positions, one sample at a time."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import (
    PLAIN,
    Branched,
    Grouped,
    every_site,
    randomised,
    readers,
    same_state,
    slow_statistics,
    state,
    toy_data,
    toy_model,
    toy_task,
)

from evaluators.calibration import calibration_batches
from evaluators.options import OptionError
from evaluators.statistics import sums, targets
from evaluators.statistics.gather import check_calibration, gather
from evaluators.task import TensorLoader
from spaces import Space, trace

if TYPE_CHECKING:
    from evaluators.statistics.records import Statistics
    from evaluators.task import Batch, Task
    from spaces.groups import ChannelGroup


MODELS = {"chain": toy_model, "branched": Branched, "grouped": Grouped}


def toy(name: str = "chain", sizes: tuple[int, ...] = (16, 7)) -> tuple[Task, Space, list[Batch]]:
    """In float64; batches of uneven sizes."""
    torch.manual_seed(0)
    inputs, labels = toy_data(sum(sizes), seed=4)
    batches = list(zip(inputs.double().split(sizes), labels.split(sizes), strict=True))
    task = toy_task(
        model=randomised(MODELS[name]()).double(), example_inputs=inputs[:1].double(), calibration=batches
    )
    return task, trace(task.model, task.example_inputs), batches


def everything(
    monkeypatch: pytest.MonkeyPatch, task: Task, space: Space, batches: list[Batch], **settings: Any
) -> Statistics:
    """At all positions, of which none is held out."""
    monkeypatch.setattr(sums, "draw_sites", every_site)
    monkeypatch.setattr(targets, "draw_sites", every_site)
    monkeypatch.setattr(sums, "_HELD_OUT", 10**9)
    return gather(task, space, batches, PLAIN, seed=0, **settings)


@pytest.mark.parametrize("name", MODELS)
class TestAgainstBruteForce:
    def test_moments(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        task, space, batches = toy(name)
        found = everything(monkeypatch, task, space, batches).moments
        wanted = slow_statistics(task.model, batches, space.groups).moments
        assert found.keys() == wanted.keys()
        for layer, moments in wanted.items():
            assert torch.equal(found[layer].weights, moments.weights)
            torch.testing.assert_close(found[layer].gram, moments.gram)
            assert (found[layer].layer, found[layer].taps) == (layer, moments.taps)
            assert found[layer].blocks is None

    def test_units_and_gradients(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        task, space, batches = toy(name)
        found = everything(monkeypatch, task, space, batches)
        wanted = slow_statistics(task.model, batches, space.groups)
        for group in space.groups:
            one, other = found.units[group.name], wanted.units[group.name]
            for field in fields(other):
                if field.name not in ("rank", "histogram"):
                    value = getattr(one, field.name)
                    torch.testing.assert_close(value, getattr(other, field.name), msg=field.name)
            assert (one.rank is None) == (other.rank is None)
            if one.rank is not None:
                torch.testing.assert_close(one.rank, other.rank)
            assert torch.equal(one.histogram, counted(task.model, group, batches, bins=32))
        for parameter, gradient in wanted.gradients.items():
            torch.testing.assert_close(found.gradients[parameter], gradient)


def counted(model: nn.Module, group: ChannelGroup, batches: list[Batch], bins: int) -> Tensor:
    """Of each unit: its mean in every sample as every reader sees it, in equal bins."""
    values = []
    for _, layer, slots in readers(model, group):

        def note(_: nn.Module, args: tuple[Tensor, ...], slots: Tensor = slots) -> None:
            means = args[0].movedim(1, -1).flatten(1, -2).mean(1) if args[0].dim() > 2 else args[0]
            values.append(means.detach()[:, slots].mean(2))

        handle = layer.register_forward_pre_hook(note)
        for x, _ in batches:
            model(x)
        handle.remove()
    rows = []
    for column in torch.cat(values).T:
        low, high = float(column.min()), float(column.max())
        counts, _ = np.histogram(column.numpy(), bins, (low, high if high > low else low + 1))
        rows.append(torch.from_numpy(counts).double())
    return torch.stack(rows)


def judged(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of ``Branched``: what each layer is judged by, and its norm's gain."""
    stem = torch.relu(model.norm(model.stem(x)))
    inner = model.inner(stem)
    total = stem + model.outer_norm(model.outer(torch.relu(inner)))
    side = model.side(torch.relu(total))
    outputs = model.head(torch.relu(total).mean((2, 3))) + side.mean((2, 3))
    return {"inner": inner, "outer": total, "side": side, "head": outputs[:, :, None, None]}


def test_an_outputs_importance_is_its_share_of_the_variance_where_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, space, batches = toy("branched", sizes=(20,))
    found = everything(monkeypatch, task, space, batches).moments
    with torch.no_grad():
        ends = judged(task.model, batches[0][0])
    for layer, values in ends.items():
        norm = task.model.outer_norm if layer == "outer" else None
        gain = torch.ones(values.shape[1]) if norm is None else norm.weight / (norm.running_var + 1e-5).sqrt()
        total = values.movedim(1, -1).flatten(0, -2).var(0).sum()
        torch.testing.assert_close(found[layer].importance[0], (gain.detach() ** 2).double() / total)


def test_every_fourth_position_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    task, space, batches = toy(sizes=(10,))
    monkeypatch.setattr(sums, "draw_sites", every_site)
    found = gather(task, space, batches, PLAIN, seed=0).moments["head"]
    with torch.no_grad():
        x = torch.relu(task.model.bn1(task.model.conv1(batches[0][0])))
        x = torch.relu(task.model.bn2(task.model.conv2(x))).mean((2, 3))
    x = torch.cat([x, torch.ones(10, 1)], 1)
    fit, held = x[[0, 1, 2, 4, 5, 6, 8, 9]], x[[3, 7]]
    torch.testing.assert_close(found.gram[0], fit.T @ fit / 8)
    torch.testing.assert_close(found.held[0], held.T @ held / 2)


def test_sampled_positions_estimate_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    task, space, batches = toy(sizes=(400, 200))
    monkeypatch.setattr(sums, "_LEAST_ROWS", 6000)
    found = gather(task, space, batches, PLAIN, seed=0).moments["conv2"]
    wanted = slow_statistics(task.model, batches[:1], space.groups).moments["conv2"].gram
    scale = wanted.diagonal(dim1=1, dim2=2).sqrt()
    for gram in (found.gram, found.held):
        error = (gram - wanted) / scale[:, :, None] / scale[:, None]
        assert 1e-3 < error.abs().mean() < 0.03


def equal(one: Statistics, other: Statistics) -> bool:
    def same(a: Any, b: Any) -> bool:
        if a is None or not isinstance(a, Tensor):
            return bool(a == b)
        return torch.equal(a, b)

    records = [(one.moments, other.moments), (one.units, other.units)]
    return all(
        same(getattr(a[key], field.name), getattr(b[key], field.name))
        for a, b in records
        for key in a
        for field in fields(a[key])
    ) and all(torch.equal(one.gradients[name], other.gradients[name]) for name in one.gradients)


def test_the_seed_decides_the_positions_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_LEAST_ROWS", 100)
    monkeypatch.setattr(sums, "_ROWS_PER_COLUMN", 1)
    task, space, batches = toy("branched", sizes=(30, 20))
    first = gather(task, space, batches, PLAIN, seed=0)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert equal(first, gather(task, space, batches, PLAIN, seed=0))
    assert torch.equal(before, torch.get_rng_state())
    other = gather(task, space, batches, PLAIN, seed=1)
    assert not torch.equal(first.moments["inner"].gram, other.moments["inner"].gram)


def test_streamed_batches_give_the_same_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    task, space, _ = toy()
    held = calibration_batches(task, PLAIN)
    monkeypatch.setattr("evaluators.calibration.MEMORY_BYTES", 500)
    streamed = calibration_batches(task, PLAIN)
    assert isinstance(held, list)
    assert not isinstance(streamed, list)
    one, other = (gather(task, space, batches, PLAIN, seed=0) for batches in (held, streamed))
    assert equal(one, other)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    task, space, batches = toy()
    task.model.train().bn2.eval()
    task.model.conv1.weight.requires_grad_(False)
    before = state(task.model)
    if fails:
        with pytest.raises(ZeroDivisionError):
            gather(replace(task, loss=lambda *_: 1 / 0), space, batches, PLAIN, seed=0)
    else:
        gather(task, space, batches, PLAIN, seed=0)
    assert same_state(before, state(task.model))
    assert [task.model.training, task.model.bn1.training, task.model.bn2.training] == [True, True, False]
    assert [n for n, p in task.model.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert all(p.grad is None for p in task.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_layer_that_reads_no_number_is_named(value: float) -> None:
    task, space, batches = toy()
    task.model.bn1.bias.data[2] = value
    with pytest.raises(FloatingPointError, match=r"^layer 'conv2' reads NaN or infinity on calibration data"):
        gather(task, space, batches, PLAIN, seed=0)
    inputs = batches[1][0].clone()
    inputs[3, 0, 2, 2] = value
    with pytest.raises(FloatingPointError, match="'conv2'"):
        gather(*toy()[:2], [batches[0], (inputs, batches[1][1])], PLAIN, seed=0)


def test_too_few_samples_are_refused() -> None:
    task, space, batches = toy(sizes=(4, 3))
    with pytest.raises(OptionError, match=r"^--task toy: calibrates on 7 samples; at least 8 are needed\.$"):
        gather(task, space, batches, PLAIN, seed=0)
    gather(*toy(sizes=(4, 4)), PLAIN, seed=0)


#: Bytes of two float64 matrices: conv2 reads 54 columns and a one, the head 4 and a one.
HEAD, BOTH = 2 * 8 * 5**2, 2 * 8 * (5**2 + 55**2)


def test_a_memory_that_fits_no_layer_is_refused() -> None:
    task, space, batches = toy()
    with pytest.raises(
        OptionError, match=r"^--statistics-memory 399B: .* smallest layer, head, need 400B\.$"
    ):
        gather(task, space, batches, PLAIN, seed=0, memory=HEAD - 1)
    gather(task, space, batches, PLAIN, seed=0, memory=HEAD)


def test_the_largest_layers_are_approximated_per_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    task, space, batches = toy()
    whole = everything(monkeypatch, task, space, batches, memory=BOTH)
    assert [moments.blocks for moments in whole.moments.values()] == [None, None]
    coarse = everything(monkeypatch, task, space, batches, memory=BOTH - 1)
    assert coarse.moments["head"].blocks is None
    assert coarse.warnings == (
        "Second moments per channel only, for lack of memory: conv2.",
        *whole.warnings,
    )
    found = coarse.moments["conv2"]
    assert found.gram is None
    assert found.held is None
    gram = whole.moments["conv2"].gram
    wanted = [gram[0, 9 * c : 9 * c + 9, 9 * c : 9 * c + 9] for c in range(6)]
    torch.testing.assert_close(found.blocks, torch.stack(wanted)[None])
    assert torch.equal(found.weights, whole.moments["conv2"].weights)


def test_layers_that_see_fewer_positions_than_inputs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    task, space, batches = toy(sizes=(8,))
    assert gather(task, space, batches, PLAIN, seed=0).warnings == ()
    monkeypatch.setattr(sums, "_LEAST_ROWS", 8)
    monkeypatch.setattr(sums, "_ROWS_PER_COLUMN", 0)
    (warning,) = gather(task, space, batches, PLAIN, seed=0).warnings
    assert warning == "Fewer calibration positions than inputs: conv2."


class TestBeforeAnythingIsTrained:
    """What would be refused afterwards is refused at once."""

    def test_good_data_and_memory_pass_and_change_nothing(self) -> None:
        task, space, _ = toy()
        task.model.train()
        before, random = state(task.model), torch.get_rng_state()
        check_calibration(task, space, HEAD)
        assert same_state(before, state(task.model))
        assert torch.equal(random, torch.get_rng_state())
        assert task.model.training
        assert not any(m._forward_hooks for m in task.model.modules())

    def test_too_few_samples(self) -> None:
        task, space, _ = toy(sizes=(4, 3))
        with pytest.raises(OptionError, match=r"^--task toy: calibrates on 7 samples; at least 8 are needed"):
            check_calibration(task, space, BOTH)
        inputs, labels = toy_data(5, seed=0)
        train = TensorLoader(inputs.double(), labels, 5)
        with pytest.raises(OptionError, match="calibrates on 5 samples"):
            check_calibration(replace(task, calibration=None, train=train), space, BOTH)

    def test_too_small_a_memory(self) -> None:
        task, space, _ = toy()
        with pytest.raises(OptionError, match=r"^--statistics-memory 399B: .* need 400B\.$"):
            check_calibration(task, space, HEAD - 1)

    def test_a_pretrained_network_that_is_not_finite(self) -> None:
        task, space, _ = toy()
        task.model.head.weight.data[1, 1] = torch.nan
        with pytest.raises(FloatingPointError, match=r"^layer 'head' puts out NaN or infinity"):
            check_calibration(task, space, BOTH)
        task.model.bn1.running_var[0] = torch.nan
        with pytest.raises(FloatingPointError, match=r"^layer 'bn1' puts out NaN or infinity"):
            check_calibration(task, space, BOTH)
        # One that is still to be trained may be anything.
        check_calibration(replace(task, pretrained=False), space, BOTH)


class Tokens(nn.Module):
    """As ConvNeXt and Swin: linear layers on maps with the channels last, and on windows of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(1, 7, 2, 2), nn.Linear(7, 10), nn.Linear(10, 7)
        self.windows, self.head = nn.Linear(7, 3), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.down(torch.tanh(self.up(x)))
        rows = self.windows(x.flatten(0, 1)).unflatten(0, (len(x), -1))
        return (self.head(x) + torch.tanh(rows)).mean((1, 2))


def test_channels_last_and_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inputs, labels = toy_data(12, seed=4)
    batches = [(inputs.double(), labels)]
    task = toy_task(model=Tokens().double().eval(), example_inputs=inputs[:1].double())
    space = trace(task.model, task.example_inputs)
    found = everything(monkeypatch, task, space, batches).units
    assert {group.name: group.width for group in space.groups} == {"stem": 7, "up": 10}
    with torch.no_grad():
        maps = task.model.stem(inputs.double())
        inner = torch.tanh(task.model.up(maps.movedim(1, -1))).movedim(-1, 1)
        total = maps + task.model.down(inner.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(found["up"].rank, torch.linalg.matrix_rank(inner).double().mean(0))
    # Read by `up` before the sum, by `windows` and `head` behind it.
    means = torch.stack([x.mean((0, 2, 3)) for x in (maps, total, total)]).mean(0)
    torch.testing.assert_close(found["stem"].mean, means)
    for group in space.groups:
        gradients = []
        for x, label in zip(inputs.double(), labels, strict=True):
            gates = torch.ones(group.width, dtype=torch.float64, requires_grad=True)
            handles = [
                layer.register_forward_pre_hook(lambda _, args, gates=gates: (args[0] * gates,))
                for _, layer, _ in readers(task.model, group)
            ]
            loss = nn.functional.cross_entropy(task.model(x[None]), label[None])
            gradients.append(torch.autograd.grad(loss, gates)[0])
            for handle in handles:
                handle.remove()
        each = torch.stack(gradients)
        torch.testing.assert_close(found[group.name].gradient, each.mean(0))
        torch.testing.assert_close(found[group.name].gradient_square, each.square().mean(0))


def test_ranks_are_of_a_subsample(monkeypatch: pytest.MonkeyPatch) -> None:
    task, space, batches = toy(sizes=(20, 20, 20))
    found = everything(monkeypatch, task, space, batches).units["conv1"].rank
    inputs = torch.cat([x for x, _ in batches])[:32]
    with torch.no_grad():
        maps = torch.relu(task.model.bn1(task.model.conv1(inputs)))
    torch.testing.assert_close(found, torch.linalg.matrix_rank(maps).double().mean(0))


def test_a_layer_that_runs_twice_has_no_moments() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.twice, self.head = nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x.flatten(1)))
            return self.head(torch.relu(self.twice(torch.relu(self.twice(x)))))

    task = toy_task(model=Twice().eval())
    space = trace(task.model, task.example_inputs)
    found = gather(task, space, list(task.calibration), PLAIN, seed=0)
    assert list(found.moments) == ["head"]
    assert {group.name for group in space.groups} == set(found.units)
