"""What a text costs in credits: its segments times the multiplier of the phone's country."""

from __future__ import annotations

from collections.abc import Mapping

# Credits per segment: the countries of each price (ISO 3166). They follow what carriers charge.
_COUNTRIES_BY_MULTIPLIER = {
    1: "CA EE LT LV US",
    2: "BE DK ES FI GB IE IT NL NO PL PT SE",
    3: "AT AU CH DE FR NZ",
}
COUNTRY_MULTIPLIERS: Mapping[str, int] = {
    country: multiplier for multiplier, countries in _COUNTRIES_BY_MULTIPLIER.items() for country in countries.split()
}
# Anywhere else, the dearest: a cheap guess would be paid by the operator.
DEFAULT_MULTIPLIER = 3


def price(segments: int, country: str) -> int:
    """Credits for a text of `segments` segments to a phone of `country` (ISO 3166 alpha-2, upper case)."""
    if segments < 1:
        raise ValueError("a text has at least one segment")
    return segments * COUNTRY_MULTIPLIERS.get(country, DEFAULT_MULTIPLIER)
