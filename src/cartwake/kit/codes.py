"""Codes that others define, checked in one place: countries and languages. Whoever takes one asks here."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8}){0,3}")
LOCALE_MAX_CHARACTERS = 35


def check_country(code: str) -> str:
    """`code` if it is one of ISO 3166-1 alpha-2. Raises `ValueError`."""
    if code not in countries():
        raise ValueError("must be a country code of ISO 3166-1 alpha-2: two capital letters, like LT")
    return code


def check_locale(tag: str) -> str:
    """`tag` if it is a language tag; whether we speak the language is not asked. Raises `ValueError`."""
    if len(tag) > LOCALE_MAX_CHARACTERS or not _LOCALE.fullmatch(tag):
        raise ValueError("must be a language tag, like lt or lt-LT")
    return tag


@cache
def countries() -> frozenset[str]:
    """ISO 3166 as the time zone database lists it, and Kosovo, whose code everybody uses but ISO did not assign."""
    lines = files("tzdata.zoneinfo").joinpath("iso3166.tab").read_text("utf-8").splitlines()
    return frozenset(line.split("\t")[0] for line in lines if not line.startswith("#")) | {"XK"}
