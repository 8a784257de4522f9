"""The seeds that once found a defect, in `corpus.toml`: read, played, and found anew when a story has been lost."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from simulation.chaos import ACTORS, Plan
from simulation.report import summary
from simulation.run import Outcome
from simulation.story import Broken

CORPUS = Path(__file__).with_name("corpus.toml")
FIND = "cd tests && ../.venv/bin/python -m simulation --find"
SEEDS_MAX = 200  # as many are tried before somebody has to think about the defect instead
# People and machines enough to get into each other's way.
CROWD = {"shoppers": 8, "workers": 2, "webs": 2}
CHOICES = {"faults", "plots", "countries", *ACTORS}

Play = Callable[[Plan], Outcome]


@dataclass(frozen=True)
class Entry:
    """A defect, the seed that finds it, and what is noticed then."""

    defect: str
    why: str
    noticed: frozenset[str]
    plan: Plan  # without the defect

    def with_seed(self, seed: int) -> Entry:
        """The same with another story."""
        return replace(self, plan=_planned(read_raw()[self.defect], seed))

    def notices(self, failure: Broken | None) -> bool:
        """Whether a story with the defect was broken as it should be."""
        return failure is not None and failure.what in self.noticed

    def lost(self, failure: Broken | None) -> str:
        """What to say when its seed does not find it: what happened instead, and how to find another."""
        instead = f"it was broken otherwise: {failure}" if failure else "the story was sound"
        return (
            f"seed {self.plan.seed} does not find the defect `{self.defect}` ({self.why}): {instead}.\n"
            f"If simulator or product ask other things than before, find another seed: {FIND} {self.defect}"
        )


def read_corpus() -> dict[str, Entry]:
    """All of it, by defect."""
    return {
        defect: Entry(defect, raw["why"], frozenset(raw["noticed"]), _planned(raw, raw["seed"]))
        for defect, raw in read_raw().items()
    }


def read_raw() -> dict[str, dict[str, Any]]:
    """The file as it stands."""
    return tomllib.loads(CORPUS.read_text("utf-8"))


def find(entry: Entry, play: Play) -> Iterator[str]:
    """Make sure that an entry's seed finds its defect; else look among those after it, and write down the first.

    Yields what there is to tell. Raises `LookupError` when none does, `Broken` when a story without it is not sound.
    """
    for each in map(entry.with_seed, islice(count(entry.plan.seed), SEEDS_MAX)):
        with_defect = play(replace(each.plan, variant=entry.defect))
        yield f"{entry.defect}: {summary(with_defect)}"
        if not entry.notices(with_defect.failure):
            continue
        if (without := play(each.plan).failure) is not None:
            raise without
        write_seed(entry.defect, each.plan.seed)
        return
    raise LookupError(f"none of {SEEDS_MAX} seeds from {entry.plan.seed} on finds `{entry.defect}`: {entry.why}")


def write_seed(defect: str, seed: int) -> None:
    """Put another seed into the file, and leave the rest as it stands."""
    told = CORPUS.read_text("utf-8")
    changed, times = re.subn(rf"(?ms)(^\[{re.escape(defect)}\]$.*?^seed = )\d+$", rf"\g<1>{seed}", told, count=1)
    if times != 1:
        raise ValueError(f"{CORPUS} has no seed for {defect}")
    CORPUS.write_text(changed, "utf-8")


def _planned(raw: dict[str, Any], seed: int) -> Plan:
    """A seed's plan, with what the corpus wants in it."""
    chosen = {name: frozenset(value) if isinstance(value, list) else value for name, value in raw.items()}
    focus = {name: value for name, value in chosen.items() if name in CHOICES}
    return replace(Plan.of(seed, raw["steps"]), **(CROWD | focus if focus else {}))
