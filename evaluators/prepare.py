"""What a run does once, and keeps in its folder: train the dense network, score every unit."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils import _pytree as pytree

from evaluators.cache import fingerprint, load, save
from evaluators.calibration import calibration_batches, first_samples
from evaluators.criteria import (
    CRITERIA,
    NEEDS_CURVATURE,
    NEEDS_MOMENTS,
    NEEDS_REMOVALS,
    NEEDS_SCORES,
    NEEDS_UNITS,
    NotApplicable,
    ScoringContext,
    keep_order,
    score,
)
from evaluators.options import OptionError, choose
from evaluators.precision import at_rest
from evaluators.reconstruct.refit import Refit
from evaluators.scoring import evaluate
from evaluators.seeding import training_seed
from evaluators.sensitivity import sensitivities
from evaluators.statistics.gather import DEFAULT_MEMORY, gather
from evaluators.statistics.probes import curvature, removals
from evaluators.statistics.records import Statistics
from evaluators.statistics.store import from_tensors, to_tensors
from evaluators.train import OnStep, train
from spaces import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from evaluators.checkpoint import Checkpoints
    from evaluators.criteria import Criterion
    from evaluators.precision import Precision
    from evaluators.task import Batch, Task
    from spaces import ChannelGroup, Space


#: Calibration samples for probes that ask the dense network many questions.
_PROBE_SAMPLES, _REMOVAL_SAMPLES = 256, 128
_NUM_PROBES = 4


@dataclass(frozen=True)
class Prepared:
    """What is known before the first candidate, shared by all candidates of a run.

    Attributes:
        dense_score: The dense network on holdout, fp32; higher is better.
        scores: Group -> criterion -> ``(width,)`` float64 scores; higher means keep. A criterion that does
            not apply to a group is missing there.
        curves: Group -> ``(width + 1,)`` float64: error of what reads the group when ``k`` units are kept
            and the readers are fitted anew; 0 at full width, comparable across groups.
        sensitivities: Group -> ``(choices,)`` float64: how much the calibration loss rises when the group
            alone is cut to each proposed width.
        refit: Mends cut networks.
        warnings: Which criteria are missing where, and what was approximated.
        seconds: Wall clock.
    """

    dense_score: float
    scores: Mapping[str, Mapping[str, Tensor]]
    curves: Mapping[str, Tensor]
    sensitivities: Mapping[str, Tensor]
    refit: Refit
    warnings: tuple[str, ...]
    seconds: float

    def criteria_for(self, group: str) -> tuple[str, ...]:
        """Criteria that apply to the group."""
        return tuple(self.scores[group])


def train_dense(
    task: Task,
    precision: Precision,
    *,
    seed: int,
    folder: Path,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train ``task.model`` in place unless it came trained; a finished training is read from ``folder``.

    ``dense.safetensors`` appears whole or not at all, and is only used for the same task, recipe and seed.

    Args:
        task: Its ``model`` is the dense network of the run from here on.
        precision: How to train.
        seed: Of order, augmentation and dropout; the initial weights are the task's.
        folder: The run folder; must exist.
        on_step: Progress.
        checkpoints: An interrupted training goes on from its last state; without, it starts over.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    if task.pretrained:
        return
    path = folder / "dense.safetensors"
    key = fingerprint(task.name, asdict(task.recipe), seed, precision.to_dict(), task.model.state_dict())
    stored = load(path, key)
    if stored is not None:
        task.model.load_state_dict(stored[0])
        at_rest(task.model)
        return
    recipe = task.recipe
    train(
        task.model,
        task,
        epochs=recipe.epochs,
        lr=recipe.lr,
        seed=training_seed("dense", seed),
        precision=precision,
        on_step=on_step,
        checkpoints=checkpoints,
        origin=key,
    )
    save(path, key, at_rest(task.model).state_dict())
    if checkpoints is not None:
        checkpoints.delete()


def prepare(
    task: Task,
    space: Space,
    precision: Precision,
    *,
    seed: int,
    folder: Path,
    criteria: Sequence[str],
    memory: int = DEFAULT_MEMORY,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Gather statistics, score all units, measure the dense network; or read it all back from ``folder``.

    ``statistics.safetensors`` and ``scores.safetensors`` appear whole or not at all, and are only used for
    the same weights, calibration data, groups, seed and (for scores) criteria.

    Args:
        task: With a trained model.
        space: Traced from it.
        precision: Device to compute on; everything but losses of cut networks is computed in fp32.
        seed: For criteria that draw, and for sampled positions.
        folder: The run folder; must exist.
        criteria: Names of the criteria that the search may choose among.
        memory: Bytes for second moments, see :func:`evaluators.statistics.gather.gather`.
        on_stage: Told what is being done.

    Raises:
        OptionError: If a criterion is unknown, or none applies to some group; see also ``gather``.
        FloatingPointError: If an activation is not finite; names the layer.
        ValueError: If a score is not finite; names the group.
    """
    start = time.monotonic()
    criteria = [choose("criterion", name, CRITERIA) for name in criteria]
    batches = calibration_batches(task, precision)
    key = fingerprint(
        task.name,
        [(g.name, g.width, g.choices, [(m.tensor, m.dim, m.role) for m in g.members]) for g in space.groups],
        seed,
        memory,
        task.model.state_dict(),
        [fingerprint(_tensors_of(batch)) for batch in batches],
    )
    work = _Work(task, space, precision, batches, seed, criteria, on_stage)
    statistics = work.statistics(folder / "statistics.safetensors", key, memory)
    refit = Refit(task, space, statistics.moments, batches, precision)
    found, texts = work.scored(folder / "scores.safetensors", key, statistics, refit)
    scores = {
        g.name: {c: found[f"{c}|{g.name}"] for c in criteria if f"{c}|{g.name}" in found}
        for g in space.groups
    }
    _refuse_bare_groups({name: list(some) for name, some in scores.items()}, criteria)
    return Prepared(
        dense_score=float(texts["dense_score"]),
        scores=scores,
        curves=_part(found, _CURVE),
        sensitivities=_part(found, _SENSITIVITY),
        refit=refit,
        warnings=(*_missing(scores, criteria), *statistics.warnings, *refit.warnings),
        seconds=time.monotonic() - start,
    )


