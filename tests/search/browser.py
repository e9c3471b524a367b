"""Opens a report in a real browser, from its file, and refuses whatever a harmless page does not do."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

#: CI installs a browser, so a test that can not find one has found a fault there.
REQUIRED = os.environ.get("ESPALIER_BROWSER") == "required"

AXE_SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    missing = path is None or find_spec("playwright") is None
    if missing and REQUIRED:
        pytest.fail("ESPALIER_BROWSER=required, but chromium is not in PATH or playwright not installed.")
    if missing:
        pytest.skip("chromium is not in PATH, or playwright not installed")
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, run: Path, *, fragment: str = "", width: int = 1280, scheme: str = "light"
) -> Iterator[Page]:
    """The page of a run, ready; on leaving, nothing was requested, said on the console or raised."""
    faults: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True, accept_downloads=True
    )
    # What is downloaded is a blob of the page's own.
    context.route(lambda url: not url.startswith("blob:"), lambda route: _only_files(route, faults))
    page = context.new_page()
    page.on("console", lambda message: faults.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto((run / "report.html").resolve().as_uri() + fragment)
    page.wait_for_selector("html[data-ready]", timeout=20_000)
    yield page
    context.close()
    assert faults == []


def _only_files(route, faults):
    if route.request.url.startswith("file:") and route.request.url.split("#")[0].endswith("/report.html"):
        route.continue_()
        return
    faults.append(f"request: {route.request.url}")
    route.abort()


def chosen(page: Page) -> str | None:
    """Id of the network whose card is shown."""
    return page.evaluate("document.querySelector('#card article')?.dataset.id ?? null")


def slide(page: Page, budget: int) -> None:
    """Move the slider as a finger would: what it was set to is said in one event."""
    page.evaluate(
        "value => { const slider = document.getElementById('budget'); slider.value = value;"
        " slider.dispatchEvent(new Event('input')); slider.dispatchEvent(new Event('change')); }",
        budget,
    )


def trace(page: Page, name: str) -> dict:
    """Numbers of the plot's trace with this name in the legend; empty when it is not there."""
    return page.evaluate(
        "name => { const found = document.getElementById('plot').data.find(t => t.name === name);"
        " return found ? {x: [...found.x], y: [...found.y], color: found.marker.color,"
        " error: found.error_y ? [...found.error_y.array] : [], hover: found.hovertext} : {}; }",
        name,
    )


def mark_at(page: Page, name: str, index: int) -> tuple[float, float]:
    """Where a mark of the plot is, in the window."""
    return tuple(
        page.evaluate(
            "([name, index]) => { const plot = document.getElementById('plot');"
            " const {xaxis, yaxis} = plot._fullLayout, found = plot.data.find(t => t.name === name);"
            " const box = plot.getBoundingClientRect();"
            " return [box.left + xaxis._offset + xaxis.d2p(found.x[index]),"
            " box.top + yaxis._offset + yaxis.d2p(found.y[index])]; }",
            [name, index],
        )
    )


def centre(page: Page, selector: str) -> tuple[float, float]:
    """Where the middle of an element is, in the window."""
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def click_mark(page: Page, name: str, index: int) -> None:
    """Click a mark of the plot where it is drawn."""
    page.evaluate("document.getElementById('plot').scrollIntoView({block: 'center', behavior: 'instant'})")
    x, y = mark_at(page, name, index)
    # Plotly looks at the mouse from time to time only, so that the last of two quick moves may pass unseen.
    for step in range(100):
        page.mouse.move(x + step % 2, y)
        if _is_over(page, name, index):
            break
        page.wait_for_timeout(50)
    assert _is_over(page, name, index)
    page.mouse.down()
    page.mouse.up()


def _is_over(page: Page, name: str, index: int) -> bool:
    """Whether the plot knows that the mouse is over this very mark."""
    return page.evaluate(
        "([name, index]) => (document.getElementById('plot')._hoverdata ?? [])"
        ".some(found => found.data.name === name && found.pointNumber === index)",
        [name, index],
    )


def draw_all(page: Page) -> None:
    """Scroll through the page, so that every chart is drawn, and open every fold."""
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(100)


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
