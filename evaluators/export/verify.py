"""Whether exported files are the network: equal outputs and equal scores on test, in fresh processes."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evaluators.calibration import joined, part_of
from evaluators.export.fresh import numbers
from evaluators.export.process import ExportError, FreshProcess, Job
from evaluators.scoring import call, eval_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from evaluators.task import Loader, Task

#: Sizes of batches that are compared by themselves: an export may have taken one of them for a constant.
BATCHES = (1, 2, 7)
#: Largest difference of two outputs that are equal.
TOLERANCE = 1e-4
#: The same as a share of the largest output, where that is more: float32 has seven digits.
RELATIVE_TOLERANCE = 1e-5
#: Largest difference of two scores that are equal.
SCORE_TOLERANCE = 1e-4
SAY_EVERY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured of one exported network.

    Attributes:
        difference: Largest absolute difference to the network's outputs, over all of test.
        scale: Largest absolute output of the network.
        test: Mean score on test.
        holdout: Mean score on holdout, where the file is not to give the network's own outputs.
        holdout_before: The network's own.
    """

    difference: float
    scale: float
    test: float
    holdout: float | None
    holdout_before: float | None


@dataclass(slots=True)
class _Tally:
    """Scores of one network on one split."""

    values: list[Tensor] = field(default_factory=list)

    def add(self, task: Task, outputs: Any, targets: Tensor) -> None:
        self.values.append(task.score(outputs, targets).detach().double().flatten().cpu())

    @property
    def mean(self) -> float:
        return float(torch.cat(self.values).mean())

    @property
    def leeway(self) -> float:
        """How far two equal networks' scores may be apart.

        Where a sample is right or wrong, one may turn: its two largest outputs can be nearer to each other
        than outputs of equal networks are.
        """
        values = torch.cat(self.values)
        right_or_wrong = bool(((values == 0) | (values == 1)).all())
        return SCORE_TOLERANCE + (1 / len(values) if right_or_wrong else 0.0)


@dataclass(slots=True)
class _Exported:
    """One exported network under test."""

    process: FreshProcess
    exact: bool
    difference: float = 0.0
    scale: float = 0.0
    test: _Tally = field(default_factory=_Tally)
    holdout: _Tally = field(default_factory=_Tally)

    def compare(self, made: list[np.ndarray], wanted: list[np.ndarray]) -> None:
        """Note how far outputs are from what they should be.

        Raises:
            ExportError: If they are too far, of another shape, or not finite where they should be.
        """
        shapes = [[tuple(some.shape) for some in outputs] for outputs in (made, wanted)]
        if shapes[0] != shapes[1]:
            raise ExportError(f"its outputs have the shapes {shapes[0]}, the network's {shapes[1]}")
        for ours, theirs in zip(made, wanted, strict=True):
            ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
            if (np.isfinite(ours) != np.isfinite(theirs)).any():
                raise ExportError("some of its outputs are not finite, unlike the network's")
            finite = np.isfinite(theirs)
            if not finite.any():
                continue
            self.scale = max(self.scale, float(np.abs(theirs[finite]).max()))
            self.difference = max(self.difference, float(np.abs(ours - theirs)[finite].max()))
        if self.exact and self.difference > max(TOLERANCE, RELATIVE_TOLERANCE * self.scale):
            raise ExportError(
                f"its outputs differ from the network's by up to {self.difference:.2g}, where the largest is "
                f"{self.scale:.3g}; {TOLERANCE:g} is allowed"
            )


