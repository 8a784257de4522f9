"""The simulator in CI: seeds that once mattered, fresh ones, one history per seed, and defects that must be noticed."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cartwake.kit.crypto import Vault
from simulation.broken import VARIANTS
from simulation.chaos import Plan
from simulation.database import template_database
from simulation.report import fresh_seed, summary
from simulation.run import Outcome, simulate
from simulation.shrink import explained

pytestmark = pytest.mark.slow

CORPUS = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text())["seeds"]
FRESH_SEEDS = 2
FRESH_STEPS = 1500  # with fewer, most texts come due only when nothing goes wrong any more
# Each defect must be noticed by one of so many stories; the first seed is one that did when it was written down.
STORIES_MAX = 15
NOTICED = {
    "consent_unlocked": (7, 1500),
    "cart_unlocked": (4, 1500),
    "one_zone": (1, 800),
    "resend": (2, 800),
    "no_recipient_cap": (2, 800),
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


def test_every_defect_is_tried() -> None:
    assert set(NOTICED) == set(VARIANTS)


@pytest.mark.parametrize("defect", NOTICED)
def test_a_defect_is_noticed(play: Play, defect: str) -> None:
    first, steps = NOTICED[defect]
    plans = (replace(Plan.of(seed, steps), variant=defect) for seed in range(first, first + STORIES_MAX))
    failure = next((failure for plan in plans if (failure := play(plan).failure)), None)
    assert failure is not None
    assert failure.what != "nothing fails unexpectedly", failure
