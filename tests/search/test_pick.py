from __future__ import annotations

from dataclasses import replace

import pytest
from made_run import DENSE, POINTS, make_point, make_result, make_run

from evaluators.options import OptionError
from search.command import run_command
from search.pick import Limits, pick, pick_point, snippet
from search.result import Summary


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", journal=False)


def command(*argv):
    return run_command(pick, "search.pick", [str(word) for word in argv])


# Points are a1 21%, b2 29%, c3 48%, d4 71%, e5 88% of 1 M MACs; parameters are a twentieth of the MACs.


@pytest.mark.parametrize(
    ("limits", "picked"),
    [
        (Limits(), "e5"),
        (Limits(max_macs="50%"), "c3"),
        (Limits(max_macs="29%"), "b2"),
        (Limits(max_macs="28.99%"), "a1"),
        (Limits(max_macs="480000"), "c3"),
        (Limits(max_macs="0.48M"), "c3"),
        (Limits(max_macs="479.9k"), "b2"),
        (Limits(max_macs="1G"), "e5"),
        (Limits(max_params="50%"), "c3"),
        (Limits(max_params="24k"), "c3"),
        (Limits(max_params="23999"), "b2"),
        (Limits(max_macs="80%", max_params="30%"), "b2"),
        (Limits(min_score="0.9582"), "c3"),
        (Limits(min_score="95.82%"), "c3"),
        (Limits(min_score="95.82"), "c3"),
        (Limits(min_score="0.9583"), "d4"),
        (Limits(min_score="0"), "a1"),
        (Limits(min_score="93%", max_macs="80%"), "b2"),
    ],
)
def test_the_best_score_within_the_limits_or_the_fewest_macs_above_a_score(limits, picked):
    assert pick_point(make_result(), limits).id == picked


def test_of_equal_scores_the_one_with_fewer_macs_is_picked():
    twins = make_result(points=(make_point("more", 500_000, 0.95), make_point("less", 400_000, 0.95)))
    assert pick_point(twins, Limits()).id == "less"


def test_controls_and_dominated_finals_are_never_picked_by_a_limit():
    control = make_point("u7", 475_000, 0.99, origin="control: uniform", control_of="c3")
    result = make_result(controls=(control,), dominated=(make_point("f6", 470_000, 0.99),))
    assert pick_point(result, Limits(max_macs="50%")).id == "c3"


def test_a_metric_that_is_no_fraction_is_compared_as_it_is():
    points = tuple(replace(point, score=100 * point.score) for point in POINTS)
    result = make_result(metric="psnr", points=points, dense=replace(DENSE, score=97.0))
    assert pick_point(result, Limits(min_score="95.82")).id == "c3"
    with pytest.raises(
        OptionError, match=r"^--min-top1 98: no network reaches it; the best psnr on holdout is 97\.25"
    ):
        pick_point(result, Limits(min_score="98"))


SHARE = "must be a share of dense like 50%, or a number like 30M, above 0."
FRACTION = "must lie between 0% and 100%, like 93% or 0.93."


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--max-macs", "20%"],
            "--max-macs 20%: no network fits; the smallest has 210000 (21% of the dense one's).",
        ),
        (
            ["--max-params", "9k"],
            "--max-params 9k: no network fits; the smallest has 10500 (21% of the dense one's).",
        ),
        (
            ["--min-top1", "99%"],
            "--min-top1 99%: no network reaches it; the best top-1 on holdout is 97.25%.",
        ),
        (
            ["--min-top1", "0.96", "--max-macs", "50%"],
            "--min-top1 0.96: no network within the other limits reaches it; "
            "the best top-1 on holdout is 95.82%.",
        ),
        (["--max-macs", "half"], f"--max-macs 'half': {SHARE}"),
        (["--max-macs", ""], f"--max-macs '': {SHARE}"),
        (["--max-macs", "0%"], f"--max-macs '0%': {SHARE}"),
        (["--max-params", "-3M"], f"--max-params '-3M': {SHARE}"),
        (["--max-params", "nan"], f"--max-params 'nan': {SHARE}"),
        (["--max-params", "inf"], f"--max-params 'inf': {SHARE}"),
        (["--min-top1", "good"], f"--min-top1 'good': {FRACTION}"),
        (["--min-top1", "-0.1"], f"--min-top1 '-0.1': {FRACTION}"),
        (["--min-top1", "101"], f"--min-top1 '101': {FRACTION}"),
        (["--min-top1", "nan"], f"--min-top1 'nan': {FRACTION}"),
        (["--id", "zz"], "--id 'zz': no such network in this run; the front has a1, b2, c3, d4, e5."),
        (["--id", "a1", "--max-macs", "50%"], "--id a1: takes no limits beside it."),
        (["--export", "onnx"], "--export 'onnx': unknown export; choose one of architecture."),
        (["--to", "there"], "--to there: needs --export architecture beside it."),
    ],
)
def test_bad_input_is_one_line_that_names_option_value_and_rule(run, capsys, argv, message):
    before = sorted(run.parent.rglob("*"))
    assert command(run, *argv) == 2
    assert capsys.readouterr() == ("", f"search.pick: {message}\n")
    assert sorted(run.parent.rglob("*")) == before


def test_a_score_that_the_message_offers_can_be_met():
    """A best score of 0.97249 is offered as 97.24%, not rounded up."""
    result = make_result(points=(make_point("x", 500_000, 0.97249),))
    with pytest.raises(OptionError, match=r"97\.24%"):
        pick_point(result, Limits(min_score="99%"))
    assert pick_point(result, Limits(min_score="97.24%")).id == "x"


