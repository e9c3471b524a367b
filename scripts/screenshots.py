"""Pictures of a run's report for the README: ``python scripts/screenshots.py RUN OUT``.

Writes ``report-light.png``, ``report-dark.png`` and ``report-phone.png`` (the card of the
chosen network) to the folder OUT, from ``RUN/report.html``, with Debian's chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

DESKTOP = {"width": 1280, "height": 1320}
PHONE = {"width": 390, "height": 844}


def main() -> None:
    """Write the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for scheme in ("light", "dark"):
            page = opened(browser, arguments.run, DESKTOP, scheme)
            page.screenshot(path=arguments.out / f"report-{scheme}.png")
        page = opened(browser, arguments.run, PHONE, "light")
        page.evaluate("document.getElementById('card').scrollIntoView({behavior: 'instant'})")
        page.screenshot(path=arguments.out / "report-phone.png")
        browser.close()
    for path in sorted(arguments.out.glob("report-*.png")):
        print(path)


def opened(browser: Browser, run: Path, viewport: dict[str, int], scheme: str) -> Page:
    """The report of a run, drawn."""
    page = browser.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    page.goto((run / "report.html").resolve().as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


if __name__ == "__main__":
    main()
