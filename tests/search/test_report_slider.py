"""The slider of the page and the chosen network say the same, however near two networks are."""

from __future__ import annotations

import pytest
from browser import chosen, click_mark, opened, slide
from browser import chromium as chromium
from made_run import make_point, make_result, make_run

from search.pick.choose import Limits, pick_point
from search.report import write_report

#: Within one percent of each other, the last two within a thousandth; one that no limit is answered with.
ANSWERS = (
    make_point("a1", 663_600, 0.93),
    make_point("b2", 669_700, 0.94),
    make_point("c3", 669_704, 0.95),
)
BEATEN = make_point("b1", 665_000, 0.92)
RESULT = make_result(
    points=(ANSWERS[0], BEATEN, *ANSWERS[1:]), objectives=("score", "macs", "params"), controls=()
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "near", RESULT)
    write_report(folder)
    return folder


def picked(page):
    """What the command line answers the shown limit with."""
    return pick_point(RESULT, Limits(max_macs=page.inner_text("#budget-text"))).id


def test_on_opening_the_shown_limit_is_answered_with_the_shown_network(chromium, run):
    with opened(chromium, run) as page:
        assert chosen(page) == picked(page) == "a1"
        assert page.inner_text("#budget-text") == "66.4%"
        assert page.inner_text("#budget-finding") == "a1: 93.00% top-1 on holdout, 66.4% of dense"


@pytest.mark.parametrize("point", ANSWERS, ids=lambda point: point.id)
def test_every_way_of_choosing_shows_a_limit_that_pick_answers_with_it(chromium, run, point):
    index = RESULT.points.index(point)
    with opened(chromium, run, fragment=f"#{point.id}") as page:
        assert chosen(page) == picked(page) == point.id
        slide(page, 100)
        page.click(f'button[data-key="card-{index}"]')
        assert chosen(page) == picked(page) == point.id
        slide(page, 100)
        page.focus(f'button[data-key="card-{index}"]')
        page.keyboard.press("Enter")
        assert chosen(page) == picked(page) == point.id
        assert page.inner_text("#budget-finding").startswith(f"{point.id}: ")
        text = page.get_attribute("#budget", "aria-valuetext")
        assert text == f"{page.inner_text('#budget-text')} of the dense network's MACs"


def test_what_no_limit_is_answered_with_is_not_called_the_best_within_one(chromium, run):
    with opened(chromium, run, fragment="#b1") as page:
        assert chosen(page) == "b1"
        assert page.inner_text("#budget-finding") == "No network fits; the smallest has 66.4%."
        slide(page, 70)
        page.click('button[data-key="card-4"]')
        assert chosen(page) == "f6"
        said = page.inner_text("#budget-finding")
        assert said == "c3: 95.00% top-1 on holdout, 67% of dense. The card shows f6 instead."
        click_mark(page, "rung 2, brief training", 2)
        assert page.inner_text("#budget-finding").endswith(". The card shows 01234567892 instead.")
        page.click('button[data-key="card-2"]')
        assert chosen(page) == picked(page) == "b2"


def test_a_pointer_sets_tenths_and_arrow_keys_miss_no_network(chromium, run):
    with opened(chromium, run) as page:
        for budget, expected in ((66.4, "a1"), (66.9, "a1"), (67, "c3")):
            slide(page, budget)
            assert chosen(page) == picked(page) == expected
            assert page.inner_text("#budget-text") == f"{budget}%"
        slide(page, 66)
        page.focus("#budget")
        seen = []
        for key in ["ArrowRight"] * 4 + ["ArrowLeft"] * 3:
            page.keyboard.press(key)
            seen.append((page.inner_text("#budget-text"), chosen(page)))
        up = [("66.4%", "a1"), ("66.97%", "b2"), ("67%", "c3"), ("68%", "c3")]
        assert seen == up + up[-2::-1]
        assert page.url.endswith("#a1")
