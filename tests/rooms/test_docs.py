"""Documents say what the code does: the drawn states, the settings, the relative links."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from cartwake.invariants import INVARIANTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_drawn_states_are_the_code_s() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "make_states.py"))["page"]
    assert (ROOT / "docs" / "states.md").read_text() == draw(), "run: python docs/make_states.py"


def test_the_listed_settings_are_those_that_the_code_reads() -> None:
    write = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))["page"]
    assert (ROOT / "docs" / "configuration.md").read_text() == write(), "run: python docs/make_configuration.py"


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


def test_the_guarantees_name_every_mutant_and_every_test_that_exists() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    mutants = tomllib.loads((ROOT / "tests" / "mutants" / "table.toml").read_text())
    for guarantee, listed in re.findall(r"^\| (G\d+) \|.*\| ([^|]+) \|$", page, re.MULTILINE):
        expected = [name for name, mutant in mutants.items() if guarantee in mutant["guarantee"].split()]
        assert re.findall(r"`(.+?)`", listed) == expected, f"docs/guarantees.md: the lines of {guarantee}"
    for name, mutant in mutants.items():
        for line in (mutant, *mutant.get("also", ())):
            text = (ROOT / "src" / "cartwake" / line["file"]).read_text()
            assert line["old"] in text, f"the line of {name} has changed: tests/mutants/table.toml"
    tests = {file.name for file in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"`(test_\w+\.py)`", page)) <= tests


def test_the_readme_shows_each_guarantee_by_a_test_that_the_guarantees_name() -> None:
    guarantees = (ROOT / "docs" / "guarantees.md").read_text()
    shown = re.findall(r"^\| (G\d+) \|.*\| `(.+?)` \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert [name for name, _ in shown] == [f"G{number}" for number in range(1, 13)]
    for name, proof in shown:
        row = re.search(rf"^\| {name} \|.*$", guarantees, flags=re.MULTILINE)
        assert row is not None
        assert (ROOT / proof).exists() or proof.startswith("cartwake ")
        assert proof.startswith("cartwake ") or f"`{Path(proof).name}`" in row[0], f"{name}: {proof}"


def test_the_guarantees_name_every_invariant() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    named = {name for name, guarantee, _ in INVARIANTS if guarantee.startswith("G")}
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_the_table_of_quiet_hours_is_the_rules() -> None:
    write = runpy.run_path(str(ROOT / "docs" / "make_quiet_hours.py"))["page"]
    assert (ROOT / "docs" / "quiet-hours.md").read_text() == write(), "run: python docs/make_quiet_hours.py"
