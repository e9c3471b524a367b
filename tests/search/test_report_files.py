from __future__ import annotations

import csv
import struct
from dataclasses import asdict, replace

import pytest
from made_run import POINTS, make_result, make_run

from search.command import run_command
from search.report import write_report
from search.report.__main__ import report
from search.result import Result, Summary


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "digits")
    write_report(folder)
    return folder


def test_the_csv_holds_the_numbers_of_front_json(run):
    with (run / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    result = Result.load(run)
    finals = (*result.points, *result.dominated, *result.controls)
    assert [row["kind"] for row in rows] == ["front"] * 5 + ["dominated", "uniform", "random"]
    for row, point in zip(rows, finals, strict=True):
        assert (row["id"], int(row["macs"]), int(row["params"])) == (point.id, point.macs, point.params)
        assert (float(row["score"]), float(row["saved_test"])) == (point.score, point.saved_test)
        assert float(row["macs_share"]) == point.macs / result.dense.macs
        assert {name: int(row[f"width:{name}"]) for name in point.widths} == point.widths
        assert {name: row[f"criterion:{name}"] for name in point.criteria} == point.criteria
        for split, summaries in (("holdout", point.scores), ("test", point.test)):
            for method, summary in summaries.items():
                found = {key: float(row[f"{split}_{method}_{key}"]) for key in ("mean", "sd", "n")}
                assert found == asdict(summary)


def test_what_a_point_lacks_is_an_empty_cell(tmp_path):
    lone = replace(
        POINTS[0], scores={"refit": Summary(0.9, None, 1)}, test={}, weights="refit", saved_test=None
    )
    folder = make_run(tmp_path / "run", make_result(points=(lone, *POINTS[1:])), journal=False)
    write_report(folder)
    with (folder / "front.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["holdout_refit_mean"], row["holdout_refit_sd"], row["holdout_refit_n"]) == ("0.9", "", "1")
    assert (row["test_finetune_mean"], row["saved_test"], row["control_of"]) == ("", "", "")


def test_the_picture_is_a_png_of_1280_by_832(run):
    head = (run / "front.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (1280, 832)


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path):
    folder = make_run(tmp_path / "run", make_result(task=r"$\frac{", metric="$x_{"), journal=False)
    write_report(folder)
    assert (folder / "front.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_command_writes_the_files_and_says_where(tmp_path, capsys):
    folder = make_run(tmp_path / "run", journal=False)
    assert run_command(report, "search.report", [str(folder)]) == 0
    files = [folder / name for name in ("front.csv", "front.png", "report.html")]
    assert capsys.readouterr().out.splitlines() == [*map(str, files), str(folder / "tables")]
    assert all(path.stat().st_size for path in files)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (
            lambda run: (run / "front.json").unlink(),
            "holds no front.json; a finished `python -m search.run` writes it.",
        ),
        (lambda run: (run / "front.json").write_text("{"), "front.json can not be read"),
        (lambda run: (run / "front.json").write_text("[]"), "front.json can not be read"),
        (lambda run: (run / "front.json").write_text('{"schema": 9}'), "`schema` must be 1"),
        (lambda run: (run / "config.json").write_text("{"), "config.json can not be read"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json must hold a JSON object."),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused_in_one_line(tmp_path, capsys, spoil, rule):
    folder = make_run(tmp_path / "run", journal=False)
    spoil(folder)
    assert run_command(report, "search.report", [str(folder)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"search.report: {folder}: ")
    assert rule in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
    assert not (folder / "report.html").exists()


def test_a_missing_folder_is_refused(tmp_path, capsys):
    assert run_command(report, "search.report", [str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"search.report: {tmp_path / 'none'}: there is no such folder.\n"
