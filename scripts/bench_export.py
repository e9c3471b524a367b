"""Are exported files the network? ``python scripts/bench_export.py OUT``; needs ``ESPALIER_DATA``.

Searches digits, ResNet-20 and two networks of torchvision without a final training, takes from each front the
best below 60% of the MACs, writes it in every format, loads each file in a new process, and compares outputs
and test scores. Eight bits are counted once more in this process, with a loop of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import onnxruntime
import torch

from evaluators.export.formats import FORMATS, Network, write_formats
from evaluators.export.verify import verify
from evaluators.precision import at_rest
from search.pick import Limits, pick_point
from search.pick.columns import columns
from search.pick.take import check_saved, open_source
from search.report.data import load_config, load_result
from search.report.words import file_size, share
from spaces import rebuild

ROOT = Path(__file__).parents[1]
IMAGES = "scripts/small_images.py"
COMMON = ["--max-rung", "1", "--criterion", "l1,taylor"]


def searches(data: Path) -> dict[str, list[str]]:
    """Options of ``search.run`` for each network."""
    resnet20 = ["--task", "cifar10", "--model", "resnet20", "--data-root", str(data), "--holdout", "test:0.5"]
    return {
        "digits": ["--task", "digits", "--budget", "12"],
        "resnet20": [*resnet20, "--weights", str(data / "weights/resnet20-12fca82f.th"), "--budget", "12"],
        "resnet18": ["--task", f"{IMAGES}:resnet18", "--budget", "6"],
        "mobilenet_v2": ["--task", f"{IMAGES}:mobilenet_v2", "--budget", "6"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Export four networks in every format and compare.")
    parser.add_argument("out", type=Path, help="folder for the runs; those that are there are used again")
    out = parser.parse_args().out.resolve()
    os.chdir(ROOT)
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {os.cpu_count()} cores\n")
    titles = ["network", "MACs", "file", "write, s", "check, s", "size", "largest difference"]
    titles += ["top-1 reported", "top-1 of file"]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    costs = []
    for name, options in searches(Path(os.environ["ESPALIER_DATA"])).items():
        run = out / name
        if not (run / "front.json").is_file():
            command = [sys.executable, "-m", "search.run", *options, *COMMON, "--out", str(run)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        costs.append(_export(run, name))
    print("\n8 bits, top-1 on test:", "; ".join(costs))


def _export(run: Path, name: str) -> str:
    """A row for each file; what 8 bits cost in words."""
    result, config = load_result(run), load_config(run)
    source = open_source(run, columns(result, run), config, None)
    point = pick_point(result, Limits(max_macs="60%"))
    folder = check_saved(run, point)
    network = Network(at_rest(rebuild(source.task.model, folder)), source.task, folder, source.dense_code)
    cost = ""
    for format_ in FORMATS:
        with tempfile.TemporaryDirectory() as target, tempfile.TemporaryDirectory() as scratch:
            start = time.monotonic()
            jobs = write_formats(network, [format_], Path(target), lambda _: None)
            written = time.monotonic() - start
            for file, job in jobs.items():
                start = time.monotonic()
                part = Path(scratch, file)
                part.mkdir()
                verdict = verify(
                    network.model,
                    source.task,
                    {file: job},
                    reported=point.saved_test,
                    scratch=part,
                    say=lambda _: None,
                )[file]
                print(
                    f"| {name} | {share(point.macs, result.dense.macs)} | {file} | {written:.1f} "
                    f"| {time.monotonic() - start:.1f} | {file_size((Path(target) / file).stat().st_size)} "
                    f"| {verdict.difference:.1g} of {verdict.scale:.3g} | {point.saved_test:.2%} "
                    f"| {verdict.test:.2%} |",
                    flush=True,
                )
                if not job[1]:
                    again = _accuracy(Path(target) / file, source.task)
                    assert abs(again - verdict.test) < 1e-9, (again, verdict.test)
                    cost = f"{name} {100 * (verdict.test - point.saved_test):+.2f}"
    return cost


def _accuracy(path: Path, task: object) -> float:
    """Share of test that an ONNX file has right."""
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    right = [
        session.run(None, {name: images.numpy()})[0].argmax(1) == targets.numpy()
        for images, targets in task.test
    ]
    return float(np.concatenate(right).mean())


if __name__ == "__main__":
    main()
