"""``python -m search.run`` on a small real task: flags, messages, exit codes, and what is written when."""

from __future__ import annotations

import importlib.metadata
import json
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from search.command import run_command
from search.config import DERIVED, RunConfig, option_name
from search.report.data import load_run
from search.result import Result
from search.run import run
from spaces import rebuild

TASK = '''
import torch
from torch import nn

from evaluators.task import Recipe, Task, TensorLoader


def network():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        )


def stripes():
    """Horizontal or vertical stripes."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(96) % 2
    bars = (torch.arange(6) % 2).float().expand(96, 1, 6, 6)
    inputs = torch.where(targets[:, None, None, None] == 0, bars, bars.mT)
    inputs = inputs + 0.3 * torch.randn(inputs.shape, generator=generator)
    part = lambda a, b, **options: TensorLoader(inputs[a:b], targets[a:b], 16, **options)
    return Task(
        name="stripes", model=network(), example_inputs=inputs[:1], train=part(0, 48, shuffle=True),
        holdout=part(48, 72), test=part(72, 96), pretrained=False, divisor=1, calibration=part(0, 48),
        recipe=Recipe(epochs=3, finetune_epochs=1, brief_epochs=1, lr=0.1, finetune_lr=0.05, batch_size=16),
    )
'''


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("stripes.py").write_text(TASK)

    def call(*arguments: str, task: str = "stripes.py:stripes") -> tuple[int, str, str]:
        threads = torch.get_num_threads()
        try:
            code = run_command(run, "search.run", ["--task", task, *arguments])
        finally:
            torch.set_num_threads(threads)
        return code, *capsys.readouterr()

    return call


def test_the_flags_are_these() -> None:
    flags = {name for parameter in run.params for name in parameter.opts}
    assert flags == {
        "--task",
        "--model",
        "--statistics-memory",
        "--weights",
        "--data-root",
        "--holdout",
        "--out",
        "--budget",
        "--max-rung",
        "--macs",
        "--divisor",
        "--smallest",
        "--include",
        "--exclude",
        "--ignore",
        "--divisor-of",
        "--smallest-of",
        "--criterion",
        "--criterion-per-group",
        "--sampler",
        "--final",
        "--final-seeds",
        "--seed",
        "--device",
        "--epochs",
        "--lr",
        "--batch-size",
        "--objectives",
        "--latency",
        "--latency-batch",
        "--latency-threads",
        "--executor",
        "--address",
        "--resources",
        "--workers",
        "--storage-path",
        "--timeout",
        "--retries",
        "--logger",
        "--storage",
        "--resume",
        "--dry-run",
    }


def test_every_setting_is_an_option_and_has_its_default() -> None:
    options = {parameter.name: parameter.default for parameter in run.params}
    settings = {name: value for name, value in vars_of(RunConfig()).items() if name not in DERIVED}
    assert set(options) - set(settings) == {"out", "resume", "dry_run"}
    assert set(settings) <= set(options)
    for name in (
        "task",
        "budget",
        "max_rung",
        "macs",
        "smallest",
        "sampler",
        "final",
        "seed",
        "data_root",
    ):
        assert options[name] == settings[name]


