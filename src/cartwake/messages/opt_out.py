"""The words that say how to stop the texts: by country of the phone, language, and what the sender can do.

They are data, with the source of each rule: `opt_out.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources

LINK_PLACEHOLDER = "{opt_out_link}"


@dataclass(frozen=True)
class OptOutRule:
    """One row of the file: by locale, the words for a sender that can be answered and for one that cannot."""

    source: str
    reviewed: date
    confidence: str
    reply: Mapping[str, str]
    link: Mapping[str, str]  # each holds `{opt_out_link}`


@dataclass(frozen=True)
class OptOutRules:
    """The file."""

    default: OptOutRule
    countries: Mapping[str, OptOutRule]

    def of(self, country: str) -> OptOutRule:
        """The row that a phone's country falls under."""
        return self.countries.get(country, self.default)

    def every_row(self) -> list[OptOutRule]:
        """All rows, the default first."""
        return [self.default, *self.countries.values()]


@cache
def opt_out_rules() -> OptOutRules:
    """What the file says."""
    file = resources.files("cartwake.messages") / "opt_out.toml"
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    default = found["default"]
    countries = {country: OptOutRule(**(default | row)) for country, row in found["country"].items()}
    return OptOutRules(OptOutRule(**default), countries)


def opt_out_words(phone_country: str, locale: str, opt_out_link: str | None) -> str:
    """How a text to a phone of that country ends. `opt_out_link`: None when the sender can be answered."""
    rule = opt_out_rules().of(phone_country)
    return rule.reply[locale] if opt_out_link is None else rule.link[locale].replace(LINK_PLACEHOLDER, opt_out_link)


def longest_opt_out(locale: str, opt_out_link: str) -> str:
    """The longest that the words can be in this language, wherever the text goes and whoever sends it."""
    rules = opt_out_rules().every_row()
    every = [rule.reply[locale] for rule in rules] + [rule.link[locale] for rule in rules]
    return max((words.replace(LINK_PLACEHOLDER, opt_out_link) for words in every), key=len)


def every_reply_wording() -> list[str]:
    """What our own texts tell shoppers to answer, in all languages and countries."""
    return [words for rule in opt_out_rules().every_row() for words in rule.reply.values()]
