from __future__ import annotations

from dataclasses import replace

import pytest
from made_run import POINTS, make_point, make_result, make_run

from evaluators.options import OptionError
from search.command import run_command
from search.latencies import Measurement, write_latencies
from search.pick import Limits, pick_point
from search.pick.__main__ import pick
from search.pick.choose import knee
from search.pick.columns import columns
from search.pick.describe import snippet
from search.result import Summary


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", journal=False)


def command(*argv):
    return run_command(pick, "search.pick", [str(word) for word in argv])


def picked_from(result, limits):
    return pick_point(result, limits).id


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
        (Limits(where=("macs<=50%",)), "c3"),
        (Limits(where=("macs_share <= 50%", "params>15k")), "c3"),
        (Limits(where=("score>=95%",), best="macs"), "c3"),
        (Limits(best="score"), "e5"),
        (Limits(best="params"), "a1"),
        (Limits(best="test_scratch_b_mean", max_macs="50%"), "c3"),
        (Limits(where=("id=b2",)), "b2"),
        (Limits(where=("id!=e5", "weights==finetune")), "d4"),
        (Limits(knee=True), "c3"),
        (Limits(knee=True, max_macs="50%"), "b2"),
    ],
)
def test_the_best_score_within_the_limits_or_the_fewest_macs_above_a_score(limits, picked):
    assert picked_from(make_result(), limits) == picked


def test_of_equal_scores_the_one_with_fewer_macs_is_picked():
    twins = make_result(points=(make_point("more", 500_000, 0.95), make_point("less", 400_000, 0.95)))
    assert picked_from(twins, Limits()) == "less"


def test_controls_and_dominated_finals_are_never_picked_by_a_limit():
    control = make_point("u7", 475_000, 0.99, origin="control: uniform", control_of="c3")
    result = make_result(controls=(control,), dominated=(make_point("f6", 470_000, 0.99),))
    assert picked_from(result, Limits(max_macs="50%")) == "c3"


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
        (["--id", "a1", "--knee"], "--id a1: takes no limits beside it."),
        (["--export", "onx"], "--export 'onx': unknown export; did you mean onnx?"),
        (["--to", "there"], "--to there: needs --export architecture or another format beside it."),
        (
            ["--data-root", "there"],
            "--data-root there: needs --export architecture or another format beside it.",
        ),
        (
            ["--min-score", "99"],
            "--min-score 99: no network reaches it; the best top-1 on holdout is 97.25%.",
        ),
        (
            ["--min-score", "9", "--min-top1", "9"],
            "--min-top1 9: is the same as --min-score; give one of them.",
        ),
        (["--max-size", "1"], "--max-size 1: no network fits; the smallest has 200 bytes."),
        (["--max-size", "1mm"], "--max-size '1mm': must be a size on disk like 1MB, 500kB or 2MiB, above 0."),
        (
            ["--max-latency-ms", "3"],
            "--max-latency-ms 3: nothing was measured on this front; `python -m search.latency RUN` does so.",
        ),
        (["--where", "macs"], "--where 'macs': must be COLUMN<=VALUE, with <=, >=, <, >, = or !=."),
        (
            ["--where", "latency<3"],
            "--where 'latency<3': no column 'latency'; did you mean kind or id or macs or params?",
        ),
        (
            ["--where", "param<3"],
            "--where 'param<3': no column 'param'; did you mean params or params_share?",
        ),
        (["--where", "macs<few"], "--where 'macs<few': macs is a number; 'few' is none."),
        (
            ["--where", "weights<=finetune"],
            "--where 'weights<=finetune': weights is a text, which can be compared by = and != only.",
        ),
        (
            ["--where", "macs<20%"],
            "--where 'macs<20%': no network meets it; macs goes from 210000 to 880000.",
        ),
        (["--to", "", "--export", "pt2"], "Invalid value for '--to': '' names no file or folder."),
        (
            ["--data-root", "", "--export", "pt2"],
            "Invalid value for '--data-root': '' names no file or folder.",
        ),
        (["--best", "weights"], "--best 'weights': has no numbers to choose by."),
        (["--best", "size"], "--best 'size': no column 'size'; did you mean size_bytes?"),
        (["--best", "macs", "--knee"], "--best 'macs': takes no --knee beside it."),
        (
            ["--knee", "--max-macs", "30%"],
            "--knee: needs at least three networks to choose among, found 2.",
        ),
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
        picked_from(result, Limits(min_score="99%"))
    assert picked_from(result, Limits(min_score="97.24%")) == "x"


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


