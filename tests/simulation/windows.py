"""When a recipient may be texted, reckoned in the simplest way there is: what do the clocks there show?

Nothing is shared with the product: zones and rules are written down here again, for the phones of the story.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

ZONES = {
    "AT": ("Europe/Vienna",),
    "AU": (
        "Australia/Sydney",
        "Australia/Lord_Howe",
        "Australia/Brisbane",
        "Australia/Adelaide",
        "Australia/Darwin",
        "Australia/Perth",
        "Australia/Eucla",
    ),
    "BE": ("Europe/Brussels",),
    "CA": ("America/Toronto",),  # of the story's area code
    "CH": ("Europe/Zurich",),
    "DE": ("Europe/Berlin",),
    "DK": ("Europe/Copenhagen",),
    "EE": ("Europe/Tallinn",),
    "ES": ("Europe/Madrid", "Atlantic/Canary"),
    "FI": ("Europe/Helsinki",),
    "FR": ("Europe/Paris",),
    "GB": ("Europe/London",),
    "IE": ("Europe/Dublin",),
    "IT": ("Europe/Rome",),
    "LT": ("Europe/Vilnius",),
    "LV": ("Europe/Riga",),
    "NL": ("Europe/Amsterdam",),
    "NO": ("Europe/Oslo",),
    "NZ": ("Pacific/Auckland", "Pacific/Chatham"),
    "PL": ("Europe/Warsaw",),
    "PT": ("Europe/Lisbon", "Atlantic/Azores"),
    "SE": ("Europe/Stockholm",),
    "US": ("America/New_York",),  # of the story's area code
}
CLOSED_ON_SUNDAY = frozenset({"FR", "IT"})
FRENCH_HOLIDAYS = frozenset({(1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25), (12, 26)})
SATURDAY, SUNDAY = 5, 6


def may_be_texted(at: datetime, countries: set[str], opens: time, closes: time) -> bool:
    """Whether clocks in every zone of these countries show an allowed time at `at`."""
    return all(
        _is_open(at.astimezone(ZoneInfo(zone)), countries, opens, closes)
        for country in countries
        for zone in ZONES[country]
    )


def opens_within_a_week(at: datetime, countries: set[str], opens: time, closes: time) -> bool:
    """Whether there is any time at all; looked for at every quarter of an hour."""
    first = at.astimezone(UTC)
    return any(
        may_be_texted(first + timedelta(minutes=15 * quarter), countries, opens, closes) for quarter in range(7 * 96)
    )


def _is_open(local: datetime, countries: set[str], opens: time, closes: time) -> bool:
    """The law of every country counts on every clock."""
    if local.weekday() == SUNDAY and countries & CLOSED_ON_SUNDAY:
        return False
    if "FR" in countries and (local.month, local.day) in FRENCH_HOLIDAYS:
        return False
    if "CA" in countries and local.weekday() in (SATURDAY, SUNDAY):
        closes = min(closes, time(18))
    return opens <= local.time() < closes
