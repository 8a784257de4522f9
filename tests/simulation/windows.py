"""When a recipient may be texted, reckoned in the simplest way there is: what do the clocks there show?

Nothing is shared with the product: zones and rules are written down here again, for the phones of the story.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

ZONES: dict[str, tuple[str, ...]] = {
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
    "CA": (),  # by area code
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
    "US": (),  # by area code
}
# Area codes of the story's American phones. Phoenix, Honolulu and Regina never change their clocks.
AREA_CODES: dict[str, dict[str, tuple[str, ...]]] = {
    "US": {
        "+1212": ("America/New_York",),
        "+1312": ("America/Chicago",),
        "+1512": ("America/Chicago",),
        "+1303": ("America/Denver",),
        "+1602": ("America/Phoenix",),
        "+1415": ("America/Los_Angeles",),
        "+1808": ("Pacific/Honolulu",),
    },
    "CA": {
        "+1416": ("America/Toronto",),
        "+1604": ("America/Vancouver",),
        "+1403": ("America/Edmonton",),
        "+1204": ("America/Winnipeg",),
        "+1306": ("America/Regina",),
        "+1709": ("America/St_Johns", "America/Halifax"),  # Newfoundland and Labrador
    },
}
CLOSED_ON_SUNDAY = frozenset({"FR", "IT"})
TEXAS = "+1512"  # on Sundays not before noon
FRENCH_HOLIDAYS = frozenset({(1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25), (12, 26)})
# Good Friday, Easter Monday, Ascension and Whit Monday of the years that stories play in.
FRENCH_FEASTS = frozenset(
    {
        (2026, 4, 3),
        (2026, 4, 6),
        (2026, 5, 14),
        (2026, 5, 25),
        (2027, 3, 26),
        (2027, 3, 29),
        (2027, 5, 6),
        (2027, 5, 17),
    }
)
SATURDAY, SUNDAY = 5, 6
LOOK_EVERY = timedelta(minutes=15)  # no clock in these zones opens or closes, or changes, between two quarters


@dataclass(frozen=True)
class Whereabouts:
    """Where a recipient may be, for all that a shop knows."""

    phone: str  # E.164
    phone_country: str
    shipped_to: str | None

    @property
    def countries(self) -> frozenset[str]:
        return frozenset({self.phone_country, self.shipped_to or self.phone_country})

    @property
    def zones(self) -> frozenset[str]:
        here = AREA_CODES.get(self.phone_country, {}).get(self.phone[:5], ZONES[self.phone_country])
        return frozenset({*here, *ZONES[self.shipped_to or self.phone_country]})


def may_be_texted(at: datetime, where: Whereabouts, opens: time, closes: time) -> bool:
    """Whether clocks in every zone where the recipient may be show an allowed time at `at`."""
    return all(_is_open(at.astimezone(clock(zone)), where, opens, closes) for zone in where.zones)


def first_opening(at: datetime, where: Whereabouts, opens: time, closes: time) -> datetime | None:
    """The first quarter of an hour from `at` on at which there may be a text; None when there is none for a week."""
    first = at.astimezone(UTC)
    first -= timedelta(minutes=first.minute % 15, seconds=first.second, microseconds=first.microsecond)
    quarters = (first + LOOK_EVERY * number for number in range(1 + 7 * 96))
    return next((quarter for quarter in quarters if may_be_texted(max(quarter, at), where, opens, closes)), None)


def clock_change(zone: str, begin: datetime, end: datetime) -> str | None:
    """Whether clocks in a zone were put "forward" or "back" between two moments."""
    before, after = (at.astimezone(clock(zone)).utcoffset() or timedelta() for at in (begin, end))
    return None if before == after else "forward" if before < after else "back"


def continent(zone: str) -> str:
    """Where clocks change together, or nearly: "Europe", "America" or the "south" (Australia and New Zealand)."""
    area = zone.partition("/")[0]
    return {"Australia": "south", "Pacific": "south", "Atlantic": "Europe"}.get(area, area)


@cache
def clock(zone: str) -> ZoneInfo:
    """The zone's clock as the IANA's newest table has it, whatever the machine's own is."""
    with files("tzdata").joinpath("zoneinfo", *zone.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=zone)


def _is_open(local: datetime, where: Whereabouts, opens: time, closes: time) -> bool:
    """The law of every country counts on every clock."""
    countries = where.countries
    if local.weekday() == SUNDAY and countries & CLOSED_ON_SUNDAY:
        return False
    if "FR" in countries and ((local.month, local.day) in FRENCH_HOLIDAYS or local.timetuple()[:3] in FRENCH_FEASTS):
        return False
    if "CA" in countries and local.weekday() in (SATURDAY, SUNDAY):
        closes = min(closes, time(18))
    if where.phone.startswith(TEXAS) and local.weekday() == SUNDAY:
        opens = max(opens, time(12))
    return opens <= local.time() < closes