def test_the_point_is_printed_with_both_splits_of_every_method_and_what_comes_next(run, capsys):
    measured("c3", 1.234, 0.6).write(run)
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
        "latency 1.23 ms (quartiles 0.1 ms apart), 60% of dense (eager, cpu, 2 threads, batch 1; a CPU)",
        "criteria taylor x 1, l1 x 1",
        f"files {folder} (200 B of weights)",
        "",
        "from evaluators.tasks import TaskOptions, load_task",
        "from spaces import rebuild",
        "dense = load_task('digits', TaskOptions()).model",
        f"model = rebuild(dense, '{folder}')",
        "",
        "take it away:",
        f"python -m search.pick {run} --id c3 --export architecture "
        "# weights to train on, and a loader in plain PyTorch",
        f"python -m search.pick {run} --id c3 --export onnx,pt2,int8 "
        "# for ONNX Runtime, for torch.export, in 8 bits",
    ]


class measured:  # noqa: N801
    """A latency on record."""

    def __init__(self, id_, median_ms, ratio, *, backend="eager", machine="a CPU"):
        self.row = Measurement(id_, backend, "cpu", 2, 1, median_ms, 0.1, ratio, 50, machine)

    def write(self, run):
        write_latencies(run, [self.row])


def test_measured_latencies_are_limits_and_columns(run, capsys):
    for id_, ms, ratio in (("b2", 1.0, 0.5), ("c3", 0.8, 0.4), ("d4", 1.5, 0.75)):
        measured(id_, ms, ratio).write(run)
    known = columns(make_result(), run)
    assert pick_point(known.result, Limits(max_latency_ms="1.4"), known).id == "c3"
    assert pick_point(known.result, Limits(max_latency_ms="75%"), known).id == "d4"
    assert pick_point(known.result, Limits(best="latency_ms"), known).id == "c3"
    assert pick_point(known.result, Limits(where=("latency_ms<1.2", "macs<40%")), known).id == "b2"
    assert pick_point(known.result, Limits(where=("latency_ratio > 45%",)), known).id == "d4"
    assert (
        pick_point(known.result, Limits(where=("latency_ratio:eager:cpu:2-threads:batch-1>45%",)), known).id
        == "d4"
    )
    with pytest.raises(
        OptionError, match=r"^--max-latency-ms 0.5: no network fits; the fastest takes 0.8 ms"
    ):
        pick_point(known.result, Limits(max_latency_ms="0.5"), known)
    with pytest.raises(OptionError, match="must be milliseconds like 3, or 50% of dense, above 0"):
        pick_point(known.result, Limits(max_latency_ms="-1%"), known)
    measured("e5", 0.3, 0.2, backend="onnxruntime").write(run)
    assert command(run, "--max-latency-ms", "1") == 2
    assert "name one with --where 'latency_ms:eager:cpu:2-threads:batch-1<=1'" in capsys.readouterr().err
    assert command(run, "--where", "latency_ms:eager:cpu:2-threads:batch-1<=1") == 0
    assert capsys.readouterr().out.split()[:2] == ["network", "c3"]


