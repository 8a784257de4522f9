"""How a text says that it can be stopped: complete in every language for every country that wants its own words."""

from __future__ import annotations

from datetime import date

import pytest

from cartwake.messages.keywords import Intent, fold, intent
from cartwake.messages.opt_out import longest_opt_out, opt_out_rules, opt_out_words
from cartwake.messages.segments import measure
from cartwake.messages.templates import LOCALES

RULES = opt_out_rules()
LINK = "https://sms.example.com/o/AAAAAAAAAAAAAAAAAAAAAAAA"
ROWS = {"default": RULES.default, **RULES.countries}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_every_row_has_every_language_and_says_where_it_comes_from(row: object) -> None:
    assert set(row.reply) == set(row.link) == set(LOCALES)  # type: ignore[attr-defined]
    assert row.source.strip() and row.confidence in ("high", "medium", "low")  # type: ignore[attr-defined]
    assert isinstance(row.reviewed, date)  # type: ignore[attr-defined]


@pytest.mark.parametrize("country", ROWS)
@pytest.mark.parametrize("locale", LOCALES)
def test_whoever_does_what_a_text_says_is_heard(locale: str, country: str) -> None:
    words = opt_out_words(country, locale, None)
    named = {word for word in words.replace("/", " ").split() if word.isupper() and word.isalpha() and len(word) > 3}
    assert "STOP" in named, words
    assert {intent(word, None) for word in named} == {Intent.STOP}
    one_way = opt_out_words(country, locale, LINK)
    assert one_way.endswith(f": {LINK}") and "{" not in one_way


@pytest.mark.parametrize("country", ROWS)
def test_where_the_plain_language_is_cheap_so_is_the_opt_out(country: str) -> None:
    for locale in ("en", "de", "fr", "es", "pl"):
        for link in (None, LINK):
            assert measure(opt_out_words(country, locale, link)).forcing_character is None


@pytest.mark.parametrize("locale", LOCALES)
def test_canada_names_both_words_and_france_the_one(locale: str) -> None:
    for link in (None, LINK):
        assert {"stop", "arret"} <= set(fold(opt_out_words("CA", locale, link)).split())
        assert "stop" in fold(opt_out_words("FR", locale, link)).split()


def test_a_country_without_a_row_has_the_default() -> None:
    assert opt_out_words("JP", "en", None) == opt_out_words("LT", "en", None) == "Reply STOP to opt out"


@pytest.mark.parametrize("locale", LOCALES)
def test_the_longest_is_the_longest(locale: str) -> None:
    every = [opt_out_words(country, locale, link) for country in ROWS for link in (None, LINK)]
    assert len(longest_opt_out(locale, LINK)) == max(map(len, every))
