"""The closing summary: who was texted, who was not and why, what it cost and what it brought."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cartwake.demo.happenings import clock, plain
from cartwake.demo.traffic import Traffic
from cartwake.demo.verdict import TAKEN, Ending, Mismatch
from cartwake.invariants import INVARIANTS, Broken

COUNTRY_COLUMNS = 3


@dataclass(frozen=True)
class Account:
    """An organization's credits: its ledger, newest entry first, and what is left."""

    name: str
    plan: str
    ledger: list[dict[str, Any]]
    available_credits: int


@dataclass(frozen=True)
class Report:
    """Everything that the summary tells."""

    traffic: Traffic
    endings: Sequence[Ending]
    accounts: Sequence[Account]
    mismatches: Sequence[Mismatch]
    strays: Sequence[str]
    broken: Sequence[Broken]

    @property
    def is_good(self) -> bool:
        """Every story ended as written, and every invariant holds."""
        return not (self.mismatches or self.strays or self.broken)


def print_summary(console: Console, report: Report) -> None:
    """The whole summary."""
    for title, table in (
        ("Texts by country", _countries(report.endings)),
        ("Held, until when (on the shopper's clock) and why", _held(report)),
        ("Not delivered, and why", _not_texted(report)),
        ("Credits", _credits(report.accounts)),
        ("Carts recovered", _recovered(report.endings)),
    ):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(Padding(table, (0, 0, 0, 1)))
    _print_verdict(console, report)


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name in right)
    return table


def _countries(endings: Sequence[Ending]) -> RenderableType:
    texts: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for ending in endings:
        if ending.text is not None and ending.text_state in TAKEN:
            texts[ending.text["phone_country"]].append(ending.text)
    cells = [_country(country, texts[country]) for country in sorted(texts)]
    cells.append(_country("all", [text for found in texts.values() for text in found]))
    height = -(-len(cells) // COUNTRY_COLUMNS)
    cells += [("", "", "", "")] * (height * COUNTRY_COLUMNS - len(cells))
    columns = ("", "texts", "segm.", "credits")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for name in columns * COUNTRY_COLUMNS:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for number in range(height):
        table.add_row(*(cell for column in range(COUNTRY_COLUMNS) for cell in cells[number + column * height]))
    return table


def _country(country: str, texts: Sequence[dict[str, Any]]) -> tuple[str, str, str, str]:
    return (
        country,
        str(len(texts)),
        str(sum(text["segments"] for text in texts)),
        str(sum(text["credits"] for text in texts)),
    )


def _held(report: Report) -> RenderableType:
    table = _table("who", "where", "until", "why")
    for ending in report.endings:
        zone = report.traffic.zone_of(ending.shopper.city)
        for hold in ending.held:
            until = clock(datetime.fromisoformat(hold["until"]).astimezone(zone)) if hold["until"] else ""
            table.add_row(ending.shopper.name, ending.shopper.city, until, plain(hold["reason"]))
    return table


def _not_texted(report: Report) -> RenderableType:
    table = _table("who", "where", "what", "why")
    for ending in report.endings:
        what = {"dropped": "dropped", "rejected": "rejected", "undelivered": "undelivered"}.get(ending.text_state)
        if ending.cart is None:
            what, why = "refused by API", plain(ending.story.refused[0]) if ending.story.refused else ""
        elif ending.text is None and ending.outcome == "left":
            what, why = "not scheduled", plain(ending.why)
        else:
            why = plain(ending.why)
        if what:
            table.add_row(ending.shopper.name, ending.shopper.city, what, why)
    return table


def _credits(accounts: Sequence[Account]) -> RenderableType:
    figures = ("added", "reserved", "confirmed", "released", "refunded", "left")
    table = _table("organization", "plan", *figures, right=figures)
    for account in accounts:
        totals: Counter[str] = Counter()
        size = {
            line["reservation_id"]: -line["credits"] for line in account.ledger if line["entry_type"] == "SEND_RESERVE"
        }
        for line in account.ledger:
            kind = line["entry_type"]
            totals[kind] += size[line["reservation_id"]] if kind == "SEND_CONFIRM" else abs(line["credits"])
        added = sum(line["credits"] for line in account.ledger if line["reservation_id"] is None)
        kinds = ("SEND_RESERVE", "SEND_CONFIRM", "SEND_REFUND", "DELIVERY_REFUND")
        moved = [str(totals[kind]) for kind in kinds]
        table.add_row(account.name, account.plan, str(added), *moved, str(account.available_credits))
    return table


def _recovered(endings: Sequence[Ending]) -> RenderableType:
    won: defaultdict[str, list[Ending]] = defaultdict(list)
    for ending in endings:
        if ending.cart is not None and ending.cart["recovered"]:
            won[ending.shopper.currency].append(ending)
    table = _table("currency", "carts", "by token", "by tap", "value", right=("carts", "by token", "by tap", "value"))
    for currency, found in sorted(won.items()):
        by = Counter(ending.story.attribution for ending in found)
        value = sum(ending.shopper.value_minor for ending in found) / 100
        table.add_row(currency, str(len(found)), str(by["token"]), str(by["click"]), f"{value:,.2f}")
    texted = sum(ending.text_state in TAKEN for ending in endings)
    total = sum(map(len, won.values()))
    table.add_row("all", str(total), "", "", f"of {texted} texted")
    return table


def _print_verdict(console: Console, report: Report) -> None:
    console.print()
    for mismatch in report.mismatches:
        _print_mismatch(console, report.traffic, mismatch)
    for stray in report.strays:
        console.print(Text(stray, style="bold red"))
    for broken in report.broken:
        console.print(Text(f"BROKEN {broken.name} ({broken.guarantee}): {broken.rows[:3]}", style="bold red"))
    told = len(report.endings)
    console.print(
        Text.assemble(
            (f"{told - len(report.mismatches)} of {told} stories ended as written; ", "bold"),
            (f"{len(INVARIANTS)} invariants checked, {len(report.broken)} broken.", "bold"),
            style="green" if report.is_good else "red",
        )
    )


def _print_mismatch(console: Console, traffic: Traffic, mismatch: Mismatch) -> None:
    shopper = mismatch.ending.shopper
    console.print(Text(f"{shopper.name}, {shopper.city}: {shopper.story}", style="bold red"))
    for wrong in mismatch.wrong:
        console.print(Text(f"  {wrong}", style="red"))
    zone = traffic.zone_of(shopper.city)
    for decision in mismatch.ending.decisions:
        at = datetime.fromisoformat(decision["at"]).astimezone(zone)
        until = (
            f" until {datetime.fromisoformat(decision['until']).astimezone(zone):%a %H:%M}" if decision["until"] else ""
        )
        line = f"  {at:%a %H:%M:%S}  {decision['gate']:<12} {decision['outcome']:<9} {decision['reason']}{until}"
        console.print(Text(line, style="dim"))
