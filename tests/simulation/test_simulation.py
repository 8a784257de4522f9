"""The simulator in CI: seeds that once mattered, fresh ones, one history per seed, and defects that must be noticed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cartwake.kit.crypto import Vault
from simulation.broken import VARIANTS
from simulation.chaos import ACTORS, FAULTS, Plan
from simulation.coverage import MEETINGS, Coverage
from simulation.database import template_database
from simulation.report import fresh_seed, summary
from simulation.run import Outcome, simulate
from simulation.shrink import explained

pytestmark = pytest.mark.slow

CORPUS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text("utf-8"))
FRESH_SEEDS = 2
FRESH_STEPS = 1500  # with fewer, most texts come due only when nothing goes wrong any more
# Evenings before clocks change, for what is held that night.
EVENINGS = {
    "Europe forward": "2026-03-28T17:00Z",
    "Europe back": "2026-10-24T17:00Z",
    "America forward": "2027-03-14T00:00Z",
    "America back": "2026-10-31T23:30Z",
    "south forward": "2026-10-03T09:00Z",
    "south back": "2027-04-03T08:00Z",
}
AWAKE = frozenset({"AT", "CH", "DE", "DK", "ES", "LT", "LV", "NL", "NO", "PL", "SE"})  # in the morning
SOUTH = frozenset({"AU", "NZ"})  # two of 23: in a story of all countries hardly anybody lives there
MORNING = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
COVERING_SEED, COVERING_MAX = 1200, 30
# A seed that does not find its defect any more is looked for among so many after it.
STORIES_MAX = 40
# People and machines enough to get into each other's way.
CROWD = {"shoppers": 8, "workers": 2, "webs": 2}
CHOICES = {"faults", "plots", "countries", *ACTORS}


@pytest.fixture(scope="module")
def play(server_url: str, vault: Vault) -> Iterator[Play]:
    with template_database(server_url, vault) as template:
        yield Play(server_url, template)


class Play:
    """Plays stories on this run's server."""

    def __init__(self, url: str, template: str) -> None:
        self._url, self._template = url, template

    def __call__(self, plan: Plan) -> Outcome:
        return simulate(plan, self._url, self._template)

    def sound(self, plan: Plan) -> Outcome:
        """Play a story that must be sound; a failure shows its seed and a shortened story."""
        outcome = self(plan)
        assert outcome.failure is None, summary(outcome) + "\n" + explained(outcome, self)
        return outcome


def test_every_defect_has_its_seed() -> None:
    assert set(CORPUS) == set(VARIANTS)


@pytest.mark.parametrize("defect", CORPUS)
def test_the_corpus_finds_its_defects_and_nothing_else(play: Play, defect: str) -> None:
    entry = CORPUS[defect]
    first = entry["seed"]
    plans = (_planned(entry, seed) for seed in range(first, first + STORIES_MAX))
    found = next((plan for plan in plans if _notices(play, plan, defect, entry["noticed"])), None)
    assert found is not None, f"none of {STORIES_MAX} seeds from {first} on notices the defect: {entry['why']}"
    play.sound(found)


def _planned(entry: dict[str, Any], seed: int) -> Plan:
    """A seed's plan, with what the corpus wants in it."""
    chosen = {name: frozenset(value) if isinstance(value, list) else value for name, value in entry.items()}
    focus = {name: value for name, value in chosen.items() if name in CHOICES}
    return replace(Plan.of(seed, entry["steps"]), **(CROWD | focus if focus else {}))


def _notices(play: Play, plan: Plan, defect: str, noticed: list[str]) -> bool:
    failure = play(replace(plan, variant=defect)).failure
    assert failure is None or failure.what in noticed, f"seed {plan.seed}, for another reason: {failure}"
    return failure is not None


@pytest.mark.parametrize("number", range(FRESH_SEEDS))
def test_fresh_seeds_are_sound(play: Play, number: int) -> None:
    play.sound(Plan.of(fresh_seed(), FRESH_STEPS))


def test_one_seed_gives_one_history(play: Play) -> None:
    plan = Plan.of(5, 900)
    first, second = play(plan), play(plan)
    assert (first.digest, first.steps) == (second.digest, second.steps)


def test_the_stories_come_across_everything(play: Play) -> None:
    """One kind of story after the other until nothing is missing: how often is chance, that it happens is not."""
    coverage = Coverage()
    for seed in range(COVERING_SEED, COVERING_SEED + COVERING_MAX):
        coverage += play.sound(_an_evening(seed, coverage) if seed % 2 else _a_bad_day(seed)).coverage
        if set(MEETINGS) - coverage.meetings.keys():
            coverage += play.sound(_a_crowd(seed)).coverage
        if not coverage.missing():
            break
    assert coverage.missing() == [], coverage.report()


def _an_evening(seed: int, coverage: Coverage) -> Plan:
    """Somebody from every country, on the evening before a change of clocks that no held text has seen yet."""
    missing = next((change for change in EVENINGS if not coverage.clock_changes[change]), None)
    begins = datetime.fromisoformat(EVENINGS[missing]) if missing else MORNING
    countries = SOUTH if missing and missing.startswith("south") else None
    return replace(Plan.of(seed, 600), begins=begins, shoppers=29, faults=frozenset(), countries=countries)


def _a_crowd(seed: int) -> Plan:
    """Many who change their minds at two merchants', while three workers claim."""
    plots = frozenset({"complete", "pay", "withdraw", "untick", "text_stop"})
    crowd = replace(Plan.of(seed, 1000), merchants=2, shoppers=18, workers=3, webs=2)
    return replace(crowd, begins=MORNING + timedelta(hours=1), faults=frozenset(), plots=plots, countries=AWAKE)


def _a_bad_day(seed: int) -> Plan:
    """Everything that can go wrong, while most of Europe may be texted; every second time without the long pauses."""
    faults = frozenset(FAULTS) - ({"stall"} if seed % 4 else set())
    return replace(Plan.of(seed, 1500), begins=MORNING, shoppers=12, workers=2, webs=2, schedulers=2, faults=faults)
