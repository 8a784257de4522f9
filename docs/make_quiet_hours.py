"""Write docs/quiet-hours.md from the country rules: `python docs/make_quiet_hours.py`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from datetime import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from babel import Locale

PAGE = Path(__file__).with_name("quiet-hours.md")
HEAD = ["| where | every day | Saturday | Sunday | holidays | source | reviewed | confidence |", "|---" * 8 + "|"]


def page() -> str:
    """The whole page."""
    rules = tomllib.loads(files("cartwake.quiet_hours").joinpath("rules.toml").read_text("utf-8"))
    countries: Mapping[str, Any] = rules["country"]
    default = rules["default"]
    lines = [line for code in sorted(countries) for line in _country(code, countries[code])]
    return f"""# Quiet hours by country

When a marketing text may arrive, on the recipient's clocks. Written by `python docs/make_quiet_hours.py` from
`src/cartwake/quiet_hours/rules.toml`, which the code itself reads; a test compares them.

**This is a reading of public sources, not legal advice.** Have the rows of the countries that you send to checked, and
put the new date into `reviewed`. *Confidence*: high, read in the law or charter itself; medium, one official page or a
carrier's guideline; low, vendors' tables.

A shop's own window (10:00 to 19:00 unless it chooses another) applies inside these hours. A text goes only when the
window is open in every time zone the shopper may be in; how that is found out is told in
[decision 0004](decisions/0004-every-zone-must-be-open.md), and how these rows were read in
[decision 0005](decisions/0005-law-as-data.md).

{chr(10).join([*HEAD, *lines])}

Every other country: {_hours(default["hours"])}, every day ({default["source"]}; reviewed {default["reviewed"]},
confidence {default["confidence"]}).
"""


def _country(code: str, rule: Mapping[str, Any]) -> Iterator[str]:
    name = Locale("en").territories.get(code, code)
    yield _row(f"**{name}** ({code})", rule)
    for law in rule.get("law", ()):
        yield _row(f"{code}: {_provinces(law['provinces'])}", {**rule, **law})


def _row(where: str, rule: Mapping[str, Any]) -> str:
    holidays = rule.get("closed_on_holidays_of")
    cells = [
        where,
        _hours(rule["hours"]),
        *(_hours(rule[day]) if day in rule else "as every day" for day in ("saturday", "sunday")),
        f"closed ({'its own' if holidays == 'own' else holidays})" if holidays else "as every day",
        rule["source"],
        str(rule["reviewed"]),
        rule["confidence"],
    ]
    return f"| {' | '.join(cells)} |"


def _provinces(codes: list[str]) -> str:
    """Few are named; of many, the first and how many more."""
    return ", ".join(codes) if len(codes) <= 8 else f"{', '.join(codes[:3])} and {len(codes) - 3} more"


def _hours(hours: list[time] | str) -> str:
    return hours if isinstance(hours, str) else f"{hours[0]:%H:%M}–{hours[1]:%H:%M}"


if __name__ == "__main__":
    PAGE.write_text(page())