def verify(
    model: nn.Module,
    task: Task,
    jobs: Mapping[str, tuple[Job, bool]],
    *,
    reported: float | None,
    scratch: Path,
    say: Callable[[str], None],
) -> dict[str, Verdict]:
    """Load every exported network in a process of its own and compare it with ``model``.

    Test is read once: each batch goes to all of them.

    Args:
        model: The network, on the CPU in eval mode and fp32.
        task: Its test split may be read.
        jobs: By name, how to load each, and whether its outputs are to be those of ``model``; one that is
            not exact, such as int8, is scored on holdout as well.
        reported: Score of the network on test as it was reported.
        scratch: Empty folder for arrays on their way.
        say: Told what happens, a line at a time.

    Raises:
        ExportError: If one is not the network, or the network does not score as reported; begins with the
            name.
    """
    with ExitStack() as stack, eval_mode(model), torch.inference_mode():
        exported: dict[str, _Exported] = {}
        for i, (name, (job, exact)) in enumerate(jobs.items()):
            process = stack.enter_context(FreshProcess(job, scratch / str(i)))
            exported[name] = _Exported(process, exact)
        for name, one in exported.items():
            with _named(name):
                one.process.wait_ready()
        _compare_sizes(model, task, exported)
        say(f"comparing on test: {', '.join(exported)}")
        own = _Tally()
        tallies = {name: (one, one.test) for name, one in exported.items()}
        _score(model, task, task.test, own, tallies, say)
        _require_score("the network", own, own.mean, reported)
        inexact = {name: (one, one.holdout) for name, one in exported.items() if not one.exact}
        before = _Tally()
        if inexact:
            say(f"measuring on holdout: {', '.join(inexact)}")
            _score(model, task, task.holdout, before, inexact, say)
        for name, one in exported.items():
            if one.exact:
                _require_score(name, one.test, one.test.mean, own.mean if reported is None else reported)
    return {
        name: Verdict(
            one.difference,
            one.scale,
            one.test.mean,
            one.holdout.mean if name in inexact else None,
            before.mean if name in inexact else None,
        )
        for name, one in exported.items()
    }


def _compare_sizes(model: nn.Module, task: Task, exported: Mapping[str, _Exported]) -> None:
    """Batches of several sizes, of real inputs."""
    inputs = joined(task.test, max(BATCHES))
    size = _batch_size(inputs)
    for wanted in sorted({min(wanted, size) for wanted in BATCHES}):
        part = part_of((inputs, torch.zeros(size)), wanted)
        outputs = _tensors(call(model, part))
        for name, one in exported.items():
            with _named(name, f"for a batch of {wanted} "):
                one.compare(one.process.outputs(part), outputs)


def _batch_size(inputs: Any) -> int:
    return next(len(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim())


def _score(
    model: nn.Module,
    task: Task,
    batches: Loader,
    own: _Tally,
    exported: Mapping[str, tuple[_Exported, _Tally]],
    say: Callable[[str], None],
) -> None:
    """One pass over a split: the network's outputs, and those of every file."""
    told = time.monotonic()
    for i, (inputs, targets) in enumerate(batches):
        if time.monotonic() - told > SAY_EVERY_SECONDS:
            told = time.monotonic()
            say(f"batch {i} of {len(batches)}")
        outputs = call(model, inputs)
        own.add(task, outputs, targets)
        leaves, structure = pytree.tree_flatten(outputs)
        wanted = _tensors(outputs)
        for name, (one, tally) in exported.items():
            with _named(name):
                made = one.process.outputs(inputs)
                one.compare(made, wanted)
            rest = iter(made)
            same = [torch.from_numpy(next(rest)) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            tally.add(task, pytree.tree_unflatten(same, structure), targets)
    if not own.values:
        raise ExportError("there is no data to compare on")


def _tensors(outputs: Any) -> list[np.ndarray]:
    return [numbers(leaf) for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _require_score(name: str, tally: _Tally, score: float, reported: float | None) -> None:
    if reported is not None and not abs(score - reported) <= tally.leeway * max(1.0, abs(reported)):
        raise ExportError(
            f"{name}: scores {score:.6g} on test, where {reported:.6g} was reported; "
            "is the data what the run had?"
        )


@contextmanager
def _named(name: str, where: str = "") -> Iterator[None]:
    """Puts the name of a file before what is said of it."""
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{name}: {where}{error}") from error