def test_a_folder_without_a_front_is_refused(tmp_path, capsys):
    assert command(tmp_path) == 2
    message = "holds no front.json; a finished `python -m search.run` writes it."
    assert capsys.readouterr().err == f"search.pick: {tmp_path}: {message}\n"


def test_an_empty_front_is_refused(tmp_path, capsys):
    folder = make_run(tmp_path / "run", make_result(points=()), journal=False)
    assert command(folder, "--max-macs", "50%") == 2
    assert (
        capsys.readouterr().err
        == f"search.pick: {folder}: its front is empty, so there is nothing to pick.\n"
    )


def test_the_point_is_printed_with_both_splits_of_every_method_and_how_to_rebuild_it(run, capsys):
    assert command(run, "--max-macs", "50%") == 0
    lines = capsys.readouterr().out.splitlines()
    folder = run / "architectures" / "c3"
    assert [" ".join(line.split()) for line in lines] == [
        "network c3 of digits",
        "MACs 480000 (480 k), 48% of dense",
        "parameters 24000 (24 k), 48% of dense",
        "top-1 95.82% on holdout (dense: 97.00%)",
        "94.92% on test, by the saved weights (dense: 96.00%)",
        "Fine-tuned 94.82 ± 0.30% on test (n = 3), 95.82 ± 0.20% on holdout (n = 3), the best",
        "Scratch-E 92.82 ± 0.30% on test (n = 3), 93.82 ± 0.20% on holdout (n = 3)",
        "Scratch-B 93.82 ± 0.30% on test (n = 3), 94.82 ± 0.20% on holdout (n = 3)",
        "criteria taylor x 1, l1 x 1",
        f"files {folder}",
        "",
        "from evaluators.tasks import TaskOptions, load_task",
        "from spaces import rebuild",
        "dense = load_task('digits', TaskOptions()).model",
        f"model = rebuild(dense, '{folder}')",
    ]


def test_the_snippet_makes_the_dense_network_as_the_run_did(tmp_path):
    config = {"task": "cifar10", "model": "resnet20", "data_root": "/data"}
    lines = snippet(config, tmp_path).splitlines()
    assert lines[0] == "from pathlib import Path"
    assert (
        lines[3]
        == "dense = load_task('cifar10', TaskOptions(model='resnet20', data_root=Path('/data'))).model"
    )


def test_a_control_can_be_looked_at_by_its_id_though_it_is_not_saved(run, capsys):
    assert command(run, "--id", "u7") == 0
    said = capsys.readouterr().out
    assert "not saved; only the networks of the front are" in said
    assert "rebuild" not in said


def test_a_point_of_the_front_that_is_its_own_control_is_shown_as_the_point(tmp_path, capsys):
    control = replace(POINTS[2], origin="control: uniform", control_of="c3", score=0.5)
    folder = make_run(tmp_path / "run", make_result(controls=(control,)), journal=False)
    assert command(folder, "--id", "c3") == 0
    assert "95.82% on holdout (dense" in capsys.readouterr().out


def test_text_of_the_folder_can_not_steer_the_terminal(tmp_path, capsys):
    evil = replace(POINTS[0], criteria={"stem": "l1\x1b[2J"}, test={"finetune": Summary(0.9, None, 1)})
    assert command(make_run(tmp_path / "run", make_result(points=(evil,), task="a\rb"), journal=False)) == 0
    said = capsys.readouterr().out
    assert "a?b" in said
    assert "l1?[2J" in said


def test_export_copies_the_files_byte_for_byte_beside_the_run(run, capsys):
    assert command(run, "--max-macs", "50%", "--export", "architecture") == 0
    target = run.parent / "run-c3"
    assert sorted(path.name for path in target.iterdir()) == ["architecture.json", "weights.safetensors"]
    for path in target.iterdir():
        assert path.read_bytes() == (run / "architectures" / "c3" / path.name).read_bytes()
    said = capsys.readouterr().out
    assert said.startswith(f"wrote architecture.json and weights.safetensors to {target}\n")
    assert f"rebuild(dense, '{target}')" in said


def test_export_goes_where_it_is_told_and_leaves_nothing_else(run, tmp_path):
    assert command(run, "--id", "a1", "--export", "architecture", "--to", tmp_path / "new" / "small") == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["small"]


def test_export_refuses_a_folder_that_is_there(run, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    assert command(run, "--id", "a1", "--export", "architecture", "--to", tmp_path / "taken") == 2
    message = f"--to {tmp_path / 'taken'}: is there already; name a new folder."
    assert capsys.readouterr() == ("", f"search.pick: {message}\n")
    assert not list((tmp_path / "taken").iterdir())


def test_export_into_something_that_is_no_folder_is_refused(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "small"
    assert command(run, "--id", "a1", "--export", "architecture", "--to", target) == 2
    assert capsys.readouterr().err.startswith(f"search.pick: --to {target}: can not be written: ")


def test_export_of_a_network_that_was_not_saved_is_refused(run, capsys):
    assert command(run, "--id", "u7", "--export", "architecture") == 2
    source = run / "architectures" / "u7"
    message = f"{source}: holds no architecture.json; this network was not saved."
    assert capsys.readouterr() == ("", f"search.pick: {message}\n")
    assert not (run.parent / "run-u7").exists()


def test_the_options_are_these():
    names = {option for parameter in pick.params for option in parameter.opts}
    assert names == {"run", "--max-macs", "--max-params", "--min-top1", "--id", "--export", "--to"}


def test_the_command_shows_its_help(capsys):
    assert command("--help") == 0
    assert capsys.readouterr().out.startswith("Usage: python -m search.pick [OPTIONS] RUN")
