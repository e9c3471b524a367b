"""Least scores for ``search.pick``: in the task's own metric, and as they are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_run import DENSE, POINTS, make_result
from test_pick import picked_from

from evaluators.options import OptionError
from search.pick.choose import Limits


def test_a_metric_that_is_no_fraction_is_compared_as_it_is():
    points = tuple(replace(point, score=100 * point.score) for point in POINTS)
    result = make_result(metric="psnr", points=points, dense=replace(DENSE, score=97.0))
    assert picked_from(result, Limits(min_score="95.82")) == "c3"
    with pytest.raises(
        OptionError, match=r"^--min-score 98: no network reaches it; the best psnr on holdout is 97\.25"
    ):
        picked_from(result, Limits(min_score="98"))
    with pytest.raises(OptionError, match=r"^--min-score '95%': must be a number\."):
        picked_from(result, Limits(min_score="95%"))


def test_a_score_is_reached_as_it_is_shown():
    result = make_result(points=tuple(replace(p, score=0.911666) if p.id == "c3" else p for p in POINTS))
    for least, picked in (("91.17%", "c3"), ("91.18%", "d4"), ("91.1667%", "d4")):
        assert picked_from(result, Limits(min_score=least, where=("macs>=48%",))) == picked
