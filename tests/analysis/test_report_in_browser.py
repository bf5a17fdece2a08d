"""The report as a reader sees it: opened from disk by Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.landscape import Landscape
from analysis.report import write_report
from tests.analysis.synthetic import DEPTH, make_metrics, make_run, write_run
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


WEIGHTS = [[0.4, 0.3, 0.2, 0.1], [0.25] * 4, [0.7, 0.1, 0.1, 0.1]]


@pytest.fixture
def comparable(tmp_path: Path) -> str:
    """A report of two runs that compare by PGD and one that met it at another radius."""
    accuracies = {"natural": 80.0, "pgd": 50.0}
    runs = [
        make_run(accuracies, seed=0, **DEPTH),
        make_run({**accuracies, "pgd": 60.0}, seed=1, **DEPTH),
        make_run({**accuracies, "pgd": 70.0}, seed=2, eps=0.05, **DEPTH),
    ]
    for run in runs:
        write_run(tmp_path / "runs", run, make_metrics(weights=WEIGHTS))
    return write_report(tmp_path / "runs", tmp_path / "report.html").as_uri()


def pin_button(page, seed: int):
    return page.locator("#runs-table").get_by_role("button", name=f"seed {seed}")


def anchors(page) -> list[str]:
    """Of the runs, by seed."""
    links = page.locator("#runs-table tbody th a").all()
    return sorted((link.get_attribute("href")[1:] for link in links), key=lambda text: text[-1])


def comparison(page) -> list[list[str]]:
    """The rows of the comparison, cell by cell, as they are read."""
    rows = page.locator("#comparison tr").all()
    return [
        [" ".join(text.split()) for text in row.locator("> *").all_inner_texts()] for row in rows
    ]


def test_runs_are_pinned_by_keyboard_and_stand_side_by_side(comparable):
    with open_browser() as (page, errors):
        page.goto(comparable)
        assert page.locator("#compare table").count() == 0
        for seed, key in ((0, "Enter"), (1, "Space")):
            assert pin_button(page, seed).get_attribute("aria-pressed") == "false"
            pin_button(page, seed).focus()
            page.keyboard.press(key)
            assert pin_button(page, seed).get_attribute("aria-pressed") == "true"
        assert page.locator("#compare [role=status]").inner_text() == "2 runs are pinned."
        assert page.locator("#curves button[aria-pressed=true]").count() == 2
        page.locator("#runs a.to-comparison").press("Enter")
        assert page.evaluate("document.querySelector('#compare').getBoundingClientRect().top") < 99
        head, _, natural, pgd, _, seed = comparison(page)
        assert head == ["Run", "seed 0", "seed 1"]
        assert natural == ["Natural digits/test, 10,000 images", *["80.00 79.2 to 80.8"] * 2]
        assert pgd[0].startswith("≠ PGD-20 digits/test, L∞ eps 0.1, 20 steps of 0.02581")
        assert pgd[1:] == ["50.00 49.0 to 51.0", "60.00 59.0 to 61.0"]
        assert seed == ["≠ seed", "0", "1"]
        assert page.locator("#comparison .warning").count() == 0
    assert errors == []


def test_equal_settings_are_shown_when_asked_for_and_not_marked(comparable):
    with open_browser() as (page, errors):
        page.goto(comparable)
        pin_button(page, 0).click()
        pin_button(page, 1).click()
        asked = page.locator("#compare").get_by_role("button", name="Show what is equal, too")
        asked.press("Enter")
        assert asked.get_attribute("aria-pressed") == "true"
        rows = comparison(page)
        assert ["method", "at", "at"] in rows
        assert ["Parameters", "1,000,000", "1,000,000"] in rows
        assert [row[0] for row in rows if row[0].startswith("≠")][1:] == ["≠ seed"]
        asked.press("Enter")
        assert ["method", "at", "at"] not in comparison(page)
    assert errors == []


def test_numbers_under_different_conditions_never_share_a_row(comparable):
    with open_browser() as (page, errors):
        page.goto(comparable)
        for seed in (0, 2):
            pin_button(page, seed).click()
        warning = page.locator("#comparison .note.warning").inner_text()
        assert warning.startswith("Different conditions: PGD-20 was not measured alike")
        assert "numbers of different rows say nothing of each other" in warning
        cells = [row[1:] for row in comparison(page) if row[0].startswith("PGD-20")]
        assert cells == [
            ["50.00 49.0 to 51.0", "\N{EN DASH}"],
            ["\N{EN DASH}", "70.00 69.1 to 70.9"],
        ]
        pin_button(page, 2).click()
        pin_button(page, 1).click()
        assert page.locator("#comparison .warning").count() == 0
    assert errors == []


def test_comparison_has_a_link_that_other_links_keep(comparable):
    with open_browser() as (page, errors):
        page.goto(comparable)
        assert page.url == comparable
        zero, one, two = anchors(page)
        pin_button(page, 2).click()
        pin_button(page, 0).click()
        assert page.url.endswith(f"#compare&pins={two},{zero}")
        page.locator("nav").get_by_role("link", name="Summary").press("Enter")
        page.wait_for_url(f"**#summary&pins={two},{zero}")
        link = page.get_by_role("link", name="Link to this comparison").get_attribute("href")
        assert link == f"#compare&pins={two},{zero}"
        page.goto("about:blank")
        page.goto(f"{comparable}{link},run-of-elsewhere")
        assert comparison(page)[0] == ["Run", "seed 2", "seed 0"]
        assert page.locator("#compare [role=status]").inner_text() == (
            "1 run of the link is not in this page. 2 runs are pinned."
        )
        assert page.evaluate("document.querySelector('#compare').getBoundingClientRect().top") < 99
        page.goto("about:blank")
        page.goto(f"{comparable}#{one}&pins={one}")  # a run's place and pins
        assert page.locator("#record article").get_attribute("id") == one
        pin = page.locator("#record").get_by_role("button", name="Pin seed 1")
        assert pin.get_attribute("aria-pressed") == "true"
        pin.press("Enter")
        assert page.url.endswith(f"#{one}")
    assert errors == []


def test_back_leads_to_where_the_reader_was(comparable):
    with open_browser(viewport={"width": 400, "height": 400}) as (page, errors):
        page.goto(f"{comparable}#runs&pins=")
        pin_button(page, 1).click()
        page.evaluate("scrollBy(0, 120)")
        before = page.evaluate("scrollY")
        page.locator("#runs-table tbody th a").last.evaluate("link => link.click()")
        page.wait_for_selector("#record article")
        assert page.evaluate("scrollY") > before + 400
        page.go_back()
        page.wait_for_function(f"Math.abs(scrollY - {before}) < 2")
        assert pin_button(page, 1).get_attribute("aria-pressed") == "true"
    assert errors == []


def test_focus_stays_in_the_comparison_when_runs_leave_it(comparable):
    with open_browser() as (page, errors):
        page.goto(comparable)
        for seed in range(3):
            pin_button(page, seed).click()
        pins = page.locator("#comparison").get_by_role("button")
        pins.nth(1).press("Enter")
        assert comparison(page)[0] == ["Run", "seed 0", "seed 2"]
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Pin seed 2"
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert page.locator("#comparison table").count() == 0
        assert page.evaluate("document.activeElement.id") == "compare-title"
        assert "pins" not in page.url
        for seed in range(2):
            pin_button(page, seed).click()
        page.get_by_role("button", name="Unpin all").press("Enter")
        assert page.locator("button[data-pin][aria-pressed=true]").count() == 0
    assert errors == []


def test_view_of_a_run_has_its_learning_curve_and_attention_weights(comparable):
    with open_browser() as (page, errors):
        page.goto(comparable)
        page.locator("#runs-table tbody th a").first.press("Enter")
        article = page.locator("#record article")
        assert article.get_by_role("img").get_attribute("aria-label") == (
            "Robust accuracy on held-out images: 50.0 % in epoch 2, its best, and 40.0 % in epoch "
            "4, the last."
        )
        heights = article.locator("svg path.robust").evaluate(
            "path => path.getAttribute('d').slice(1).split('L').map(p => +p.split(' ')[1])"
        )
        assert len(heights) == 4
        assert min(heights) == heights[1]  # upwards is less
        assert heights[0] == heights[2] < heights[3]
        texts = article.locator("svg text").all()
        right = article.locator("svg").bounding_box()
        for box in (text.bounding_box() for text in texts):
            assert box["x"] >= right["x"]
            assert box["x"] + box["width"] <= right["x"] + right["width"]
        weights = article.locator("table.heat td").all_inner_texts()
        assert weights == [f"{weight:.3f}" for row in WEIGHTS for weight in row]
    assert errors == []


def test_view_of_a_run_without_curve_or_weights_leaves_them_out(address):
    with open_browser() as (page, errors):
        page.goto(address)
        page.locator("#runs-table tbody th a").first.click()
        assert page.locator("#record h4").all_inner_texts() == ["Configuration", "Provenance"]
    assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_comparison_and_view_fit_a_narrow_screen(scheme, comparable):
    size = {"width": 400, "height": 800}
    with open_browser(color_scheme=scheme, viewport=size) as (page, errors):
        page.goto(comparable)
        for seed in range(3):
            pin_button(page, seed).click()
        page.locator("#runs-table tbody th a").first.click()
        assert page.locator("#comparison table, #record svg").count() == 2
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        for button in page.locator("#runs-table button.pin").all():
            box = button.bounding_box()
            assert min(box["width"], box["height"]) >= 24  # what a finger hits, WCAG 2.5.8
    assert errors == []


@pytest.mark.parametrize("table", ["runs-table", "means-table"])
def test_columns_up_to_autoattack_fit_a_wide_screen(table, tmp_path):
    with open_browser(viewport={"width": 1400, "height": 900}) as (page, _):
        page.goto(many_runs(tmp_path, 6))
        headings = page.locator(f"#{table} thead th").all_inner_texts()
        assert [text.split()[0] for text in headings[-2:]] == ["AA", "Parameters"]
        region = page.locator(f".scroll:has(> #{table})")
        assert region.evaluate("e => e.scrollWidth <= e.clientWidth")
