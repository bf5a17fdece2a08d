"""The report as a reader sees it: opened from disk by Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.report import LandscapeData, write_report
from tests.analysis.synthetic import make_run, write_run
from tests.browser import open_browser

pytestmark = pytest.mark.slow

COLOURS = """canvas => {
  const {width, height} = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const seen = new Set();
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 3]) seen.add(pixels.slice(i, i + 3).join());
  }
  return [...seen].sort().join(";");
}"""


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A report of three runs, the best in the middle, and a landscape."""
    for seed, robust in enumerate((40.0, 60.0, 50.0)):
        run = make_run({"natural": 80.0 - robust / 10, "pgd": robust}, seed=seed)
        write_run(tmp_path / "runs", run)
    axis = np.linspace(-1, 1, 9)
    losses = 1 + axis[:, None] ** 2 + 3 * axis**2
    bowl = LandscapeData("bowl", axis, axis, losses)
    out = write_report(tmp_path / "runs", tmp_path / "report.html", landscapes=[bowl])
    return out.as_uri()


def robust_column(page) -> list[float]:
    cells = page.locator("#runs-table tbody tr")
    headers = page.locator("#runs-table thead th").all_inner_texts()
    column = next(i for i, text in enumerate(headers) if "PGD" in text)
    return [float(row.locator("th, td").nth(column).inner_text().split()[0]) for row in cells.all()]


def test_tables_sort_without_console_errors(address):
    with open_browser() as (page, errors):
        page.goto(address)
        header = page.locator("#runs-table thead th", has_text="PGD")
        header.get_by_role("button").click()
        first = robust_column(page)
        assert header.get_attribute("aria-sort") in ("ascending", "descending")
        header.get_by_role("button").click()
        assert robust_column(page) == first[::-1]
        assert sorted(first) == [40.0, 50.0, 60.0]
    assert errors == []


def test_landscape_is_drawn_and_turns_by_keys(address):
    with open_browser() as (page, errors):
        page.goto(address)
        canvas = page.locator("#landscapes canvas")
        canvas.scroll_into_view_if_needed()
        before = canvas.evaluate(COLOURS)
        assert len(before.split(";")) > 10
        canvas.focus()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(200)
        assert canvas.evaluate(COLOURS) != before
    assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_readers_theme(scheme, address, tmp_path):
    with open_browser(color_scheme=scheme) as (page, errors):
        page.goto(address)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, background.strip("rgba()").split(",")[:3])) / 3
        assert (brightness > 200) == (scheme == "light")
        assert (brightness < 60) == (scheme == "dark")
    assert errors == []


def test_page_fits_a_narrow_screen(address):
    with open_browser(viewport={"width": 360, "height": 700}) as (page, _):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
