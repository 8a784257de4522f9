"""The simulator in CI: seeds that once mattered, fresh ones, one history per seed, and defects that must be noticed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cartwake.kit.crypto import Vault
from simulation.broken import VARIANTS
from simulation.chaos import FAULTS, Plan
from simulation.coverage import Coverage
from simulation.database import template_database
from simulation.report import fresh_seed, summary
from simulation.run import Outcome, simulate
from simulation.shrink import explained

pytestmark = pytest.mark.slow

CORPUS = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text())["seeds"]
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
SOUTH = frozenset({"AU", "NZ"})  # two of 23: in a story of all countries hardly anybody lives there
MORNING = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
COVERING_SEED, COVERING_MAX = 1200, 30
# Each defect must be noticed by one of so many stories; the first seed is one that did when it was written down.
STORIES_MAX = 15
NOTICED = {
    "consent_unlocked": (6, 1000),
    "cart_unlocked": (2, 1000),
    "stamped_early": (3, 1000),
    "no_look_up": (2, 800),
    "opens_late": (2, 800),
    "one_zone": (1, 800),
    "resend": (9, 1000),
    "no_recipient_cap": (1, 800),
}
# Some defects only show when nothing else disturbs, or when many people do what meets them.
FOCUSED: dict[str, dict[str, Any]] = {
    "consent_unlocked": {"faults": frozenset(), "plots": frozenset({"withdraw", "untick", "text_stop"})},
    "cart_unlocked": {"faults": frozenset()},
    "no_look_up": {"faults": frozenset({"lost_receipt"})},
    "stamped_early": {
        "faults": frozenset({"stall"}),
        "plots": frozenset({"stop_and_start", "withdraw", "tick_again"}),
        "merchants": 1,
        "shoppers": 12,
        "workers": 3,
    },
}


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


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: f"seed {entry['seed']}")
def test_the_corpus_is_sound(play: Play, entry: dict[str, int]) -> None:
    play.sound(Plan.of(entry["seed"], entry["steps"]))


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
        if not coverage.missing():
            break
    assert coverage.missing() == [], coverage.report()


def _an_evening(seed: int, coverage: Coverage) -> Plan:
    """Somebody from every country, on the evening before a change of clocks that no held text has seen yet."""
    missing = next((change for change in EVENINGS if not coverage.clock_changes[change]), None)
    begins = datetime.fromisoformat(EVENINGS[missing]) if missing else MORNING
    countries = SOUTH if missing and missing.startswith("south") else None
    return replace(Plan.of(seed, 600), begins=begins, shoppers=29, faults=frozenset(), countries=countries)


def _a_bad_day(seed: int) -> Plan:
    """Everything that can go wrong, while most of Europe may be texted; every second time without the long pauses."""
    faults = frozenset(FAULTS) - ({"stall"} if seed % 4 else set())
    return replace(Plan.of(seed, 1500), begins=MORNING, shoppers=12, workers=2, webs=2, schedulers=2, faults=faults)


def test_every_defect_is_tried() -> None:
    assert set(NOTICED) == set(VARIANTS)


@pytest.mark.parametrize("defect", NOTICED)
def test_a_defect_is_noticed(play: Play, defect: str) -> None:
    first, steps = NOTICED[defect]
    plans = (replace(Plan.of(seed, steps), variant=defect) for seed in range(first, first + STORIES_MAX))
    if (focus := FOCUSED.get(defect)) is not None:
        plans = (replace(plan, **{"shoppers": 8, "workers": 2, "webs": 2} | focus) for plan in plans)
    failure = next((failure for plan in plans if (failure := play(plan).failure)), None)
    assert failure is not None
    assert failure.what != "nothing fails unexpectedly", failure
