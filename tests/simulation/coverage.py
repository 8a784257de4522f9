"""What stories have come across: counted as they are played, because nobody should have to believe it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields

from cartwake.scheduler import TASKS
from simulation.chaos import FAULTS
from simulation.windows import AREA_CODES, ZONES

# Where a process may be when it dies, and its connection when it is lost.
CRASHES = (
    "worker claiming",
    "worker between claim and call",
    "worker with a call and the text not taken",
    "worker with a text taken and no answer yet",
    "worker with an answer that is not recorded",
    "worker recording",
    "worker applying events",
    "scheduler in a task",
    "scheduler asking the carrier",
    "scheduler recording",
    "web in a request",
    "web in a webhook",
    "connection lost before a statement",
    "connection lost before a commit",
    "connection lost after a commit",
)
# Who waits for whose lock, and in which room: a receipt and the answer to its call; two claims and one balance; an
# order and a claim; a no and a claim; two schedulers.
RACES = (
    "worker in messages for worker",
    "worker in credits for worker",
    "web in carts for worker",
    "web in consent for worker",
    "scheduler in jobs for scheduler",
)
# What was under way while a worker claimed the very text that it concerns; or another worker claimed too, or looked
# for due texts while the shop that has them was being claimed from.
SAME_SHOP = "another claim at the same shop"
MEETINGS = ("an order", "a payment", "a withdrawal", "an unticked box", "a STOP", "another claim", SAME_SHOP)
CLOCK_CHANGES = tuple(f"{where} {how}" for where in ("Europe", "America", "south") for how in ("forward", "back"))
AMERICAN_ZONES_MIN = 3  # of each of the two countries with area codes
COLUMN = 110


@dataclass
class Coverage:
    """How often each thing has happened. Adds up over stories."""

    texted: Counter[str] = field(default_factory=Counter)  # countries of phones that the carrier took a text for
    zones: Counter[str] = field(default_factory=Counter)  # of those with area codes: country and zone
    openings: Counter[str] = field(default_factory=Counter)  # countries of texts that were held and went out
    opened_at: Counter[str] = field(default_factory=Counter)  # the moments that those were held for
    clock_changes: Counter[str] = field(default_factory=Counter)  # crossed while a text was held that went out after
    faults: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    races: Counter[str] = field(default_factory=Counter)
    meetings: Counter[str] = field(default_factory=Counter)  # with claims
    tasks: Counter[str] = field(default_factory=Counter)  # of the scheduler, run to their ends
    stories: int = 0

    def __iadd__(self, other: Coverage) -> Coverage:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    def missing(self) -> list[str]:
        """What ought to have happened, and has not."""
        wanted: dict[str, Iterable[str]] = {
            "texted": ZONES,
            "openings": ZONES,
            "clock_changes": CLOCK_CHANGES,
            "faults": FAULTS,
            "crashes": CRASHES,
            "races": RACES,
            "meetings": MEETINGS,
            "tasks": [task.name for task in TASKS],
        }
        found: dict[str, Collection[str]] = {name: getattr(self, name).keys() for name in wanted}
        found["races"] = {re.sub(r"\.\S+", "", race) for race in self.races}  # without the statement
        lacking = {name: [each for each in wanted[name] if each not in found[name]] for name in wanted}
        lacking["zones"] = [country for country in AREA_CODES if self._zones_of(country) < AMERICAN_ZONES_MIN]
        return [f"{name.replace('_', ' ')}: {', '.join(each)}" for name, each in lacking.items() if each]

    def report(self) -> str:
        """All of it, for people."""
        stories = "1 story" if self.stories == 1 else f"{self.stories} stories"
        lines = [f"covered by {stories}:"]
        for each in fields(self):
            counts = getattr(self, each.name)
            if isinstance(counts, Counter):
                lines += _listed(each.name.replace("_", " "), counts)
        return "\n".join([*lines, *(f"  NOT COVERED: {what}" for what in self.missing())])

    def _zones_of(self, country: str) -> int:
        return sum(zone.startswith(f"{country} ") for zone in self.zones)


def _listed(name: str, counts: Counter[str]) -> Iterator[str]:
    """`name` and its counts, the most frequent first, in as many lines as they take."""
    line = f"  {name} ({len(counts)}):"
    for each, count in counts.most_common():
        word = f" {each} {count},"
        if len(line) + len(word) > COLUMN:
            yield line
            line = "   "
        line += word
    yield line.rstrip(",")
