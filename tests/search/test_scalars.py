"""TensorBoard reads what a run wrote: a step per evaluation, also after a resume."""

from __future__ import annotations

from fake_problem import make_problem
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from search.progress import Silent
from search.record import read_evaluations
from search.scalars import FOLDER, Scalars


class Told(Silent):
    def __init__(self, scalars: Scalars) -> None:
        self.evaluated = scalars.evaluated


def read(folder):
    events = EventAccumulator(str(folder / FOLDER))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_every_evaluation_is_a_step_and_a_resumed_run_begins_anew(run_fake, tmp_path) -> None:
    folder = tmp_path / "run"
    space = make_problem().space
    for budget in ("8", "12"):
        folder.mkdir(exist_ok=True)
        with Scalars(folder, "top1", space.macs(space.dense)) as scalars:
            run_fake("run", budget=budget, progress=Told(scalars))
        found, records = read(folder), read_evaluations(folder)
        for rung in (1, 2, 3):
            evaluations = [r.evaluation for r in records if r.evaluation.rung == rung]
            assert [step for step, _ in found[f"rung-{rung}/top1"]] == list(range(len(evaluations)))
            for name, wanted in (("top1", "score"), ("params", "params"), ("seconds", "seconds")):
                written = sorted(value for _, value in found[f"rung-{rung}/{name}"])
                assert written == sorted(map(as_float32, (getattr(e, wanted) for e in evaluations)))
        grown = [value for _, value in found["rung-1/hypervolume"]]
        assert grown == sorted(grown)
        assert grown[-1] > 0
        assert len(list((folder / FOLDER).iterdir())) == 1


def as_float32(value: float) -> float:
    import numpy as np

    return float(np.float32(value))
