"""Does the training-free score rank networks as training does? ``python scripts/bench_correlation.py``.

Random architectures, each with a criterion drawn at random, are scored after BatchNorm recalibration alone,
after the quick re-fit of rung 1 and after the careful one, then fine-tuned; Kendall's tau of each score with
the score after fine-tuning, all on holdout. Results go to a file line by line; a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from evaluators import (
    Candidate,
    Ladder,
    Precision,
    TaskOptions,
    evaluate,
    load_task,
    prepare,
    recalibrate,
    train,
)
from evaluators.calibration import calibration_batches
from evaluators.criteria import CRITERIA
from evaluators.options import OptionError
from search.correlation import rank_correlation
from search.seeds import seeded_generator
from spaces import cut, trace

FORMS = ("recalibrated", "refit", "careful")


def main() -> None:
    options = _options()
    task = load_task(
        "cifar10",
        TaskOptions(
            model=options.model,
            weights=options.weights,
            data_root=options.data_root,
            holdout="test:0.5",
        ),
    )
    space = trace(task.model, task.example_inputs, divisor=8, smallest=0.2)
    precision = Precision.detect(None, space.macs(space.dense), has_convolutions=True)
    precision.apply()
    names = [name for name in CRITERIA if name not in ("random", "learned")]
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(task, space, precision, seed=0, folder=Path(folder), criteria=names)
    ladder = Ladder(task, space, prepared.scores, prepared.refit, precision)
    batches = calibration_batches(task, precision)
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for number in range(len(done), options.num):
        share = float(np.linspace(*options.macs, options.num)[number])
        architecture = space.sample(seeded_generator(number, 6), macs=share)
        criterion = names[int(torch.randint(len(names), (), generator=seeded_generator(number, 7)))]
        kept = ladder.kept(Candidate.of(space, architecture, criterion))
        scores = {}
        for form in FORMS:
            model = cut(task.model, space, kept)
            if form == "recalibrated":
                recalibrate(model, batches, precision)
            else:
                (prepared.refit.quick if form == "refit" else prepared.refit.thorough)(model, kept)
            scores[form] = evaluate(model, task, task.holdout, precision)
        start = time.monotonic()
        train(model, task, epochs=options.epochs, lr=task.recipe.finetune_lr, seed=0, precision=precision)
        seconds = time.monotonic() - start
        scores["finetuned"] = evaluate(model, task, task.holdout, precision)
        record = {"macs": space.macs(architecture) / space.macs(space.dense), "criterion": criterion}
        done.append(record | scores | {"seconds": seconds})
        with options.out.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
    print(
        f"\n| score | Kendall's tau with {options.epochs:g} fine-tuned epochs | 95% interval |\n|---|---|---|"
    )
    for form in ("macs", *FORMS):
        found = rank_correlation([r[form] for r in done], [r["finetuned"] for r in done], seed=0)
        print(f"| {form} | {found.tau:.3f} | {found.low:.2f} to {found.high:.2f} (n = {found.n}) |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--num", type=int, default=18, help="architectures")
    parser.add_argument("--macs", type=lambda t: [float(x) for x in t.split(":")], default=[0.85, 0.35])
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("runs/correlation.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    try:
        main()
    except OptionError as error:
        raise SystemExit(f"bench_correlation: {error}") from None
