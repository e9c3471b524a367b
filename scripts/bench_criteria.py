"""Criteria side by side, no training: ``python scripts/bench_criteria.py --data-root DIR --weights FILE``.

Every criterion chooses the units of the same uniform widths; the cut network then gets new BatchNorm
statistics only, or the re-fit from moments, or the quick or the careful re-fit. Prints Markdown: top-1 on
the test half in percent (``--holdout test:0.5``: nothing was chosen on it), and seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from evaluators import Candidate, Ladder, Precision, TaskOptions, evaluate, load_task, prepare, recalibrate
from evaluators.calibration import calibration_batches
from evaluators.criteria import CRITERIA
from evaluators.options import OptionError
from spaces import cut, trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

FORMS = ("recalibrated", "cached", "quick", "careful")


def main() -> None:
    options = _options()
    task = load_task(
        "cifar10",
        TaskOptions(
            model=options.model,
            weights=options.weights,
            data_root=options.data_root,
            holdout="test:0.5",
            seed=options.seed,
        ),
    )
    space = trace(task.model, task.example_inputs, divisor=8, exclude=tuple(options.exclude))
    precision = Precision.detect("cpu", space.macs(space.dense), has_convolutions=True)
    precision.apply()
    print(f"{platform.processor() or platform.machine()}, {precision}, torch {torch.__version__}\n")
    names = options.criteria or list(CRITERIA)
    stages: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(
            task,
            space,
            precision,
            seed=options.seed,
            folder=Path(folder),
            criteria=names,
            on_stage=lambda name: stages.append((name, time.monotonic())),
        )
    stages.append(("", time.monotonic()))
    for (name, start), (_, end) in pairwise(stages):
        print(f"- {name}: {end - start:.1f} s")
    print(f"- dense top-1 on holdout: {100 * prepared.dense_score:.2f}\n")
    ladder = Ladder(task, space, prepared.scores, prepared.refit, precision)
    batches = calibration_batches(task, precision)
    forms: dict[str, Callable[[nn.Module, dict[str, torch.Tensor]], None]] = {
        "recalibrated": lambda model, _: recalibrate(model, batches, precision),
        "cached": prepared.refit.cached,
        "quick": prepared.refit.quick,
        "careful": prepared.refit.thorough,
    }
    task.test.unseal()  # the widths are uniform and every criterion is shown: nothing is chosen on test
    widths = dict.fromkeys((group.name for group in space.groups), 1.0)
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    scoring = []
    shares = {share: space.fit(widths, macs=share) for share in options.shares}
    reached = [f"{space.macs(a) / space.macs(space.dense):.1%}" for a in shares.values()]
    print("| criterion | " + " | ".join(f"{form} {macs}" for macs in reached for form in forms) + " |")
    print("|---|" + "---|" * (len(reached) * len(forms)))
    for name in names:
        row = []
        for architecture in shares.values():
            candidate = Candidate.of(space, architecture, name)
            kept = ladder.kept(candidate)
            for form, mend in forms.items():
                start = time.monotonic()
                model = cut(task.model, space, kept)
                mend(model, kept)
                seconds[form].append(time.monotonic() - start)
                start = time.monotonic()
                score = evaluate(model, task, task.test, precision)
                scoring.append(time.monotonic() - start)
                row.append(f"{100 * score:.1f}")
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)
    print(
        "\n| form | seconds to cut and mend, mean | largest |\n|---|---|---|\n"
        + "\n".join(
            f"| {form} | {fmean(times):.2f} | {max(times[1:]):.2f} |" for form, times in seconds.items()
        )
    )
    per_image = fmean(scoring) / sum(len(targets) for _, targets in task.test)
    print(f"\nScoring takes {2000 * per_image:.2f} s per 2,000 images, the mean over all networks.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--shares", type=lambda t: [float(x) for x in t.split(",")], default=[0.7, 0.5])
    parser.add_argument("--criteria", type=lambda t: t.split(","))
    parser.add_argument("--exclude", action="append", default=None, help="groups that stay whole; conv1")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.exclude = ["conv1"] if options.exclude is None else options.exclude
    return options


if __name__ == "__main__":
    try:
        main()
    except OptionError as error:
        raise SystemExit(f"bench_criteria: {error}") from None
