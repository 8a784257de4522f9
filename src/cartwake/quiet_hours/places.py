"""What the law of a place says about marketing texts: the rows of `rules.toml`, read once.

A *place* is written as in ISO 3166: a country (`LT`) or, where an address says more and it matters, a
province of one (`US-TX`). Places are plain strings outside this room, so that they can be kept with a
decision and read by people.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, time
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import holidays

# What clocks show at the first moment allowed and at the first no longer allowed; None: not on this day.
Hours = tuple[time, time] | None

SATURDAY, SUNDAY = 5, 6


@dataclass(frozen=True)
class Rule:
    """When one place lets marketing texts arrive, by its own clocks, and the zones those may keep."""

    week: tuple[Hours, ...]  # Monday first
    closed_on_holidays_of: str | None  # a calendar, `FR` or `FR-57`; None: holidays are ordinary days
    zones: tuple[str, ...]  # IANA names; empty: no zone is known, so nothing can be sent

    def hours_on(self, day: date) -> Hours:
        """The hours allowed on the local date `day`."""
        if self.closed_on_holidays_of and day in _public_holidays(self.closed_on_holidays_of, day.year):
            return None
        return self.week[day.weekday()]


@dataclass(frozen=True)
class RuleBook:
    """`rules.toml`, in the shape that is looked up."""

    default: Rule
    places: Mapping[str, Rule]  # every country with a zone, and provinces with a zone or law of their own
    same_as: Mapping[str, str]  # other codes of some places
    states: Mapping[str, str]  # area code -> the US state whose own law covers its numbers
    area_code_zones: Mapping[str, tuple[str, ...]]  # zones to add to those that libphonenumber knows


def rule_for(place: str) -> Rule:
    """The rule of a place; of its country when the province has none; else the default, without a zone."""
    book = rule_book()
    country, _, _ = place.partition("-")
    return book.places.get(place) or book.places.get(country) or book.default


def place_of(country: str, province: str | None = None) -> str:
    """The most exact place that the rules know for an address: `US-TX`, or `US` when the province is unknown.

    A province may be written `TX` or `US-TX`, in either case.
    """
    book = rule_book()
    country = country.strip().upper()
    exact = f"{country}-{(province or '').strip().upper().removeprefix(country + '-')}"
    known = [book.same_as.get(place, place) for place in (exact, country)]
    return next((place for place in known if place in book.places), country)


def candidate_places(
    *, phone_e164: str, phone_country: str, shipping_country: str | None, shipping_province: str | None
) -> tuple[str, ...]:
    """Every place whose law may cover the recipient, sorted: the shipping address's and the number's.

    A number of a US state with hours of its own stays that state's wherever the parcel goes: people keep
    their number when they move, and some of those laws go by the area code. A number that names its country
    alone adds nothing to an address in the same country, so `FR` gives way to `FR-75`.
    """
    number = place_of(phone_country)
    if phone_country == "US":
        number = rule_book().states.get(area_code(phone_e164), number)
    if not shipping_country:
        return (number,)
    address = place_of(shipping_country, shipping_province)
    return (address,) if address.startswith(number + "-") else tuple(sorted({number, address}))


def area_code(phone_e164: str) -> str:
    """The area code of a US or Canadian number (`+12015550123` gives `201`)."""
    return phone_e164[2:5]


@cache
def rule_book() -> RuleBook:
    """The rules, parsed. One file, read at the first question."""
    raw = tomllib.loads(files(__package__).joinpath("rules.toml").read_text("utf-8"))
    default = Rule(_week(raw["default"], ()), None, ())
    zones = zones_by_country() | {country: tuple(names) for country, names in raw["zones"].items()}
    places = {country: replace(default, zones=names) for country, names in zones.items()}
    rows: dict[str, dict[str, Any]] = raw["country"]
    for country, row in rows.items():
        places[country] = Rule(_week(row, ()), row.get("closed_on_holidays_of"), zones[country])
        places |= _provinces(country, row, places[country])
    states = {str(code): f"US-{state}" for state, codes in rows["US"]["area_codes"].items() for code in codes}
    return RuleBook(default, places, raw["same_as"], states, _turned(raw["area_code_zones"]))


def zones_by_country() -> dict[str, tuple[str, ...]]:
    """Every ISO country and its zones, from the IANA's table. Bouvet and Heard Island have none, and nobody."""
    lines = files("tzdata").joinpath("zoneinfo", "zone.tab").read_text("utf-8").splitlines()
    columns = [line.split("\t") for line in lines if not line.startswith("#")]
    return _turned({zone: [country] for country, _coordinates, zone, *_comment in columns})


@lru_cache(maxsize=256)
def _public_holidays(calendar: str, year: int) -> frozenset[date]:
    country, _, part = calendar.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=part or None, years=year))


def _provinces(country: str, row: Mapping[str, Any], national: Rule) -> dict[str, Rule]:
    """The provinces that a country's row names, each with what it has of its own and the rest from `national`."""
    zones = _turned(row.get("zones", {}))
    laws: dict[str, dict[str, Any]] = {name: law for law in row.get("law", ()) for name in law["provinces"]}
    found = {}
    for name in zones.keys() | laws.keys():
        place, law = f"{country}-{name}", laws.get(name, {})
        calendar = law.get("closed_on_holidays_of", national.closed_on_holidays_of)
        found[place] = Rule(
            week=_week(law, national.week),
            closed_on_holidays_of=place if calendar == "own" else calendar,
            zones=zones.get(name, national.zones),
        )
    return found


def _week(row: Mapping[str, Any], week: tuple[Hours, ...]) -> tuple[Hours, ...]:
    """`week`, changed by what a row of the file says about hours."""
    days = [_hours(row["hours"])] * 7 if "hours" in row else list(week)
    for number, name in ((SATURDAY, "saturday"), (SUNDAY, "sunday")):
        if name in row:
            days[number] = _hours(row[name])
    return tuple(days)


def _hours(value: Any) -> Hours:
    return None if value == "closed" else (value[0], value[1])


def _turned(lists: Mapping[str, list[Any]]) -> dict[str, tuple[str, ...]]:
    """`{"a": [1, 2], "b": [2]}` as `{"1": ("a",), "2": ("a", "b")}`."""
    turned: defaultdict[str, list[str]] = defaultdict(list)
    for name, values in lists.items():
        for value in values:
            turned[str(value)].append(name)
    return {value: tuple(sorted(names)) for value, names in turned.items()}
