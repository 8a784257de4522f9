"""When the send window is open, to the second, across every change of the clocks.

Hours are thought of in local time, because people and laws do, and reckoned in UTC, because only there
does every moment come once. An opening is half-open: its first instant is allowed, its last is not.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache, reduce
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

from cartwake.kit.errors import BadInput
from cartwake.quiet_hours.places import Hours, place_of, rule_for
from cartwake.quiet_hours.zones import zone

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
HORIZON = timedelta(days=7)  # a text that finds no opening within a week is dropped, not held

# The least that a spread leaves of an opening, so that the last text of a queue still has time to go out:
# no call to the carrier starts more than 30 s after its message was claimed.
ROOM_S = 60

# Twilio's ValidityPeriod (Messages resource): whole seconds.
VALIDITY_MIN_S, VALIDITY_MAX_S = 1, 36_000


@dataclass(frozen=True)
class SendWindow:
    """The hours that a shop chose, on its shoppers' clocks; the law of a place may narrow them."""

    opens: time = time(10)
    closes: time = time(19)


@dataclass(frozen=True, slots=True)
class Opening:
    """An unbroken time to send in, aware UTC: from `opens_at` until just before `closes_at`."""

    opens_at: datetime
    closes_at: datetime


def check_shop_window(window: SendWindow, country: str) -> None:
    """Raise `BadInput` (slug `invalid-send-window`) for a window that the country's rule never allows whole."""
    if window.opens.tzinfo or window.closes.tzinfo:
        raise _bad_window("The send window is in the shopper's local time: give it without a time zone.")
    if window.opens >= window.closes:
        raise _bad_window("The send window must open before it closes, within one day.")
    place = place_of(country)
    days = [hours for hours in rule_for(place).week if hours]
    earliest, latest = min(opens for opens, _ in days), max(closes for _, closes in days)
    if window.opens < earliest or window.closes > latest:
        raise _bad_window(
            f"The send window must lie within {earliest:%H:%M}-{latest:%H:%M}: "
            f"no marketing text may arrive outside these hours in {place}."
        )


def next_opening(
    now: datetime, *, zones: tuple[str, ...], places: tuple[str, ...], window: SendWindow
) -> Opening | None:
    """The first time from `now` (aware) on at which the window is open in all `zones` at once.

    What counts in each zone is the shop's `window` within the rules of all `places`. `opens_at` is `now`
    itself when it is open already. None when nothing opens within 7 days, or no zone is known.
    """
    if not zones:
        return None
    now = now.astimezone(UTC)
    for days_ahead in range(HORIZON.days + 1):
        for opening in _common_openings(now.date() + days_ahead * DAY, zones, places, window):
            if opening.closes_at > now:
                return _from(opening, now)
    return None


def spread(opening: Opening, *, message_id: UUID, spread_s: int) -> datetime:
    """When within the first `spread_s` seconds of an opening this message is due; the same in every process.

    A night's texts would otherwise all be due in its first instant. Short openings spread less: the last
    `ROOM_S` seconds stay free, and what is shorter than that is not spread at all.
    """
    length_s = int((opening.closes_at - opening.opens_at).total_seconds())
    widest_s = max(min(spread_s, length_s - ROOM_S), 0)
    digest = hashlib.blake2b(message_id.bytes, digest_size=8, person=b"quiet-hours").digest()
    return opening.opens_at + timedelta(seconds=int.from_bytes(digest, "big") % (widest_s + 1))


def validity_s(now: datetime, closes_at: datetime) -> int:
    """How long the carrier may try to deliver: whole seconds until the window closes, within Twilio's range.

    Never rounded up past the close, except to the least Twilio takes: do not send when it has closed.
    """
    left_s = int((closes_at - now).total_seconds())
    return min(max(left_s, VALIDITY_MIN_S), VALIDITY_MAX_S)


