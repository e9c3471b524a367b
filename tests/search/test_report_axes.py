"""What stands along the axes: whole titles on narrow windows, numbers as scientists write them."""

from __future__ import annotations

import pytest
from browser import chromium as chromium
from browser import draw_all, opened
from made_run import DENSE, POINTS, make_result, make_run

from search.latencies import Measurement, write_latencies
from search.report import write_report
from search.report.data import load_run
from search.report.page import render_page
from search.report.section import Axis, Chart, Section, Series

TITLES = """[...document.querySelectorAll('.canvas .xtitle')].map(title => {
    const text = title.getBoundingClientRect(), chart = title.closest('.canvas').getBoundingClientRect();
    return [title.textContent, text.left >= chart.left && text.right <= chart.right]; })"""


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_titles_along_the_bottom_are_whole(chromium, tmp_path, width):
    folder = make_run(tmp_path / "run", make_result(metric="a_metric_of_ones_own"))
    ids = ("dense", *(point.id for point in POINTS))
    write_latencies(
        folder, [Measurement(id_, "onnxruntime", "cpu", 16, 32, 4.0, 0.2, 1.0, 50, "a CPU") for id_ in ids]
    )
    write_report(folder)
    with opened(chromium, folder, width=width) as page:
        draw_all(page)
        for size in ("macs", "params", "bytes", "latency-0"):
            page.select_option("#size", size)
            page.wait_for_function(
                "key => document.getElementById('plot')._fullLayout.xaxis.title.text"
                ".replaceAll('<br>', ' ').startsWith(document.querySelector(`#size [value=${key}]`).text)",
                arg=size,
            )
            titles = page.evaluate(TITLES)
            assert len(titles) > 5
            assert [text for text, whole in titles if not whole] == []


def test_small_numbers_are_powers_of_ten_and_not_millionths_of_a_unit(chromium, tmp_path):
    chart = Chart(
        "tiny",
        "Tiny",
        Axis("Evaluations"),
        Axis("Hypervolume"),
        (Series("all", "steps", (1, 20_000), (2e-7, 9e-6), "front"),),
        "",
        "It grows.",
    )
    folder = make_run(tmp_path / "run", make_result(dense=DENSE))
    (folder / "report.html").write_text(
        render_page(load_run(folder), (Section("made", "Made", ("Words.",), (chart,), ()),))
    )
    with opened(chromium, folder) as page:
        draw_all(page)
        ticks = page.evaluate(
            "['xtick', 'ytick'].map(name => [...document.querySelectorAll(`#chart-tiny .${name}`)]"
            ".map(tick => tick.textContent.replaceAll('\\u200b', '')))"
        )
        assert {"2000", "10,000", "20,000"} <= set(ticks[0])
        assert ticks[1][-1] == "8\N{MULTIPLICATION SIGN}10\N{MINUS SIGN}6"
