"""What the report of a large study costs: ``python scripts/bench_report.py [--trials 5000]``.

Makes a run folder with that many trials on rung 1, as a search writes them, and prints a table: seconds of
``python -m search.report`` in its own process, size of the page, and milliseconds from a move of the slider
to the second picture that the browser draws after it.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from playwright.sync_api import Browser, sync_playwright

from evaluators.evaluation import Evaluation
from search.config import RunConfig
from search.front import Mark, front
from search.journal import open_journal
from search.objectives import MACS
from search.record import Record
from search.result import Dense, Hypervolume, Point, Result, Summary

CRITERIA = ("l1", "taylor", "obs", "fpgm")
WIDTHS = {f"layer{i // 8 + 1}.{i % 8}.conv1": 16 * 2 ** (i // 8) for i in range(24)}
DENSE = Dense(score=0.92, test=0.915, macs=40_000_000, params=270_000, widths=WIDTHS)
MOVES = 20

# Two frames after the event: by the second one, what the first one was told has been drawn.
_MOVE = """value => new Promise(done => {
    const slider = document.getElementById('budget');
    const before = performance.now();
    slider.value = value;
    slider.dispatchEvent(new Event('input'));
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - before)));
})"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--keep", type=Path, help="leave the run in this new folder")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    folder = arguments.keep or scratch / "run"
    try:
        make_run(folder, arguments.trials)
        before = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "search.report", str(folder)], check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - before
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = (folder / "report.html").stat().st_size
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            opening, moves, frame = measure(browser, folder)
            version = browser.version
            browser.close()
    finally:
        shutil.rmtree(scratch)
    ordered = sorted(moves)
    rows = [
        ("trials on rung 1", f"{arguments.trials}"),
        ("`python -m search.report`, Python's start included", f"{seconds:.1f} s"),
        ("its CPU time", f"{usage.ru_utime + usage.ru_stime:.1f} s"),
        ("size of report.html", f"{size / 1e6:.2f} MB"),
        ("opening, until the front is drawn", f"{opening:.0f} ms"),
        (f"slider to card and marks, median of {MOVES}", f"{statistics.median(moves):.0f} ms"),
        (f"slider to card and marks, 95th percentile of {MOVES}", f"{ordered[int(0.95 * MOVES) - 1]:.0f} ms"),
        ("the same two frames without a move, median", f"{frame:.0f} ms"),
    ]
    print("\n".join(["| what | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]))
    print(
        f"\nPython {platform.python_version()}, chromium {version}, {os.cpu_count()} CPU cores, "
        f"load {os.getloadavg()[0]:.1f}."
    )


def measure(browser: Browser, folder: Path) -> tuple[float, list[float], float]:
    """Milliseconds until the page stands, of each move of the slider, and of two frames without a move."""
    page = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
    page.goto((folder / "report.html").resolve().as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    opening = page.evaluate("performance.now()")
    page.locator("#budget").scroll_into_view_if_needed()
    draw = random.Random(0)
    moves = [page.evaluate(_MOVE, draw.randint(25, 90)) for _ in range(MOVES)]
    still = _MOVE.replace("slider.dispatchEvent(new Event('input'));", "")
    return opening, moves, statistics.median(page.evaluate(still, 50) for _ in range(MOVES))


def make_run(folder: Path, trials: int) -> None:
    """A run that stopped at rung 1: its journal, ``front.json`` and ``config.json``."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    records = [_record(i, draw) for i in range(trials)]
    _write_study(folder, records)
    known = {record.evaluation.candidate: record for record in records}
    marks = [Mark(r.evaluation.macs, r.evaluation.score, r.evaluation.candidate) for r in records]
    points = tuple(_point(known[mark.id]) for mark in front(marks))
    result = Result(
        task="synthetic",
        metric="top1",
        dense=DENSE,
        points=points,
        dominated=(),
        controls=tuple(
            replace(_point(draw.choice(records)), origin=f"control: {kind}", control_of=point.id)
            for point in points[:5]
            for kind in ("uniform", "random")
        ),
        hypervolume=Hypervolume(0.6, {"macs": 1.0, "score": 0.0}),
        comparisons=(),
        counts={"rung-1": trials, "rung-2": 0, "rung-3": 0},
        seconds={"rung-1": 1.0 * trials},
    )
    (folder / "front.json").write_text(result.to_json())
    RunConfig(task="synthetic", budget=str(trials), max_rung=1, criteria=CRITERIA).save(folder)
    for point in points:
        saved = folder / "architectures" / point.id
        saved.mkdir(parents=True)
        (saved / "architecture.json").write_text("{}")
        (saved / "weights.safetensors").write_bytes(bytes(4 * point.params))


def _record(i: int, draw: random.Random) -> Record:
    ratios = [draw.uniform(0.2, 1.0) for _ in WIDTHS]
    widths = {
        name: max(1, round(full * ratio)) for (name, full), ratio in zip(WIDTHS.items(), ratios, strict=True)
    }
    share = draw.betavariate(2, 2) * 0.7 + 0.2
    score = 0.92 * share**0.12 - abs(draw.gauss(0, 0.03))
    evaluation = Evaluation(
        candidate=f"{draw.getrandbits(40):010x}",
        rung=1,
        method="refit",
        seed=0,
        score=round(score, 4),
        macs=round(share * DENSE.macs),
        params=round(share * DENSE.params),
        seconds=1.0,
    )
    origin = "seed: random" if i < 50 else "sampler: front"
    return Record(evaluation, origin, widths, dict.fromkeys(WIDTHS, draw.choice(CRITERIA)))


def _write_study(folder: Path, records: list[Record]) -> None:
    """The three studies; all trials in one call, since a journal writes each call at once."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_journal(folder)
    studies = [
        optuna.create_study(study_name=f"rung-{rung}", storage=storage, directions=MACS.directions)
        for rung in (1, 2, 3)
    ]
    distributions = {f"keep:{name}": FloatDistribution(0.05, 1.0) for name in WIDTHS}
    distributions |= {"criterion": CategoricalDistribution(CRITERIA)}
    studies[0].add_trials(
        create_trial(
            state=TrialState.COMPLETE,
            values=[float(record.evaluation.macs), record.evaluation.score],
            params={f"keep:{name}": width / WIDTHS[name] for name, width in record.widths.items()}
            | {"criterion": record.criteria["layer1.0.conv1"]},
            distributions=distributions,
            user_attrs={"record": asdict(record)},
        )
        for record in records
    )


def _point(record: Record) -> Point:
    evaluation = record.evaluation
    summary = Summary(evaluation.score, None, 1)
    return Point(
        id=evaluation.candidate,
        macs=evaluation.macs,
        params=evaluation.params,
        score=evaluation.score,
        rung=1,
        weights="refit",
        scores={"refit": summary},
        test={"refit": replace(summary, mean=evaluation.score - 0.004)},
        saved_test=evaluation.score - 0.004,
        criteria=record.criteria,
        widths=record.widths,
        origin=record.origin,
    )


if __name__ == "__main__":
    main()
