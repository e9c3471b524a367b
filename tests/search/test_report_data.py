from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from made_run import DENSE, POINTS, make_result, make_run

from search.record import read_evaluations
from search.report.data import dots, load_run, training_gaps
from search.report.marks import score_range
from search.result import Summary


def test_scratch_minus_fine_tuned_is_paired_over_all_finals():
    """Differences of 0 and -2 points: mean -1, half width t(0.975, 1) = 12.706 times 1."""
    even = replace(POINTS[0], test={"finetune": Summary(0.9, None, 1), "scratch_e": Summary(0.9, None, 1)})
    result = make_result(points=(even, POINTS[1]), dominated=(), controls=())
    gaps = {gap.method: gap for gap in training_gaps(result)}
    assert gaps["scratch_e"].mean == pytest.approx(-0.01)
    assert gaps["scratch_e"].high == pytest.approx(-0.01 + 0.12706, abs=1e-5)
    assert gaps["scratch_b"].low is None
    assert gaps["scratch_b"].n == 1


def test_a_dot_is_the_best_method_with_the_mean_over_its_seeds(tmp_path):
    records = read_evaluations(make_run(tmp_path / "run"))
    final = [record for record in records if record.evaluation.candidate == "c3"]
    again = replace(final[0], evaluation=replace(final[0].evaluation, seed=1, score=0.9602))
    (dot,) = dots([*final, again])
    assert (dot.id, dot.rung, dot.macs) == ("c3", 3, 480_000)
    assert dot.score == pytest.approx((0.9582 + 0.9602) / 2)


def test_full_widths_come_from_the_dense_network_else_from_the_widest_ever_built(tmp_path):
    result = make_result(dense=replace(DENSE, widths={"stem": 64}))
    assert load_run(make_run(tmp_path / "run", result)).full_widths == {
        "stem": 64,
        "block.conv1": 16,
        "block.conv2": 32,
    }


def test_the_score_axis_fits_the_finals_with_their_deviations_and_not_the_cheap_scores(tmp_path):
    low, high = score_range(load_run(make_run(tmp_path / "run")))
    assert 85 < low < 89.53
    assert 97.45 < high < 100


@pytest.mark.parametrize("change", [{"id": "../../etc"}, {"macs": "many"}, {"score": math.inf}])
def test_a_point_that_is_none_is_refused(tmp_path, change):
    folder = make_run(tmp_path / "run", journal=False)
    raw = json.loads((folder / "front.json").read_text())
    raw["points"][0] |= change
    (folder / "front.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"front\.json can not be read"):
        load_run(folder)


@pytest.mark.parametrize("tau", ["high", math.nan])
def test_a_correlation_that_is_none_is_refused(tmp_path, tau):
    folder = make_run(tmp_path / "run", journal=False)
    raw = json.loads((folder / "front.json").read_text())
    raw["correlations"][0]["tau"] = tau
    (folder / "front.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="a correlation needs finite numbers"):
        load_run(folder)


def test_a_front_of_a_version_without_correlations_is_still_read(tmp_path):
    folder = make_run(tmp_path / "run", journal=False)
    raw = json.loads((folder / "front.json").read_text())
    assert raw.pop("correlations")[0] == {"tau": 0.714, "low": 0.302, "high": 0.902, "n": 8, "rungs": [1, 2]}
    (folder / "front.json").write_text(json.dumps(raw))
    assert load_run(folder).result == make_result(correlations=())
