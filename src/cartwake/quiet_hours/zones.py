"""Whose clocks to ask: every IANA zone in which a recipient may be.

An area code is not a location and neither is a parcel's address, so all candidates count and the window
must be open in each of them. Zones by name, never by offset: clocks change, and laws change clocks.

Sources: the IANA's table of countries for numbers, `rules.toml` for provinces of addresses, libphonenumber
for US and Canadian area codes only. Elsewhere it gives one zone as the representative of several (Vilnius,
Riga and Tallinn all read Europe/Bucharest), which is wrong from the day that one of them changes its clocks.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from phonenumbers.tzdata import TIMEZONE_DATA

from cartwake.quiet_hours.places import area_code, place_of, rule_book, rule_for

COUNTRIES_WITH_AREA_CODES = frozenset({"US", "CA"})


def candidate_zones(
    *,
    phone_e164: str,
    phone_country: str,
    shipping_country: str | None,
    shipping_province: str | None,
    time_zone: str | None,
) -> tuple[str, ...]:
    """Every zone the recipient may be in, sorted; empty when none is known, and then nothing may be sent.

    `time_zone` is what the storefront's page read from the browser. A name that is no place (`UTC`, which
    browsers that resist fingerprinting report, or `Etc/GMT+5`) says nothing and is passed over.
    """
    zones = set(_zones_of_number(phone_e164, phone_country))
    if shipping_country:
        zones.update(rule_for(place_of(shipping_country, shipping_province)).zones)
    if time_zone and is_place(time_zone):
        zones.add(time_zone)
    return tuple(sorted(zones))


def is_place(time_zone: str) -> bool:
    """Whether this is the IANA name of a zone where people live, such as `Europe/Vilnius`."""
    return "/" in time_zone and not time_zone.startswith("Etc/") and time_zone in _zone_names()


@cache
def zone(name: str) -> ZoneInfo:
    """The zone of that name, from the `tzdata` package and never from the operating system.

    A server's own table may be years old: one that predates British Columbia's permanent summer time (2026)
    would text Vancouver an hour past the window all winter. Raises `KeyError` when there is no such zone.
    """
    if name not in _zone_names():
        raise KeyError(name)
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split())


def _zones_of_number(phone_e164: str, phone_country: str) -> tuple[str, ...]:
    """The zones of the area code where there is one, else (toll-free, or too new to be known) of the country."""
    country = rule_for(place_of(phone_country)).zones
    if phone_country not in COUNTRIES_WITH_AREA_CODES:
        return country
    return _zones_by_area_code().get(area_code(phone_e164), country)


@cache
def _zones_by_area_code() -> dict[str, tuple[str, ...]]:
    """Area code -> every zone that libphonenumber gives to any of its exchanges, and the corrections to that.

    Not the zone of the number's own exchange: those are the places of landlines. Western Kentucky (270)
    shows why: an exchange without a place counts as New York there, an hour ahead of its own clocks.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for prefix, zones in TIMEZONE_DATA.items():
        if prefix.startswith("1") and len(prefix) >= 4:
            found[prefix[1:4]].update(zones)
    for code, zones in rule_book().area_code_zones.items():
        found[code].update(zones)
    return {code: tuple(sorted(zones)) for code, zones in found.items()}
