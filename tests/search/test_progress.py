from __future__ import annotations

import io

import pytest
from rich.console import Console

from evaluators.evaluation import Evaluation
from search.config import RunConfig
from search.forecast import Forecast, expected_counts
from search.limits import Budget
from search.progress import Display, Fleet
from search.record import Record
from search.report.words import Metric
from search.show import plan_lines

DENSE = 1000


def record(rung, method, seconds, macs=500, score=0.9, name="abc"):
    evaluation = Evaluation(name, rung, method, 0, score, macs, 10, seconds)
    return Record(evaluation, "sampler: front", {"layer": 1}, {"layer": "l1"})


def test_time_left_is_the_mean_of_what_was_measured_times_what_is_missing() -> None:
    forecast = Forecast()
    forecast.expect({1: 4, 2: 1})
    for seconds in (1.0, 3.0):
        forecast.evaluated(record(1, "refit", seconds).evaluation, DENSE)
    assert forecast.seconds_left() is None
    forecast.evaluated(record(2, "finetune", 9.0).evaluation, DENSE)
    assert forecast.seconds_left() == pytest.approx(2 * 2.0)


def test_what_was_not_measured_is_taken_from_epochs_at_half_the_macs() -> None:
    forecast = Forecast({(3, "finetune"): 2.0, (3, "scratch_e"): 10.0, (3, "scratch_b"): 20.0}, 3.0)
    forecast.expect({3: 6})
    assert forecast.seconds_left() == pytest.approx(2 * 3.0 / 2 * (2 + 10 + 20))


def test_an_epoch_is_learned_from_the_first_training() -> None:
    forecast = Forecast({(2, "finetune"): 2.0, (3, "finetune"): 4.0})
    forecast.evaluated(record(2, "finetune", 10.0, macs=500).evaluation, DENSE)
    assert forecast.seconds_per_epoch == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"budget": "24"}, {1: 24, 2: 8, 3: 45}),
        ({"budget": "24", "final_seeds": 3, "final": 2}, {1: 24, 2: 8, 3: 54}),
        ({"budget": "6"}, {1: 6, 2: 2, 3: 18}),
        ({"budget": "24", "max_rung": 2}, {1: 24, 2: 8}),
        ({"budget": "24", "max_rung": 1}, {1: 24, 2: 0}),
        ({"budget": "30m"}, {3: 45}),
    ],
)
def test_a_plan_counts_points_controls_methods_and_seeds(settings, counts) -> None:
    assert expected_counts(RunConfig(**settings)) == counts


def test_the_plan_says_rung_by_rung_how_long_it_takes() -> None:
    epochs = {(1, "refit"): 2.0, (2, "finetune"): 4.0}
    forecast = Forecast(epochs, 1.0, Budget.parse("30m").seconds)
    forecast.expect({2: 3, 3: 9})
    assert plan_lines(forecast) == [
        "rungs 1 and 2: 30 min 0 s as asked for",
        "rung 2: 3 evaluations, about 6.0 s",
        "rung 3: up to 9 final trainings, controls at equal MACs included, time not known yet",
    ]


def test_without_a_terminal_each_evaluation_is_a_line() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=200), DENSE, Forecast(), Metric("top1")) as display:
        display.expect({1: 3})
        display.begin("rung 1: abc")
        display.evaluated(record(1, "refit", 2.0))
        display.say("a decision [with brackets]")
    first, second = out.getvalue().splitlines()
    assert first == ("rung 1 1/3  abc   50.0% MACs  refit      90.00%  sampler: front  about 4.0 s left")
    assert second == "a decision [with brackets]"


def test_a_terminal_shows_what_is_evaluated_and_the_best_under_each_share() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with Display(console, DENSE, Forecast(), Metric("top1")) as display:
        display.evaluated(record(1, "refit", 1.0, macs=700, score=0.95))
        display.evaluated(record(1, "refit", 1.0, macs=400, score=0.8))
        display.begin("rung 1: xyz, refit")
        display.step(3, 7)
        with console.capture() as shown:
            console.print(display._render())
    assert "rung 1: xyz, refit  step 3/7" in shown.get()
    assert "best on rung 1 under MACs: 95.00% at 75%, 80.00% at 50%, - at 25%" in shown.get()


def test_several_workers_are_a_line_of_the_display_and_share_the_time_left() -> None:
    out = io.StringIO()
    forecast = Forecast({(1, "refit"): 1.0}, seconds_per_epoch=2.0)
    with Display(Console(file=out, width=200), DENSE, forecast, Metric("top1")) as display:
        display.expect({1: 40, 2: 0, 3: 0})
        alone = forecast.parts()[1]
        display.fleet(Fleet(running=6, places=8, nodes=3, per_minute=34.2, failures=1))
        assert forecast.parts()[1] == alone / 8
        console = Console(file=out, width=200, force_terminal=True)
        console.print(display._render())
    assert "6 of 8 places busy on 3 nodes, 34 evaluations/min, 1 failed" in out.getvalue()