#: Names that are no criterion's, in front of tensors in ``scores.safetensors``.
_CURVE, _SENSITIVITY = "error curve", "sensitivity"


@dataclass(frozen=True)
class _Work:
    """What the stages of a preparation share."""

    task: Task
    space: Space
    precision: Precision
    batches: Iterable[Batch]
    seed: int
    criteria: Sequence[str]
    on_stage: Callable[[str], None]

    def statistics(self, path: Path, key: str, memory: int) -> Statistics:
        """The sweep, and the probes that the criteria ask for."""
        asked = self._asked
        key = fingerprint(key, not asked.isdisjoint(NEEDS_CURVATURE), not asked.isdisjoint(NEEDS_REMOVALS))
        stored = load(path, key)
        if stored is not None:
            return from_tensors(*stored)
        task, precision, few = self.task, self.precision, list(first_samples(self.batches, _PROBE_SAMPLES))
        self.on_stage("gathering statistics of all layers and units")
        found = gather(task, self.space, self.batches, precision, seed=self.seed, memory=memory)
        if not asked.isdisjoint(NEEDS_CURVATURE):
            self.on_stage("probing second derivatives")
            curves = curvature(task, self.space, few, precision, self.seed, _NUM_PROBES)
            found = replace(found, curvature=curves)
        if not asked.isdisjoint(NEEDS_REMOVALS):
            self.on_stage("measuring what single units are worth")
            few = list(first_samples(self.batches, _REMOVAL_SAMPLES))
            found = replace(found, removals=removals(task, self.space, None, few, precision, self.seed))
        at_rest(task.model)
        tensors, texts = to_tensors(found)
        save(path, key, tensors, texts)
        return found

    def scored(
        self, path: Path, key: str, statistics: Statistics, refit: Refit
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """``criterion|group`` -> scores, curves and sensitivities; and the dense score."""
        key = fingerprint(key, list(self.criteria), self.precision.to_dict())
        stored = load(path, key)
        if stored is not None:
            return stored
        self.on_stage("scoring units")
        context = ScoringContext(_tensors(self.task.model), statistics, self.seed, groups=self.space.groups)
        scores = score_all(context, self._asked)
        curves = _curves(context)
        self.on_stage("cutting single groups")
        damages = self._sensitivities(scores, refit)
        self.on_stage("scoring the dense network")
        dense_score = evaluate(self.task.model, self.task, self.task.holdout, self.precision.exact)
        at_rest(self.task.model)
        found = {f"{c}|{group}": s for c in self.criteria for group, s in scores[c].items()}
        for part, values in ((_CURVE, curves), (_SENSITIVITY, damages)):
            found |= {f"{part}|{group}": tensor for group, tensor in values.items()}
        texts = {"dense_score": repr(dense_score)}
        save(path, key, found, texts)
        return found, texts

    @property
    def _asked(self) -> set[str]:
        """The criteria, and those that others of them learn from."""
        learns = not NEEDS_SCORES.isdisjoint(self.criteria)
        return set(CRITERIA) if learns else set(self.criteria)

    def _sensitivities(self, scores: Mapping[str, Mapping[str, Tensor]], refit: Refit) -> dict[str, Tensor]:
        """With the units that ``obs`` keeps, or the first criterion that applies."""
        names = [name for name in ("obs", *self.criteria) if name in scores]
        orders = {}
        for group in self.space.groups:
            best = next((scores[name][group.name] for name in names if group.name in scores[name]), None)
            if best is not None:
                orders[group.name] = keep_order(best)

        def build(kept: dict[str, Tensor]) -> nn.Module:
            model = cut(self.task.model, self.space, kept)
            refit.from_moments(model, kept)
            return model

        return sensitivities(self.space, build, orders, refit.loss)


def score_all(context: ScoringContext, criteria: Collection[str]) -> dict[str, dict[str, Tensor]]:
    """Criterion -> group -> scores, for all that apply, in the order of the registry.

    Raises:
        ValueError: If a score is not finite; names the group.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name in (name for name in CRITERIA if name in criteria):
        context = replace(context, scores=found) if name in NEEDS_SCORES else context
        scores = {}
        for group in context.groups:
            try:
                scores[group.name] = score(CRITERIA[name], context, group)
            except NotApplicable:
                continue
        found[name] = scores
    return found


def _curves(context: ScoringContext) -> dict[str, Tensor]:
    """Of every group that some layer with moments reads."""
    found = {}
    for group in context.groups:
        try:
            found[group.name] = context.elimination(group).errors
        except NotApplicable:
            continue
    return found


def _part(found: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{part}|"): tensor for name, tensor in found.items() if name.startswith(f"{part}|")
    }


def _tensors_of(batch: Batch) -> dict[str, Tensor]:
    """All of a calibration batch: other data, other statistics."""
    inputs, targets = batch
    leaves = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return {str(index): leaf for index, leaf in enumerate((*leaves, targets))}


def check_criteria(task: Task, space: Space, criteria: Sequence[str]) -> None:
    """Refuse, before anything is trained or written, criteria that leave a group without one.

    Raises:
        OptionError: If a criterion is unknown, or none applies to some group.
    """
    criteria = [choose("criterion", name, CRITERIA) for name in criteria]
    parameters = dict(task.model.named_parameters())
    # Only whether they apply is asked, not for the scores.
    stand_in = ScoringContext(_tensors(task.model), Statistics(gradients=parameters), seed=0)
    found = {g.name: [c for c in criteria if _applies(c, stand_in, g)] for g in space.groups}
    _refuse_bare_groups(found, criteria)


def _applies(name: str, context: ScoringContext, group: ChannelGroup) -> bool:
    if name in NEEDS_MOMENTS | NEEDS_UNITS | NEEDS_CURVATURE | NEEDS_REMOVALS:
        return any(member.role == "input" for member in group.members)
    criterion: Criterion = CRITERIA[name]
    try:
        criterion(context, group)
    except NotApplicable:
        return False
    return True


def _refuse_bare_groups(found: Mapping[str, Sequence[str]], criteria: Sequence[str]) -> None:
    bare = [group for group, names in found.items() if not names]
    if bare:
        rule = f"does not apply to {_listed(bare)}; allow l1 as well."
        raise OptionError("criterion", ",".join(criteria), rule)


def _missing(scores: Mapping[str, Mapping[str, Tensor]], criteria: Sequence[str]) -> tuple[str, ...]:
    """One warning per criterion that does not apply everywhere."""
    absent = {name: [group for group, found in scores.items() if name not in found] for name in criteria}
    return tuple(
        f"Criterion {name!r} does not apply to {_listed(groups)} and is left out there."
        for name, groups in absent.items()
        if groups
    )


def _listed(groups: Sequence[str]) -> str:
    more = f" and {len(groups) - 3} more groups" if len(groups) > 3 else ""
    return ", ".join(groups[:3]) + more


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that ``state_dict`` leaves out too."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
