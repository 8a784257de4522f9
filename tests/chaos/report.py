"""The report: three tables that a reader can check, and whether anything in them must not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from chaos.count import EXAMPLES, Check, Count, Tally

WIDTH = 170
FATES = ("delivered", "undelivered", "failed", "no receipt", "dropped", "rejected", "not accepted", "unresolved",
         "not scheduled", "not ended")  # fmt: skip
CREDITS = ("put in", "spent", "refunded", "balance", "ledger", "off", "open_reservations")


@dataclass(frozen=True)
class Report:
    """Everything that there is to say."""

    about: Mapping[str, str]
    count: Count
    kills: Counter[str]
    answers: Counter[str]
    checks: Sequence[Check]

    @property
    def is_good(self) -> bool:
        """Whether nothing is that must not be."""
        return not any(check.wrong for check in self.checks)

    def print(self) -> None:
        """Print it."""
        console = Console(width=WIDTH, highlight=False)
        for name, value in self.about.items():
            console.print(f"{name:<12} {value}", soft_wrap=True)
        console.print(_texts(self.count))
        console.print(_credits(self.count))
        console.print(_reasons(self.count))
        console.print(_pairs("kill -9", self.kills))
        console.print(_pairs("tries at an HTTP door, by what came back", self.answers))
        console.print(_verdict(self.checks))
        for check in self.checks:
            for example in check.wrong[:EXAMPLES]:
                console.print(f"{check.name}: {example}", markup=False, soft_wrap=True)


def _texts(count: Count) -> Table:
    table = _table(
        "Carts, each with a phone of its own. Texted: by the carrier's own journal. The rest: as the database says"
    )
    table.add_column("organization")
    for name in ("carts", "texted once", "twice", *FATES):
        table.add_column(name, justify="right")
    for tally in (*count.tallies, count.total):
        numbers = (tally.fates.total(), tally.texted["once"], tally.texted["twice"], *(tally.fates[f] for f in FATES))
        _add(table, tally, numbers)
    return table


def _credits(count: Count) -> Table:
    table = _table(
        "Credits. Put in: as answered, and the month's refill. At the carrier: its texts at their price. "
        "Spent, refunded, ledger: sums of the ledger"
    )
    table.add_column("organization")
    for name in ("put in", "at the carrier", *CREDITS[1:]):
        table.add_column(name.replace("_", " "), justify="right")
    for tally in (*count.tallies, count.total):
        _add(table, tally, [tally.credits[name] for name in ("put in", "at the carrier", *CREDITS[1:])])
    return table


def _reasons(count: Count) -> Table:
    table = _table(
        "Fates and their reasons (a text that was found at the carrier keeps the reason why it was looked for)"
    )
    for name in ("fate", "reason"):
        table.add_column(name)
    table.add_column("carts", justify="right")
    for (fate, reason), number in sorted(count.reasons.items()):
        table.add_row(fate, reason, f"{number:,}")
    return table


def _pairs(title: str, counter: Counter[str]) -> Table:
    table = _table(title)
    for name in (*counter, "total"):
        table.add_column(name, justify="right")
    table.add_row(*(f"{number:,}" for number in (*counter.values(), counter.total())))
    return table


def _verdict(checks: Sequence[Check]) -> Table:
    table = _table("Must be 0")
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_column("")
    for check in checks:
        table.add_row(check.name, f"{len(check.wrong):,}", "WRONG" if check.wrong else "ok")
    return table


def _add(table: Table, tally: Tally, numbers: Sequence[int]) -> None:
    if tally.name == "total":
        table.add_section()
    table.add_row(tally.name, *(f"{number:,}" for number in numbers))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
