"""Documents say what the code does: the drawn states, the settings, the relative links."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_drawn_states_are_the_code_s() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "make_states.py"))["page"]
    assert (ROOT / "docs" / "states.md").read_text() == draw(), "run: python docs/make_states.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    source = ROOT / "src" / "cartwake"
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        assert (source / name).exists() or (ROOT / name).exists() or name in ("model.py", "store.py"), name


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for decision in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert decision.name in listed
        assert len(decision.read_text().splitlines()) <= 40, f"{decision.name} is too long to quote"
