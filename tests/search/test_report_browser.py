"""The page in a real browser: from its file, with the network off."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from browser import (
    AXE_SERIOUS,
    centre,
    chosen,
    click_mark,
    draw_all,
    mark_at,
    opened,
    overflow,
    slide,
    trace,
)
from browser import chromium as chromium
from made_run import DENSE, EMPTY, GROUPS, POINTS, make_point, make_result, make_run

from search.latencies import Measurement, write_latencies
from search.pick.choose import Limits, pick_point
from search.report import write_report
from search.report.data import load_run
from search.report.page import render_page
from search.report.section import Axis, Chart, Column, Section, Series, Table
from search.result import Comparison, Result, Summary

RESULT = make_result()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "digits")
    write_latencies(
        folder,
        [
            Measurement(id_, "eager", "cpu", 2, 1, median, 0.2, median / 4.0, 50, "a CPU")
            for id_, median in (("dense", 4.0), ("b2", 1.5), ("c3", 2.6), ("e5", 4.1))
        ],
    )
    peers = {"name": "L1 <b>", "macs": 500_000, "score": 0.91, "split": "test", "source": "a paper"}
    (folder / "peers.json").write_text(json.dumps({"schema": 1, "points": [peers]}))
    write_report(folder)
    return folder


@pytest.mark.parametrize("budget", [21, 30, 47, 48, 70, 100])
def test_the_slider_chooses_what_pick_chooses(chromium, run, budget):
    with opened(chromium, run) as page:
        slide(page, budget)
        expected = pick_point(RESULT, Limits(max_macs=f"{budget}%"))
        assert chosen(page) == expected.id
        assert page.url.endswith(f"#{expected.id}")
        assert page.inner_text("#budget-text") == f"{budget}%"
        assert page.inner_text("#budget-finding").startswith(
            f"{expected.id}: {100 * expected.score:.2f}% top-1"
        )
        # The ring is around the mark, the line at the budget.
        index = RESULT.points.index(expected)
        assert centre(page, "#choice .ring") == pytest.approx(mark_at(page, "front", index), abs=1)
        line = centre(page, "#choice .line")[0]
        dense, first = (mark_at(page, name, 0)[0] for name in ("dense", "front"))
        assert line == pytest.approx(first + (budget - 21) / (100 - 21) * (dense - first), abs=1)


def test_the_slider_says_where_nothing_fits_and_answers_arrow_keys(chromium, run):
    with opened(chromium, run) as page:
        slide(page, 20)
        assert page.inner_text("#budget-finding") == "No network fits; the smallest has 21%."
        page.focus("#budget")
        page.keyboard.press("ArrowRight")
        assert chosen(page) == "a1"


def test_marks_rows_and_addresses_choose_points(chromium, run):
    with opened(chromium, run) as page:
        assert chosen(page) == "c3"  # the headline's
        click_mark(page, "front", 3)
        assert chosen(page) == "d4"
        assert page.url.endswith("#d4")
        click_mark(page, "uniform control", 0)
        assert chosen(page) == "u7"
        click_mark(page, "rung 2, brief training", 2)
        assert page.inner_text("#card code") == "01234567892"
        assert "95.00%" in page.inner_text("#card")
        page.focus('button[data-key="card-0"]')
        page.keyboard.press("Enter")
        assert chosen(page) == "a1"
        assert page.get_attribute('button[data-key="card-0"]', "aria-pressed") == "true"
        assert page.locator('[aria-pressed="true"][data-key]').count() == 1
    with opened(chromium, run, fragment="#f6") as page:
        assert chosen(page) == "f6"


def test_each_card_shows_the_numbers_of_front_json(chromium, run):
    result = Result.load(run)
    finals = (*result.points, *result.dominated, *result.controls)
    read = """() => [...document.querySelectorAll('#card data')].map(d => [d, d.dataset]).map(([d, set]) =>
        [set.field, d.value, set.sd ?? null, set.n ?? null, d.closest('tr')?.dataset.method ?? null])"""
    with opened(chromium, run) as page:
        for i, point in enumerate(finals):
            page.click(f'button[data-key="card-{i}"]')
            assert chosen(page) == point.id
            found = page.evaluate(read)
            single = {field: float(value) for field, value, _, _, method in found if method is None}
            for field in ("score", "macs", "params", "saved_test"):
                assert single[field] == getattr(point, field)
            assert single["test"] == point.test[point.weights].mean
            for split, summaries in (("test", point.test), ("holdout", point.scores)):
                rows = {row[4]: row for row in found if row[0] == split and row[4] is not None}
                assert {
                    method: Summary(float(row[1]), json.loads(row[2]), int(row[3]))
                    for method, row in rows.items()
                } == summaries
            widths = [(int(value)) for field, value, *_ in found if field == "width"]
            assert widths == [point.widths[name] for name in GROUPS]
            assert page.locator("#card .command[data-format]").count() == (4 if point in result.points else 0)


def test_a_card_says_how_to_take_its_network_home(chromium, run):
    with opened(chromium, run, fragment="#c3") as page:
        for format_ in ("architecture", "onnx", "pt2", "int8"):
            page.check(f'#card [value="{format_}"]')
            command = page.locator("#card .command[data-format]:visible code")
            assert command.inner_text() == f"python -m search.pick {run} --id c3 --export {format_}"
        assert "python -m search.run --task digits" in page.text_content("#card details")
        weights = (run / "architectures" / "c3" / "weights.safetensors").stat().st_size
        assert str(weights) in [d.get_attribute("value") for d in page.locator("#card .files data").all()]
        assert "65%" in page.inner_text("#card .latencies")


def test_axes_change_with_the_controls(chromium, run):
    with opened(chromium, run) as page:
        assert trace(page, "front")["x"] == pytest.approx([21, 29, 48, 71, 88])
        assert trace(page, "front")["y"] == pytest.approx([100 * point.score for point in POINTS])
        assert trace(page, "front")["error"] == pytest.approx([0.2] * 5)
        assert trace(page, "rung 1, untrained")["y"] == pytest.approx([20, 50, 93])
        assert trace(page, "dense") | {"hover": 0, "color": 0} == {
            "x": [100],
            "y": [97],
            "error": [],
            "hover": 0,
            "color": 0,
        }
        page.select_option("#size", "params")
        assert trace(page, "front")["x"] == pytest.approx([100 * p.params / DENSE.params for p in POINTS])
        assert trace(page, "rung 1, untrained")["x"] == pytest.approx([20, 20, 20])
        page.select_option("#size", "bytes")
        assert len(trace(page, "front")["x"]) == 5
        assert trace(page, "uniform control") == {}
        page.select_option("#size", "latency-0")
        assert trace(page, "front")["x"] == pytest.approx([37.5, 65, 102.5])
        assert "eager, batch 1, CPU, 2 threads" in page.evaluate(
            "document.getElementById('plot').layout.xaxis.title.text"
        )
        slide(page, 60)
        assert chosen(page) == "b2"
        page.select_option("#size", "macs")
        page.select_option("#split", "test")
        assert trace(page, "front")["y"] == pytest.approx([100 * p.test["finetune"].mean for p in POINTS])
        assert trace(page, "rung 1, untrained") == {}
        assert trace(page, "peers")["x"] == [50]
        assert trace(page, "peers")["hover"][0].startswith("L1 &lt;b&gt;<br>91.00% on test")
        assert page.evaluate("document.getElementById('plot').layout.yaxis.title.text") == "top-1 (%) on test"


def test_light_and_dark_follow_the_system_and_the_button(chromium, run):
    seen = (
        "[getComputedStyle(document.body).backgroundColor,"
        " document.getElementById('plot').data.at(-1).marker.color]"
    )
    with opened(chromium, run, scheme="dark") as page:
        dark = page.evaluate(seen)
        page.emulate_media(color_scheme="light")
        page.wait_for_function(f"before => {seen}[1] !== before", arg=dark[1])
        light = page.evaluate(seen)
        assert light[0] != dark[0]
        assert light[1] != dark[1]
        page.click("#theme")
        assert page.inner_text("#theme") == "Theme: light"
        page.click("#theme")
        assert page.evaluate(seen) == dark
        assert page.inner_text("#theme") == "Theme: dark"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(chromium, run, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with opened(chromium, run, width=width, scheme=scheme) as page:
        draw_all(page)
        assert overflow(page) == 0
        found = Axe().run(page).response["violations"]
        assert [
            (fault["id"], node["html"][:200], node["failureSummary"])
            for fault in found
            if fault["impact"] in AXE_SERIOUS
            for node in fault["nodes"]
        ] == []


HOVER = "one\ntwo <img src=x onerror=alert(1)>"
SECTIONS = (
    Section(
        "made",
        "A section of its own",
        ("The finding.",),
        (
            Chart(
                "made-chart",
                "Points and bars",
                Axis("Score"),
                Axis("Group", categories=("a", "b<i>", "c")),
                (
                    Series(
                        "mean",
                        "points",
                        (1.0, math.nan, 3.0),
                        ("c", "b<i>", "a"),
                        "first",
                        (0.5, 0.1, 0.2),
                        (HOVER,) * 3,
                    ),
                    Series("share", "bars", (1, 2, 3), ("a", "b<i>", "c"), "second"),
                ),
                "A note.",
                "Group a is best.",
            ),
            Chart(
                "made-lines",
                "Lines",
                Axis("Evaluations", log=True),
                Axis("Hypervolume"),
                (Series("all", "steps", (1, 10, 100), (0.1, 0.2, math.inf), "front"),),
                "",
                "It grows.",
            ),
        ),
        (
            Table(
                "made-table",
                "Cells",
                (Column("name", "name"), Column("n", "count", lambda value: f"{value} of 9")),
                ({"name": '=1+1,"x"', "n": 3}, {"name": "-a"}, {"n": math.inf}, {"name": "plain", "n": -2.5}),
            ),
        ),
    ),
)


def test_charts_are_drawn_and_saved_and_tables_are_files_of_raw_values(chromium, tmp_path):
    folder = make_run(tmp_path / "run", journal=False)
    (folder / "report.html").write_text(render_page(load_run(folder), SECTIONS))
    with opened(chromium, folder) as page:
        page.locator("#made").scroll_into_view_if_needed()
        page.wait_for_selector("#chart-made-chart .main-svg")
        drawn = page.evaluate(
            "(() => { const {data, layout} = document.getElementById('chart-made-chart');"
            " const {x, y, error_x: {array}, hovertext} = data[0];"
            " return [x, y, array, hovertext[0], layout.yaxis.ticktext]; })()"
        )
        assert drawn == [
            [1, None, 3],
            [2, 1, 0],
            [0.5, 0.1, 0.2],
            "one<br>two &lt;img src=x onerror=alert(1)&gt;",
            ["a", "b&lt;i&gt;", "c"],
        ]
        assert page.get_attribute("#chart-made-chart", "aria-label") == "Group a is best."
        with page.expect_download() as csv_file:
            page.click("#made details summary")
            page.click('[data-csv="made-table"]')
        rows = list(csv.reader(io.StringIO(csv_file.value.path().read_text())))
        assert rows == [["name", "n"], ['\'=1+1,"x"', "3"], ["'-a", ""], ["", ""], ["plain", "-2.5"]]
        assert "3 of 9" in page.inner_text("#made")
        heads = {}
        for of in ("chart-made-chart", "plot"):
            for format_ in ("png", "svg"):
                with page.expect_download() as picture:
                    page.click(f'[data-of="{of}"][data-picture="{format_}"]')
                heads[picture.value.suggested_filename] = picture.value.path().read_bytes()[:8]
        assert {name: head[:4] for name, head in heads.items()} == {
            "made-chart.png": b"\x89PNG",
            "made-chart.svg": b"<svg",
            "front.png": b"\x89PNG",
            "front.svg": b"<svg",
        }


SCRIPT = "</script><script>document.title = 'hit'; alert(1)</script><img src=x onerror=alert(2)>"
NASTY = (
    f"{SCRIPT}--><!-- \"'` \u202e\U0001f333\U0001f469\u200d\U0001f52c {{{{ 7 * 7 }}}} $\\frac{{"
    + "x" * 10_000
)


def test_a_hostile_run_gives_a_harmless_page(chromium, tmp_path):
    point = replace(
        POINTS[2],
        criteria={NASTY: NASTY, "block.conv2": SCRIPT},
        widths={NASTY: 3, "block.conv2": 4},
        origin=NASTY,
        weights=NASTY,
        scores={NASTY: Summary(0.9, None, 1)},
        test={NASTY: Summary(0.9, 0.1, 2)},
    )
    result = make_result(
        task=NASTY,
        metric=NASTY,
        points=(point,),
        controls=(replace(POINTS[1], origin=f"control: {NASTY}", control_of=NASTY),),
        comparisons=(Comparison(NASTY, NASTY, 0.1, None, None, 1),),
        counts={NASTY: 1},
        seconds={NASTY: 1.0},
        warnings=(NASTY,),
    )
    folder = make_run(tmp_path / "a<b>'\"", result, config={NASTY: NASTY, "task": NASTY}, candidate=SCRIPT)
    write_latencies(
        folder, [Measurement(id_, NASTY, NASTY, 1, 1, 1.0, 0.1, 1.0, 3, NASTY) for id_ in ("dense", point.id)]
    )
    peer = {"name": NASTY, "macs": 1e5, "score": 0.5, "split": "holdout", "source": NASTY}
    (folder / "peers.json").write_text(json.dumps({"schema": 1, "points": [peer]}))
    write_report(folder)
    for width in (1280, 390):
        with opened(chromium, folder, width=width) as page:
            draw_all(page)
            slide(page, 100)
            assert chosen(page) == "c3"
            page.click("#reach")
            click_mark(page, "rung 1, untrained", 0)
            assert SCRIPT[:12] in page.inner_text("#card code")
            assert page.title() != "hit"
            assert page.locator("img").count() == 0
            assert overflow(page) == 0
            assert "\u202e" not in page.content()
            assert (
                page.evaluate("document.getElementById('plot').querySelectorAll('image, a, img').length") == 0
            )


@pytest.mark.parametrize(("metric", "sign"), [("miou", 1), ("neg_rmse", -1)])
def test_another_metric_is_named_everywhere(chromium, tmp_path, metric, sign):
    points = tuple(
        make_point(f"p{i}", macs, sign * 0.5 + score, test=sign * 0.5 + score - 0.03)
        for i, (macs, score) in enumerate(((300_000, 0.01), (500_000, 0.04), (800_000, 0.06)))
    )
    dense = replace(DENSE, score=sign * 0.5 + 0.07, test=sign * 0.5 + 0.05)
    result = make_result(metric=metric, dense=dense, points=points, dominated=(), controls=())
    folder = make_run(tmp_path / "run", result, journal=False)
    write_report(folder)
    with opened(chromium, folder) as page:
        draw_all(page)
        axis, ends = page.evaluate(
            "(({yaxis}) => [yaxis.title.text, yaxis.range])(document.getElementById('plot').layout)"
        )
        assert axis == f"{metric} on holdout"
        scores = [point.score for point in points]
        assert ends[0] < min(scores)
        assert ends[1] > max(*scores, dense.score)
        assert trace(page, "front")["y"] == scores
        slide(page, 60)
        assert chosen(page) == "p1"
        assert f"{metric} on test" in page.inner_text("#card")
        score = f"{scores[1]:.4g}".replace("-", "\N{MINUS SIGN}")
        assert f"{score} {metric} on holdout" in page.inner_text("#budget-finding")
        assert metric in page.inner_text("h1")
        assert "top-1" not in page.inner_text("body")
        assert "top1" not in page.inner_text("body")


def test_an_empty_front_opens_and_says_so(chromium, tmp_path):
    folder = make_run(tmp_path / "run", EMPTY)
    write_report(folder)
    with opened(chromium, folder) as page:
        assert page.locator("#budget").count() == 0
        assert "There is no front yet." in page.inner_text("#card")
        assert trace(page, "rung 1, untrained")["y"] == pytest.approx([20, 50, 93])
