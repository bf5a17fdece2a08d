"""The site, built as `make docs` builds it and opened in a browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.browser import open_browser

ROOT = Path(__file__).parents[1]
WIDTH = "Math.max(...[...document.querySelectorAll('html, .content')].map(e => e.scrollWidth))"
"""The theme's content scrolls by itself, so the window never does."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, built from a copy so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "nasbench_at/tables"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("api", "drawn", "*.parquet")
        )
    for path in ROOT.glob("*.md"):
        shutil.copy(path, folder)
    words = ["--fail-on-warning", "--keep-going", "--quiet", ".", "../site"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words],
        cwd=folder / "docs",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder / "site/report.html").touch()  # which `make docs` adds
    return folder / "site"


def pages_of(site):
    return [page for page in sorted(site.rglob("*.html")) if page.name != "report.html"]


@cache
def anchors_of(page):
    return set(re.findall(r'\bid="([^"]+)"', page.read_text("utf-8")))


def broken_links(page):
    for word in re.findall(r'\b(?:href|src)="([^"]+)"', page.read_text("utf-8")):
        address = html.unescape(word)
        if re.match(r"(https?|mailto|data|javascript):", address):
            continue
        path, _, anchor = address.partition("#")
        target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
        is_page = target.suffix == ".html"
        if not target.exists() or (
            anchor and is_page and unquote(anchor) not in anchors_of(target)
        ):
            yield f"{page.name}: {address}"


def test_every_link_leads_somewhere(site):
    pages = pages_of(site)
    assert len(pages) > 100
    assert [link for page in pages for link in broken_links(page)] == []


def test_every_page_is_readable_on_a_telephone_and_needs_no_network(site):
    wide, missing = [], []
    with open_browser(viewport={"width": 400, "height": 900}) as (page, errors):
        page.on("requestfailed", lambda request: missing.append(request.url))
        for path in pages_of(site):
            page.goto(path.as_uri())
            if page.evaluate(WIDTH) > 400:
                wide.append(path.name)
            missing += page.evaluate(
                "[...document.images].filter(image => !image.naturalWidth).map(image => image.src)"
            )
    assert wide == []
    assert missing == []
    assert errors == []
