"""The site: it builds without a warning, every page opens in a browser, and every internal link leads somewhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest

from ..helpers.browser import CHROMIUM, Browser

pytestmark = pytest.mark.long  # `make docs` runs them

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "docs"

LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
IDS = "[...document.querySelectorAll('[id]')].map(e => e.id)"
BROKEN_PICTURES = "[...document.images].filter(i => !i.naturalWidth && i.loading != 'lazy').map(i => i.src)"
EXCESS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def site() -> Path:
    """Built as `make docs` does, from what is there."""
    missing = [name for name in ("sphinx", "myst_parser", "furo") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; `make docs` installs them")
    # -a: pages that have not changed have tables of contents that may have
    options = ["-a", "-W", "--keep-going", "-q", "-d", "build/doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, "docs", "build/docs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return SITE


def pages_of(site: Path) -> set[Path]:
    docs = ROOT / "docs"
    return {site / page.relative_to(docs).with_suffix(".html") for page in docs.rglob("*.md")}


def test_every_page_is_on_the_site(site: Path) -> None:
    for page in pages_of(site):
        assert page.exists(), page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; `make docs` installs it where it may")
def test_every_internal_link(site: Path, tmp_path: Path) -> None:
    """Each page in a wide and in a narrow window: no error, no broken picture, nothing wider than the window."""
    ids: dict[Path, set[str]] = {}
    links: dict[Path, list[str]] = {}
    with Browser(tmp_path) as browser:
        waiting = [site / "index.html"]
        while waiting:
            page = waiting.pop()
            if page in ids:
                continue
            browser.resize(1280, 900)
            browser.open(page.as_uri())
            ids[page], links[page] = set(browser.value(IDS)), browser.value(LINKS)
            assert not browser.value(BROKEN_PICTURES), page
            for width in (1280, 390):
                browser.resize(width, 900)
                assert browser.value(EXCESS) <= 0, f"{page} is wider than a window of {width} pixels"
            inside = [link for link in links[page] if urlparse(link).scheme == "file"]
            for link in inside:
                target = Path(unquote(urlparse(link).path))
                assert target.is_file(), f"{page} links to {link}"
                if target.suffix == ".html":
                    waiting.append(target)
        assert not browser.problems
    assert not pages_of(site) - ids.keys(), "no link leads there"
    for page, found in links.items():
        for link in found:
            url, anchor = urldefrag(link)
            if anchor and urlparse(url).scheme == "file" and url.endswith(".html"):
                assert unquote(anchor) in ids[Path(unquote(urlparse(url).path))], f"{page} links to {link}"
