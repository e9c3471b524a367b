"""The report of a run that goes on: provisional first, written when something was added, final at the end."""

from __future__ import annotations

import re

import optuna
import pytest
from made_run import make_result, make_run

from search.command import run_command
from search.journal import JOURNAL, open_journal
from search.report.__main__ import report
from search.report.watch import watch
from search.result import Hypervolume


class Driver:
    """Stands for the run: each time somebody waits, the next thing happens to the folder."""

    def __init__(self, *events):
        self.events, self.waited = list(events), []

    def __call__(self, seconds):
        self.waited.append(seconds)
        self.events.pop(0)()


def refresh(folder):
    found = re.findall(r'http-equiv="refresh" content="([^"]*)"', (folder / "report.html").read_text())
    return list(map(float, found))


def test_each_step_is_written_until_the_run_is_finished(run_fake):
    _, _, folder = run_fake(budget="12")
    whole, front = (folder / JOURNAL).read_bytes(), (folder / "front.json").read_text()
    lines = whole.splitlines(keepends=True)
    front_file, page = folder / "front.json", folder / "report.html"
    front_file.unlink()
    page.unlink()
    (folder / JOURNAL).write_bytes(b"".join(lines[:4]))
    said, pages = [], []

    def half():
        assert not page.exists()
        (folder / JOURNAL).write_bytes(b"".join(lines[: len(lines) // 2]) + b'{"op_code":8,"wor')

    def nothing():
        assert "Provisional" in page.read_text()
        assert refresh(folder) == [3.0]
        pages.append(page.stat().st_mtime_ns)

    def end():
        assert page.stat().st_mtime_ns == pages[0]
        (folder / JOURNAL).write_bytes(whole)
        front_file.write_text(front)

    driver = Driver(half, nothing, end)
    watch(folder, 3.0, said.append, wait=driver)
    assert driver.waited == [3.0] * 3
    assert [line.partition("  ")[2].partition(" ")[0] for line in said] == ["nothing", "rung-1", "rung-1"]
    assert said[-1].endswith("finished")
    assert "hypervolume" in said[-1]
    assert refresh(folder) == []
    assert "Provisional" not in page.read_text()


def test_a_small_hypervolume_is_told_with_its_digits(tmp_path):
    result = make_result(hypervolume=Hypervolume(2.13449e-4, {"macs": 1.0, "score": 0.0}))
    said = []
    watch(make_run(tmp_path / "run", result), 1.0, said.append)
    assert "  hypervolume 0.0002134 on rung 3  " in said[-1]


def interrupt():
    raise KeyboardInterrupt


def without_front(folder):
    (folder / "front.json").unlink()
    optuna.delete_study(study_name="rung-3", storage=open_journal(folder))
    return folder


def test_ctrl_c_ends_it_and_the_page_no_longer_loads_itself(run_fake):
    _, _, folder = run_fake(budget="12")
    without_front(folder)
    said = []
    watch(folder, 5.0, said.append, wait=Driver(interrupt))
    assert len(said) == 1
    assert refresh(folder) == []
    assert "Provisional" in (folder / "report.html").read_text()


def test_the_command_reports_a_run_that_goes_on_and_watches_one_to_its_end(run_fake, capsys):
    _, _, folder = run_fake(budget="12")
    assert run_command(report, "search.report", [str(folder), "--watch", "--every", "1s"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("finished")
    without_front(folder)
    assert run_command(report, "search.report", [str(folder), "--figures"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "figures")
    figures = sorted(path.name for path in (folder / "figures").iterdir())
    assert {"hypervolume-over-time.png", "hypervolume-over-time.svg"} <= set(figures)
    assert (folder / "tables" / "origins.csv").read_text().startswith("origin,evaluations,")


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--every", "30s"], "--every 30s: goes with --watch."),
        (["--watch", "--every", "soon"], "--every soon: give a time such as 90s, 30m or 2h."),
        (["--watch", "--every", "0.5s"], "--every 0.5s: must be at least 1s."),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, arguments, rule):
    folder = make_run(tmp_path / "run", journal=False)
    assert run_command(report, "search.report", [str(folder), *arguments]) == 2
    said = capsys.readouterr()
    assert rule in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_run_is_not_watched(tmp_path, capsys):
    assert run_command(report, "search.report", [str(tmp_path / "none"), "--watch"]) == 2
    assert "there is no such folder." in capsys.readouterr().err