def test_latency_as_an_objective_is_a_limit_too():
    known = columns(make_result())
    cells = {
        point.id: {**known.cells[point.id], "latency_ms": ms, "latency_ratio": ms / 4}
        for point, ms in zip(POINTS, (1.0, 2.0, 1.5, 2.5, 3.5), strict=True)
    }
    known = replace(known, cells=cells)
    assert pick_point(known.result, Limits(max_latency_ms="2.2"), known).id == "c3"
    assert pick_point(known.result, Limits(max_latency_ms="70%"), known).id == "d4"
    assert pick_point(known.result, Limits(min_score="95%", best="latency_ms"), known).id == "c3"


def test_the_machine_is_named_where_there_are_several(run):
    measured("b2", 1.0, 0.5).write(run)
    measured("b2", 2.0, 0.5, machine="another one").write(run)
    assert columns(make_result(), run).latency_setups == [
        "eager:cpu:2-threads:batch-1:a-CPU",
        "eager:cpu:2-threads:batch-1:another-one",
    ]


@pytest.mark.parametrize(("size", "picked"), [("200", "e5"), ("0.2kB", "e5"), ("1 KiB", "e5"), ("1GB", "e5")])
def test_sizes_on_disk(run, size, picked):
    assert pick_point(make_result(), Limits(max_size=size), columns(make_result(), run)).id == picked


def test_the_knee_is_farthest_from_the_line_between_the_ends():
    """On a line with one point above and one below it."""
    scores = {"a": (100, 0.5), "b": (200, 0.62), "c": (300, 0.68), "d": (500, 0.9)}
    points = [make_point(id_, macs, score) for id_, (macs, score) in scores.items()]
    assert knee(points).id == "b"
    assert knee(points[::-1]).id == "b"


def test_another_metric_has_no_top1(tmp_path, capsys):
    folder = make_run(tmp_path / "run", make_result(metric="psnr"), journal=False)
    assert command(folder, "--min-top1", "0.9") == 2
    assert (
        capsys.readouterr().err
        == "search.pick: --min-top1 0.9: this run's metric is psnr; use --min-score.\n"
    )
    assert command(folder, "--min-score", "0.96") == 0
    assert "psnr" in capsys.readouterr().out


def test_several_networks_by_id(run, capsys):
    assert command(run, "--id", "a1", "--id", "u7", "--id", "a1") == 0
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if line.startswith("network")] == ["a1", "u7"]


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


def test_export_refuses_a_folder_that_is_there(run, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    assert command(run, "--id", "a1", "--export", "architecture", "--to", tmp_path / "taken") == 2
    message = f"--to {tmp_path / 'taken'}: is there already; name a new folder."
    assert capsys.readouterr() == ("", f"search.pick: {message}\n")
    assert not list((tmp_path / "taken").iterdir())


def test_export_of_a_network_that_was_not_saved_is_refused(run, capsys):
    assert command(run, "--id", "u7", "--export", "architecture") == 2
    source = run / "architectures" / "u7"
    message = f"{source}: holds no architecture.json; this network was not saved."
    assert capsys.readouterr() == ("", f"search.pick: {message}\n")
    assert not (run.parent / "run-u7").exists()


def test_the_options_are_these():
    names = {option for parameter in pick.params for option in parameter.opts}
    limits = {"--max-macs", "--max-params", "--max-latency-ms", "--max-size", "--min-score", "--min-top1"}
    assert names == {"run", "--where", "--best", "--knee", "--id", "--export", "--to", "--data-root", *limits}


def test_the_help_fits_a_screen_and_shows_examples(capsys):
    assert command("--help") == 0
    said = capsys.readouterr().out
    assert said.startswith("Usage: python -m search.pick [OPTIONS] RUN")
    assert "python -m search.pick runs/digits --max-macs 50%\n" in said
    assert len(said.splitlines()) <= 40


def test_choosing_on_test_is_warned_of(run, capsys):
    assert command(run, "--best", "saved_test") == 0
    assert "chosen on test" in capsys.readouterr().err
    assert command(run, "--best", "score") == 0
    assert not capsys.readouterr().err