def vars_of(config: RunConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in RunConfig.__dataclass_fields__}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "fornt"], "--sampler 'fornt': unknown sampler; did you mean front?"),
        (["--criterion", "l1,tailor"], "--criterion 'tailor': unknown criterion; did you mean taylor"),
        (["--budget", "0"], "--budget 0: must be more than zero."),
        (["--budget", "-4"], "--budget -4: must be more than zero."),
        (["--budget", "lots"], "--budget lots: give a whole number of candidates, or a time"),
        (["--budget", "8gpuh"], "--budget 8gpuh: GPU hours need --executor ray"),
        (
            ["--macs", "0.001%:0.01%"],
            "--macs 0.001%:0.01%: no architecture has so many multiply-adds; this model can",
        ),
        (["--macs", "90%:20%"], "--macs 90%:20%: the lower end must not be above the upper end."),
        (["--out", ""], "'--out': '' names no file or folder."),
        (["--data-root", ""], "'--data-root': '' names no file or folder."),
        (["--weights", ""], "'--weights': '' names no file or folder."),
        (["--executor", "ray", "--storage-path", ""], "'--storage-path': '' names no file or folder."),
        (["--final", "0"], "--final 0: must be at least 1."),
        (["--final-seeds", "0"], "--final-seeds 0: must be at least 1."),
        (["--max-rung", "4"], "--max-rung 4: must be 1, 2 or 3."),
        (["--max-rung", "0"], "--max-rung 0: must be at least 1."),
        (["--divisor", "0"], "--divisor 0: must be at least 1."),
        (["--smallest", "1.2"], "--smallest 1.2: must be between 0 and 1."),
        (["--divisor-of", "0=half"], "--divisor-of '0=half': must be PATTERN=N with a whole number"),
        (["--smallest-of", "0=2"], "--smallest-of '0=2': must be PATTERN=SHARE with a share between 0 and 1"),
        (["--include", "zero"], "--include 'zero': fits no group of the model; try "),
        (["--exclude", "layer9.*"], "--exclude 'layer9.*': fits no group of the model; try "),
        (["--ignore", "head9"], "--ignore 'head9': fits no module of the model; try "),
        (["--divisor-of", "nothing=4"], "--divisor-of 'nothing': fits no group of the model; try "),
        (["--smallest-of", "nothing=0.5"], "--smallest-of 'nothing': fits no group of the model; try "),
        (["--ignore", "*"], "--ignore *: leaves no group that could be pruned."),
        (["--seed", "-1"], "--seed -1: must be at least 0."),
        (["--epochs", "0"], "--epochs 0.0: must be a positive number."),
        (["--lr", "-1"], "--lr -1.0: must be a positive number."),
        (["--lr", "fast"], "'--lr': 'fast' is not a valid float."),
        (["--device", "abacus"], "--device 'abacus': must be cpu, cuda or cuda:N."),
        (["--exclude", "*"], "--exclude *: leaves no group that could be pruned."),
        (["--divisor", "64"], "nothing in it can be pruned"),
        (["--buget", "3"], "No such option '--buget'"),
        (["--resume"], "--resume runs/stripes: there is no run in this folder; start one without --resume."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_with_exit_code_2_and_nothing_is_written(
    call, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("search.run: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("stripes.py", "__pycache__")] == []


def test_an_unknown_task_offers_the_nearest_names(call) -> None:
    code, _, err = call(task="digts")
    assert (code, err) == (2, "search.run: --task 'digts': unknown task; did you mean digits?\n")


def test_a_folder_that_can_not_be_made_is_refused(call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call("--out", "file/run")
    assert code == 2
    assert err.startswith("search.run: --out file/run: can not be made")


def test_a_dry_run_says_what_was_found_and_how_long_and_writes_nothing(call, tmp_path: Path) -> None:
    code, out, _ = call("--dry-run", "--budget", "12")
    assert code == 0
    assert "2 groups" in out
    assert "MACs can go down to" in out
    assert "dense network: trained first, about" in out
    assert "rung 1: 12 evaluations, about" in out
    assert "rung 3: up to 36 final trainings" in out
    assert "in all about" in out
    assert not (tmp_path / "runs").exists()


def test_a_run_writes_its_folder_and_can_be_shown_extended_and_refused(call, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "stripes"
    settings = ("--budget", "6", "--final", "2", "--criterion", "l1,l2", "--device", "cpu")
    code, out, err = call(*settings)
    assert (code, err) == (0, "")
    assert "dense network: " in out
    assert f"report: {Path('runs/stripes/report.html')}" in out
    assert (
        out.count("null result") + out.count("Yes: the search") + out.count("Not known") + out.count("worse")
        == 4
    )
    result = Result.load(folder)
    assert result.counts["rung-1"] == 6
    assert set(result.seconds) >= {
        "dense",
        "prepare",
        "rung-1",
        "rung-2",
        "finals",
        "test",
        "report",
        "other",
    }
    _check_networks(folder, result)
    config = json.loads((folder / "config.json").read_text())
    assert (config["divisor"], config["criteria"], config["precision"]["device"]) == (1, ["l1", "l2"], "cpu")
    assert config["versions"]["torch"] == importlib.metadata.version("torch")
    assert load_run(folder).result == result
    _check_again(call, folder, settings)
    _check_shrinking(call, folder)
    _check_extension(call, folder)


def _check_networks(folder: Path, result: Result) -> None:
    """Every point can be made again from its files, by a module that never saw the run."""
    namespace: dict[str, object] = {}
    exec(TASK, namespace)
    task = namespace["stripes"]()
    task.test.unseal()
    for point in result.points:
        model = rebuild(namespace["network"], folder / "architectures" / point.id)
        assert isinstance(model, nn.Sequential)
        assert sum(p.numel() for p in model.parameters()) == point.params
        with torch.no_grad():
            hits = torch.cat([model.eval()(x).argmax(1) == y for x, y in task.test])
        assert hits.float().mean().item() == pytest.approx(point.saved_test)


def _check_again(call, folder: Path, settings: tuple[str, ...]) -> None:
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, out, _ = call("--resume", *settings)
    assert code == 0
    assert "is finished; a larger --budget extends it." in out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written
    code, _, err = call(*settings)
    assert code == 2
    assert err.startswith("search.run: --out runs/stripes: exists already; continue with --resume")
    code, _, err = call("--resume", "--seed", "1", "--criterion", "l1", "--budget", "12")
    assert code == 2
    assert "--seed was 0, is 1" in err
    assert "--criterion was l1,l2, is l1" in err
    assert "budget was" not in err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written


def _check_shrinking(call, folder: Path) -> None:
    for option, value in (("--budget", "5"), ("--final", "1")):
        code, _, err = call("--resume", option, value)
        assert code == 2
        assert err.startswith(f"search.run: {option} {value}: the run has ")
    assert json.loads((folder / "config.json").read_text())["budget"] == "6"


def _check_extension(call, folder: Path) -> None:
    code, _, err = call("--resume", "--budget", "9")
    assert (code, err) == (0, "")
    assert Result.load(folder).counts["rung-1"] == 9
    assert json.loads((folder / "config.json").read_text())["budget"] == "9"


def test_resuming_a_folder_that_is_no_run_is_refused(call, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    code, _, err = call("--resume", "--out", "other")
    assert (code, err) == (
        2,
        "search.run: --resume other: there is no run in this folder; start one without --resume.\n",
    )


@pytest.fixture
def handlers():
    """A process that was stopped hears nothing more until it ends; this one goes on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_to_continue_and_leaves_a_resumable_run(
    call, tmp_path: Path, monkeypatch, handlers, number: signal.Signals
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(number)
        finally:
            for other in handlers:
                signal.raise_signal(other)

    with monkeypatch.context() as patch:
        patch.setattr("search.schedule.Schedule.next", interrupted)
        code, _, err = call("--budget", "3", "--max-rung", "1")
    assert code == 1
    assert err == "search.run: stopped; continue with: python -m search.run --resume --out runs/stripes\n"
    code, _, err = call("--resume")
    assert (code, err) == (0, "")
    assert Result.load(tmp_path / "runs" / "stripes").counts["rung-1"] == 3


def test_what_nothing_came_through_is_one_line_and_tried_again_once_it_is_mended(
    call, tmp_path: Path, monkeypatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError("first line\n\x1b[31msecond line")

    settings = ("--budget", "6", "--max-rung", "2", "--out", "a b")
    with monkeypatch.context() as patch:
        patch.setattr("evaluators.ladder.train", broken)
        code, _, err = call(*settings)
    assert (code, err) == (
        1,
        "search.run: no candidate came to the end of rung 2: 2 failed, "
        "the last with ArithmeticError: first line; "
        "see a b/run.log; continue with: python -m search.run --resume --out 'a b'\n",
    )
    assert "in broken" in (tmp_path / "a b" / "run.log").read_text()
    code, _, err = call("--resume", "--out", "a b")
    assert (code, err) == (0, "")
    assert {point.rung for point in Result.load(tmp_path / "a b").points} == {2}


def test_options_are_called_as_on_the_command_line() -> None:
    assert [option_name(name) for name in ("criteria", "max_rung", "seed")] == [
        "criterion",
        "max-rung",
        "seed",
    ]