def clock_openings(zone_name: str, day: date, opens: time, closes: time) -> list[Opening]:
    """When clocks in a zone show the date `day` and a time from `opens` until before `closes`.

    Mostly one opening. Hours that the clocks skip are not in it; hours that they show twice count both times.
    """
    found: list[Opening] = []
    for start, end, offset in _steady_spans(zone_name, day):
        opens_at = max(start, datetime.combine(day, opens, UTC) - offset)
        closes_at = min(end, datetime.combine(day, closes, UTC) - offset)
        if opens_at >= closes_at:
            continue
        if found and found[-1].closes_at == opens_at:  # the clocks changed within the window
            opens_at = found.pop().opens_at
        found.append(Opening(opens_at, closes_at))
    return found


def _from(opening: Opening, now: datetime) -> Opening | None:
    """What `now` leaves of an opening that has not closed; None when it begins too far ahead."""
    if opening.opens_at >= now:
        return opening if opening.opens_at <= now + HORIZON else None
    return Opening(now, opening.closes_at)


# Nearly every question is about today, a few zones and the default window: answered from here, it costs one
# look-up. Room for a thousand combinations of zones, places and windows on each of the next days.
@lru_cache(maxsize=1 << 14)
def _common_openings(
    utc_day: date, zones: tuple[str, ...], places: tuple[str, ...], window: SendWindow
) -> tuple[Opening, ...]:
    """All openings, common to all zones, of which a part falls on a day of UTC; in order, and whole."""
    # Clocks are at most 16 hours from UTC, so no other local dates can touch this day.
    local_days = [utc_day - DAY, utc_day, utc_day + DAY]
    allowed = [(day, *hours) for day in local_days if (hours := _allowed_hours(day, places, window))]
    by_zone = [[opening for hours in allowed for opening in clock_openings(name, *hours)] for name in zones]
    start = datetime.combine(utc_day, time(), UTC)
    common = reduce(_overlaps, by_zone)
    return tuple(opening for opening in common if opening.closes_at > start and opening.opens_at < start + DAY)


def _allowed_hours(day: date, places: tuple[str, ...], window: SendWindow) -> Hours:
    """The shop's hours on a local date, within what every place's rule allows."""
    opens, closes = window.opens, window.closes
    for place in places:
        hours = rule_for(place).hours_on(day)
        if hours is None:
            return None
        opens, closes = max(opens, hours[0]), min(closes, hours[1])
    return (opens, closes) if opens < closes else None


def _overlaps(some: list[Opening], others: list[Opening]) -> list[Opening]:
    """What is in both; each list in order and without overlaps of its own, and so is the result."""
    pairs = [(max(a.opens_at, b.opens_at), min(a.closes_at, b.closes_at)) for a in some for b in others]
    return [Opening(opens_at, closes_at) for opens_at, closes_at in pairs if opens_at < closes_at]


@lru_cache(maxsize=1 << 14)
def _steady_spans(zone_name: str, day: date) -> tuple[tuple[datetime, datetime, timedelta], ...]:
    """The UTC days before, of and after `day`, cut where the zone's offset changes: (start, end, offset)."""
    where = zone(zone_name)
    start = datetime.combine(day, time(), UTC) - DAY
    hours = [start + number * HOUR for number in range(3 * 24)]
    changes = [change for hour in hours if (change := _change_within_hour(where, hour))]
    return tuple((begin, end, _offset(where, begin)) for begin, end in pairwise([start, *changes, start + 3 * DAY]))


def _change_within_hour(where: ZoneInfo, start: datetime) -> datetime | None:
    """The first second after `start`, up to an hour, with another offset. No zone has changed twice in an hour."""
    old = _offset(where, start)
    if _offset(where, start + HOUR) == old:
        return None
    seconds = bisect_left(range(3600), True, key=lambda s: _offset(where, start + timedelta(seconds=s)) != old)
    return start + timedelta(seconds=seconds)


def _offset(where: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(where).utcoffset()
    assert offset is not None  # every IANA zone has one
    return offset


def _bad_window(detail: str) -> BadInput:
    return BadInput(detail, slug="invalid-send-window", field="send_window")
