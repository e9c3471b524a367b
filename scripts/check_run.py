"""Check a finished run folder: ``python scripts/check_run.py RUN``.

Every network of the front is rebuilt from its files in this process, which has trained nothing, and must
give the reported test score exactly and fvcore's MACs; the front must be sorted and non-dominated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from evaluators.flops import count_macs
from evaluators.precision import Precision
from evaluators.scoring import evaluate
from evaluators.task import SealedLoader
from evaluators.tasks import load_task
from search.config import RunConfig
from search.front import Mark, front
from search.result import Result
from search.survey import task_options
from spaces import rebuild


def main() -> None:
    """Print a line per point; exit 1 on the first difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run
    config, result = RunConfig.load(folder), Result.load(folder)
    task = load_task(config.task, task_options(config))
    assert isinstance(task.test, SealedLoader)
    task.test.unseal()
    exact = Precision.from_dict({**config.precision, "dtype": "float32", "channels_last": False})
    exact.apply()
    marks = [
        Mark(p.macs, p.score, p.id, tuple(getattr(p, c) for c in result.objectives[1:]))
        for p in result.points
    ]
    require(front(marks) == sorted(marks) == marks, "front is sorted, none dominated")
    for point in result.points:
        target = folder / "architectures" / point.id
        model = rebuild(task.model, target)
        score, macs = evaluate(model, task, task.test, exact), count_macs(model, task.example_inputs)
        widths = json.loads((target / "architecture.json").read_text())["widths"]
        print(
            f"{point.id}: test {score!r} (reported {point.saved_test!r}), {macs} MACs (reported {point.macs})"
        )
        require(score == point.saved_test, "test score is the reported one")
        require(macs == point.macs, "fvcore counts the reported MACs")
        require(sum(p.numel() for p in model.parameters()) == point.params, "parameters are as reported")
        require(widths == point.widths, "widths are as reported")
    for name in ("report.html", "front.png", "front.csv", "study.journal", "config.json"):
        require((folder / name).stat().st_size > 0, f"{name} is there")
    counts, low = result.counts, result.counts["rung-1"] - result.counts["rung-2"]
    require(3 * low >= counts["rung-1"], "a third of the candidates stays below rung 2")
    finals = [*result.points, *result.dominated]
    print(
        f"{folder}: {len(finals)} finals, {len(result.points)} on the front, evaluations {counts}: all right"
    )


def require(holds: bool, fact: str) -> None:
    """Stop with the fact that does not hold."""
    if not holds:
        raise SystemExit(f"Not so: {fact}.")


if __name__ == "__main__":
    main()
