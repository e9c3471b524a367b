"""What a run does once, and keeps in its folder: train the dense network, score every unit."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from evaluators.calibration import calibration_batches
from evaluators.criteria import (
    CRITERIA,
    NEEDS_GRADIENTS,
    NotApplicable,
    ScoringContext,
    gather_gradients,
    score,
)
from evaluators.options import OptionError, choose
from evaluators.precision import at_rest
from evaluators.scoring import evaluate
from evaluators.seeding import training_seed
from evaluators.train import OnStep, train

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from evaluators.criteria import Criterion
    from evaluators.precision import Precision
    from evaluators.task import Task
    from spaces import ChannelGroup, Space


@dataclass(frozen=True)
class Prepared:
    """Scores of every unit, shared by all candidates of a run.

    Attributes:
        dense_score: The dense network on holdout, fp32; higher is better.
        scores: Group -> criterion -> ``(width,)`` float64 scores; higher means keep. A criterion that does
            not apply to a group is missing there.
        warnings: Which criteria are missing where.
        seconds: Wall clock.
    """

    dense_score: float
    scores: Mapping[str, Mapping[str, Tensor]]
    warnings: tuple[str, ...]
    seconds: float

    def criteria_for(self, group: str) -> tuple[str, ...]:
        """Criteria that apply to the group."""
        return tuple(self.scores[group])


def train_dense(
    task: Task, precision: Precision, *, seed: int, folder: Path, on_step: OnStep | None = None
) -> None:
    """Train ``task.model`` in place unless it came trained; a finished training is read from ``folder``.

    ``dense.safetensors`` appears whole or not at all, and is only used for the same task, recipe and seed.

    Args:
        task: Its ``model`` is the dense network of the run from here on.
        precision: How to train.
        seed: Of order, augmentation and dropout; the initial weights are the task's.
        folder: The run folder; must exist.
        on_step: Progress.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    if task.pretrained:
        return
    path = folder / "dense.safetensors"
    key = fingerprint(task.name, asdict(task.recipe), seed, precision.to_dict(), task.model.state_dict())
    stored = _load(path, key)
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
    )
    _save(path, key, at_rest(task.model).state_dict())


def prepare(
    task: Task, space: Space, precision: Precision, *, seed: int, folder: Path, criteria: Sequence[str]
) -> Prepared:
    """Score the dense network on holdout and all units by all criteria, or read both back from ``folder``.

    ``scores.safetensors`` appears whole or not at all, and is only used for the same weights, groups,
    criteria and seed.

    Args:
        task: With a trained model.
        space: Traced from it.
        precision: Device to compute on; scores are computed in fp32.
        seed: For criteria that draw.
        folder: The run folder; must exist.
        criteria: Names of the criteria that the search may choose among.

    Raises:
        OptionError: If a criterion is unknown, or none applies to some group.
        ValueError: If a score is not finite; names the group.
    """
    start = time.monotonic()
    criteria = [choose("criterion", name, CRITERIA) for name in criteria]
    path = folder / "scores.safetensors"
    groups = [(g.name, g.width, [(m.tensor, m.dim, m.role) for m in g.members]) for g in space.groups]
    key = fingerprint(task.name, groups, list(criteria), seed, task.model.state_dict())
    stored = _load(path, key)
    if stored is None:
        flat = _score_all(task, space.groups, precision, seed, criteria)
        dense_score = evaluate(task.model, task, task.holdout, precision.exact)
        at_rest(task.model)
        _save(path, key, flat, dense_score=dense_score)
    else:
        flat, dense_score = stored[0], float(stored[1]["dense_score"])
    scores = {
        g.name: {c: flat[f"{c}/{g.name}"] for c in criteria if f"{c}/{g.name}" in flat} for g in space.groups
    }
    _refuse_bare_groups({name: list(found) for name, found in scores.items()}, criteria)
    return Prepared(dense_score, scores, _missing(scores, criteria), time.monotonic() - start)


def check_criteria(task: Task, space: Space, criteria: Sequence[str]) -> None:
    """Refuse, before anything is trained or written, criteria that leave a group without one.

    Raises:
        OptionError: If a criterion is unknown, or none applies to some group.
    """
    criteria = [choose("criterion", name, CRITERIA) for name in criteria]
    parameters = dict(task.model.named_parameters())
    # Only whether they apply is asked, not for the scores.
    stand_in = ScoringContext(_tensors(task.model), parameters, seed=0)
    found = {g.name: [c for c in criteria if _applies(CRITERIA[c], stand_in, g)] for g in space.groups}
    _refuse_bare_groups(found, criteria)


def _applies(criterion: Criterion, context: ScoringContext, group: ChannelGroup) -> bool:
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


def _score_all(
    task: Task, groups: Iterable[ChannelGroup], precision: Precision, seed: int, criteria: Sequence[str]
) -> dict[str, Tensor]:
    """``criterion/group`` -> scores, for all that apply."""
    gradients: dict[str, Tensor] = {}
    if not NEEDS_GRADIENTS.isdisjoint(criteria):
        gradients = gather_gradients(task, calibration_batches(task, precision.exact), precision)
        at_rest(task.model)
    context = ScoringContext(_tensors(task.model), gradients, seed)
    flat = {}
    for group in groups:
        for name in criteria:
            try:
                flat[f"{name}/{group.name}"] = score(CRITERIA[name], context, group)
            except NotApplicable:
                continue
    return flat


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


def fingerprint(*parts: object) -> str:
    """Fingerprint of JSON-able values and of state dicts."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Mapping) and all(isinstance(value, Tensor) for value in part.values()):
            for name, tensor in part.items():
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def _load(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and metadata, if the file is there and was written under the same key."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("key") != key:
            return None
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - no mapping


def _save(path: Path, key: str, tensors: Mapping[str, Tensor], **metadata: object) -> None:
    partial = path.with_suffix(".partial")
    texts = {name: repr(value) for name, value in metadata.items()}
    save_file(
        {name: t.detach().clone().contiguous() for name, t in tensors.items()}, partial, {"key": key, **texts}
    )
    os.replace(partial, path)
