"""The documentation as a site: it builds without a warning, and a reader's browser fetches nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself; a link that a reader follows may lead anywhere.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Strict: a warning (a broken link, a missing anchor, a page in no menu) stops the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Fetches(HTMLParser):
    """The addresses that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "link" and named.get("rel") != "canonical":
            self.addresses.append(named.get("href") or "")
        elif tag in FETCHED:
            self.addresses.append(named.get(FETCHED[tag]) or "")


@pytest.mark.thorough
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        found = Fetches()
        found.feed(page.read_text())
        assert found.addresses, page
        assert [address for address in found.addresses if re.match(r"(\w+:)?//", address)] == [], page
        # The theme would fetch a script to draw these.
        assert 'class="mermaid"' not in page.read_text()
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


@pytest.mark.thorough
def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.name).with_suffix(".html").exists(), page.name
    assert (site / "architecture.html").exists() and (site / "changelog.html").exists()


@pytest.mark.thorough
def test_links_that_leave_the_site_are_named_and_those_inside_lead_to_pages(site: Path) -> None:
    assert "tests/mutants/table.toml" in (site / "guarantees.html").read_text()
    assert 'href="../tests' not in (site / "guarantees.html").read_text()
    assert 'href="architecture.html"' in (site / "index.html").read_text()
