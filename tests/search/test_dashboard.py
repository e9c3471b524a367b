"""``optuna-dashboard runs/x/study.journal`` shows a run's rungs and trials."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from search.journal import JOURNAL
from search.record import read_evaluations


def test_the_dashboard_opens_a_record(run_fake) -> None:
    _, _, folder = run_fake(budget="8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dashboard = Path(sys.executable).with_name("optuna-dashboard")
    process = subprocess.Popen(
        [dashboard, str(folder / JOURNAL), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        studies = asked(process, f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        assert [study["study_name"] for study in studies] == ["rung-1", "rung-2", "rung-3"]
        shown = asked(process, f"http://127.0.0.1:{port}/api/studies/{studies[0]['study_id']}")["trials"]
    finally:
        process.terminate()
        process.wait()
    finished = [trial["values"] for trial in shown if trial["state"] == "Complete"]
    recorded = [r.evaluation for r in read_evaluations(folder) if r.evaluation.rung == 1]
    assert finished
    assert sorted(finished) == sorted([e.macs, e.score] for e in recorded)


def asked(process, address: str):
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            with urllib.request.urlopen(address) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.2)
