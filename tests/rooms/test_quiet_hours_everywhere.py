"""Every place there is a rule for, every change of its clocks in ten years, both edges of the window.

The law's hours are read from the rules; what is reckoned independently here is the clock: by the time that
each zone shows at an instant, not by intervals.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache

import pytest

from cartwake.quiet_hours.places import rule_book, rule_for
from cartwake.quiet_hours.windows import SendWindow, next_opening
from cartwake.quiet_hours.zones import zone

FIRST, LAST = date(2021, 1, 1), date(2030, 12, 31)
WINDOW = SendWindow(time(10), time(19))
SECOND = timedelta(seconds=1)
PLACES = sorted(rule_book().places)
# A day before a change, the day itself, and the day after.
AROUND = (-1, 0, 1)
# Their clocks change in spring and autumn, around Ramadan, and hardly ever; the others: `make slow`.
QUICK = "ELM"


@cache
def days_of_change(name: str) -> tuple[date, ...]:
    """The days of ten years after whose midnight (UTC) a zone's offset is another than after the one before."""
    days = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days)]
    offsets = [datetime.combine(day, time(), UTC).astimezone(zone(name)).utcoffset() for day in days]
    return tuple(day for n, day in enumerate(days) if n and offsets[n] != offsets[n - 1])


def shows_open(moment: datetime, place: str, zones: tuple[str, ...]) -> bool:
    """Whether every zone's clock shows a time that shop and law allow."""
    for name in zones:
        shown = moment.astimezone(zone(name))
        hours = rule_for(place).hours_on(shown.date())
        if hours is None or not max(WINDOW.opens, hours[0]) <= shown.time() < min(WINDOW.closes, hours[1]):
            return False
    return True


@pytest.mark.parametrize(
    "letter",
    [
        letter if letter in QUICK else pytest.param(letter, marks=pytest.mark.slow)
        for letter in sorted({place[0] for place in PLACES})
    ],
)
def test_both_edges_at_every_change_of_every_place(letter: str) -> None:
    for place in PLACES:
        zones = rule_for(place).zones
        if place[0] == letter and zones:
            changes = {day + timedelta(days=n) for name in zones for day in days_of_change(name) for n in AROUND}
            for day in changes or {date(2026, 3, 29)}:
                check_day(place, zones, day)


def check_day(place: str, zones: tuple[str, ...], day: date) -> None:
    """Walk the openings of one day of UTC, and look at the clocks at each edge and every half hour between."""
    moment = datetime.combine(day, time(), UTC)
    end = moment + timedelta(days=1)
    while moment < end:
        opening = next_opening(moment, zones=zones, places=(place,), window=WINDOW)
        opens_at = opening.opens_at if opening else end
        gap = moment
        while gap < min(opens_at, end):
            assert not shows_open(gap, place, zones), (place, gap)
            gap += timedelta(minutes=30)
        if opening is None or opens_at >= end:
            return
        assert shows_open(opens_at, place, zones), (place, opens_at)
        assert opens_at == moment or not shows_open(opens_at - SECOND, place, zones), (place, opens_at)
        assert shows_open(opening.closes_at - SECOND, place, zones), (place, opening.closes_at)
        assert not shows_open(opening.closes_at, place, zones), (place, opening.closes_at)
        moment = opening.closes_at
