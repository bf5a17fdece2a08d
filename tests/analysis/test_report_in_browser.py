"""The report as a reader sees it: opened from disk by Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.landscape import Landscape
from analysis.report import write_report
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
    bowl = Landscape("bowl", axis, axis, losses, {})
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


def many_runs(tmp_path: Path, count: int) -> str:
    """A report of so many runs under every attack, two networks of several seeds each."""
    attacks = dict.fromkeys(("natural", "fgsm", "pgd", "cw", "aa"), 40.0)
    for i in range(count):
        accuracies = {name: value + i / 100 for name, value in attacks.items()}
        mode = ("learned", "fixed")[i % 2]
        write_run(tmp_path / "runs", make_run(accuracies, seed=i // 2, attention=mode))
    return write_report(tmp_path / "runs", tmp_path / "report.html").as_uri()


def shown_rows(page) -> int:
    return page.locator("#runs-table tbody tr").count()


def test_rows_are_laid_out_page_by_page_filtered_and_printed_in_full(tmp_path):
    with open_browser() as (page, errors):
        page.goto(many_runs(tmp_path, 240))
        pager = page.locator('.pages[data-for="runs-table"]')
        assert shown_rows(page) == 100
        assert pager.locator("output").inner_text() == "1 to 100 of 240"
        pager.get_by_role("button", name="Next").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert shown_rows(page) == 40
        assert pager.get_by_role("button", name="Next").is_disabled()
        page.locator('form[data-for="runs-table"] input').fill("learned")
        assert pager.locator("output").inner_text() == "1 to 100 of 120"
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert shown_rows(page) == 120
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert shown_rows(page) == 100
    assert errors == []


def test_record_opens_from_its_link_by_keyboard(tmp_path):
    address = many_runs(tmp_path, 4)
    with open_browser() as (page, errors):
        page.goto(address)
        assert page.locator("#record article").count() == 0
        page.locator("#runs-table tbody tr th a").first.focus()
        page.keyboard.press("Enter")
        article = page.locator("#record article")
        assert "(evaluated)" in article.inner_text()
        assert "/10,000" in article.inner_text()
        assert page.evaluate("document.activeElement.tagName") == "H3"
        link = page.url
        page.goto("about:blank")
        page.goto(link)  # a link to a record opens it
        assert page.locator("#record article").count() == 1
    assert errors == []


@pytest.mark.parametrize("table", ["runs-table", "means-table"])
def test_columns_up_to_autoattack_fit_a_wide_screen(table, tmp_path):
    with open_browser(viewport={"width": 1400, "height": 900}) as (page, _):
        page.goto(many_runs(tmp_path, 6))
        headings = page.locator(f"#{table} thead th").all_inner_texts()
        assert [text.split()[0] for text in headings[-2:]] == ["AA", "Parameters"]
        region = page.locator(f".scroll:has(> #{table})")
        assert region.evaluate("e => e.scrollWidth <= e.clientWidth")
