"""The simulator in CI: seeds that once mattered, fresh ones, one history per seed, and defects that must be noticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cartwake.kit.crypto import Vault
from ci_minutes import SIMULATION_S, Budget
from simulation.broken import VARIANTS
from simulation.chaos import FAULTS, Plan
from simulation.corpus import read_corpus
from simulation.coverage import CRASHES, MEETINGS, Coverage
from simulation.database import template_database
from simulation.report import fresh_seed, summary
from simulation.run import Outcome, simulate
from simulation.shrink import BUDGET_S, explained

pytestmark = pytest.mark.slow

CORPUS = read_corpus()
TOLD = "refill_skipped"  # the defect whose failure is looked at closely: one that is noticed soon
SHORTEN_S = 20.0
TESTS = Path(__file__).parents[1]
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


@pytest.fixture(scope="module")
def play(server_url: str, vault: Vault, request: pytest.FixtureRequest) -> Iterator[Play]:
    with template_database(server_url, vault) as template:
        player = Play(server_url, template, Budget("simulation", SIMULATION_S))
        yield player
        player.budget.tell(request.config, f"{player.stories} stories, {player.steps:,} steps")


class Play:
    """Plays stories on this run's server, for as long as there is time."""

    def __init__(self, url: str, template: str, budget: Budget) -> None:
        self.budget, self.stories, self.steps = budget, 0, 0
        self._url, self._template = url, template

    def __call__(self, plan: Plan) -> Outcome:
        self.budget.check()
        outcome = simulate(plan, self._url, self._template)
        self.stories += 1
        self.steps += outcome.steps
        return outcome

    def sound(self, plan: Plan, shorten_s: float = BUDGET_S) -> Outcome:
        """Play a story that must be sound; a failure shows its seed and a shortened story."""
        outcome = self(plan)
        if outcome.failure is not None:
            story = explained(outcome, self.again, min(shorten_s, self.budget.left_s))
            pytest.fail(f"{summary(outcome)}\n{story}", pytrace=False)
        return outcome

    def again(self, plan: Plan) -> Outcome:
        """A smaller story of a failure: the time for that was looked at before."""
        return simulate(plan, self._url, self._template)

    def elsewhere(self, command: str, hash_seed: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository's folder, as somebody would; on this run's server, to save time."""
        self.budget.check()
        env = os.environ | {"CARTWAKE_DATABASE_URL": self._url, "PYTHONHASHSEED": str(hash_seed)}
        return subprocess.run(
            command, shell=True, cwd=TESTS.parent, env=env, capture_output=True, text=True,
            timeout=self.budget.left_s, check=False,
        )  # fmt: skip


def test_every_defect_has_its_seed() -> None:
    assert set(CORPUS) == set(VARIANTS)


@pytest.mark.parametrize("defect", CORPUS)
def test_the_corpus_finds_its_defects_and_nothing_else(play: Play, defect: str) -> None:
    entry = CORPUS[defect]
    failure = play(replace(entry.plan, variant=defect)).failure
    assert entry.notices(failure), entry.lost(failure)
    play.sound(entry.plan)


def test_a_lost_seed_says_how_to_find_another() -> None:
    entry = CORPUS[TOLD]
    assert not entry.notices(None)
    assert f"-m simulation --find {TOLD}" in entry.lost(None)


def test_a_failure_tells_its_seed_and_a_shorter_story_that_can_be_played_again(play: Play) -> None:
    plan = replace(CORPUS[TOLD].plan, variant=TOLD)
    found = play(plan)
    with pytest.raises(pytest.fail.Exception) as failed:
        play.sound(plan, SHORTEN_S)
    told = str(failed.value)
    assert found.failure is not None
    assert f"seed {plan.seed} {found.digest}" in told
    assert found.failure.what in told
    shown = re.findall(r"^ *\d+ \d\d-\d\d .*$", told, re.MULTILINE)
    assert 0 < len(shown) < len(found.story.lines) / 2
    commands = dict(re.findall(r"^(shortened|as found): +(.*)$", told, re.MULTILINE))
    shortened, as_found = (_steps(commands[name]) for name in ("shortened", "as found"))
    assert shortened < as_found == plan.steps
    for command in commands.values():
        again = play.elsewhere(command)
        assert again.returncode == 1, again.stdout + again.stderr
        assert f"BROKEN {found.failure.what}" in again.stdout


def _steps(command: str) -> int:
    return int(command.split("--steps ")[1].split(maxsplit=1)[0])


def test_nothing_is_begun_when_the_time_is_over(play: Play) -> None:
    late = Play("", "", Budget("simulation", 0))
    with pytest.raises(pytest.fail.Exception, match="not all that is required was met"):
        late.sound(Plan.of(1, 10))


@pytest.mark.parametrize("number", range(FRESH_SEEDS))
def test_fresh_seeds_are_sound(play: Play, number: int) -> None:
    play.sound(Plan.of(fresh_seed(), FRESH_STEPS))


def test_one_seed_gives_one_history_in_every_process(play: Play) -> None:
    """One that hashes otherwise too: nothing hangs on the order of a set, nor on what was imported or played before."""
    plan = Plan.of(5, 900)
    here = play(plan)
    hash_seed = 1 + (os.environ.get("PYTHONHASHSEED") == "1")
    there = play.elsewhere(f"cd tests && {sys.executable} -m simulation {plan}", hash_seed)
    assert f"seed 5 {here.digest}: {here.steps} steps" in there.stdout, there.stdout + there.stderr


def test_the_stories_come_across_everything(play: Play) -> None:
    """One kind of story after the other until nothing is missing: how often is chance, that it happens is not."""
    coverage = Coverage()
    for seed in range(COVERING_SEED, COVERING_SEED + COVERING_MAX):
        coverage += play.sound(_an_evening(seed, coverage) if seed % 2 else _a_bad_day(seed)).coverage
        if set(MEETINGS) - coverage.meetings.keys():
            coverage += play.sound(_a_crowd(seed)).coverage
        if set(CRASHES) - coverage.crashes.keys():
            coverage += play.sound(_a_deadly_day(seed)).coverage
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


def _a_deadly_day(seed: int) -> Plan:
    """Many texts are under way, and every other moment a process dies."""
    faults, plots = frozenset({"kill", "timeout_after", "lost_receipt"}), frozenset({"walk_away", "complete"})
    crowd = replace(Plan.of(seed, 1000), merchants=2, shoppers=18, workers=3, webs=2, schedulers=2)
    return replace(crowd, begins=MORNING + timedelta(hours=1), faults=faults, plots=plots, countries=AWAKE)


def _a_bad_day(seed: int) -> Plan:
    """Everything that can go wrong, while most of Europe may be texted; every second time without the long pauses."""
    faults = frozenset(FAULTS) - ({"stall"} if seed % 4 else set())
    return replace(Plan.of(seed, 1500), begins=MORNING, shoppers=12, workers=2, webs=2, schedulers=2, faults=faults)
