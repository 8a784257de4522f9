"""What shoppers of the 23 countries write back, in the languages that they write in, against one table."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cartwake.credits.pricing import COUNTRY_MULTIPLIERS
from cartwake.messages.keywords import TABLES, Intent, intent
from cartwake.messages.templates import LOCALES

TABLE = tomllib.loads(Path(__file__).with_name("local_words.toml").read_text(encoding="utf-8"))
LANGUAGES = TABLE["language"]
EVERYWHERE = [(country, language) for country, spoken in TABLE["countries"].items() for language in spoken.split()]


def said(language: str, kind: str) -> list[str]:
    return [body.strip() for body in LANGUAGES[language].get(kind, "").split("|") if body.strip()]


def test_every_country_with_a_price_is_in_the_table_and_every_language_has_its_words() -> None:
    assert set(TABLE["countries"]) == set(COUNTRY_MULTIPLIERS)
    spoken = {language for _, language in EVERYWHERE}
    assert spoken == set(LANGUAGES) == set(TABLES)
    assert spoken >= set(LOCALES)


@pytest.mark.parametrize(("country", "language"), EVERYWHERE)
def test_a_wish_to_be_left_alone_is_heard(country: str, language: str) -> None:
    bodies = said(language, "stop") + said(language, "in_doubt")
    assert [body for body in bodies if intent(body, None) is not Intent.STOP] == []
    shouted = [body.upper() for body in said(language, "stop")]
    assert [body for body in shouted if intent(body, None) is not Intent.STOP] == []


@pytest.mark.parametrize(("country", "language"), EVERYWHERE)
def test_an_ordinary_answer_stops_nothing(country: str, language: str) -> None:
    bodies = said(language, "other")
    assert len(bodies) > 1
    assert [body for body in bodies if intent(body, None) not in (Intent.OTHER, Intent.START)] == []


@pytest.mark.parametrize(("country", "language"), EVERYWHERE)
def test_start_and_help_are_understood(country: str, language: str) -> None:
    assert {intent(body, None) for body in said(language, "start")} == {Intent.START}
    assert {intent(body, None) for body in said(language, "help")} == {Intent.HELP}


def test_the_carrier_s_own_keywords_stop_in_any_case() -> None:
    """Twilio's defaults, and those that the FCC names (47 CFR 64.1200(a)(10))."""
    words = "STOP, QUIT, END, REVOKE, OPT-OUT, OPTOUT, CANCEL, UNSUBSCRIBE, STOPALL, ARRET, TD, REMOVE"
    for word in words.split(", "):
        assert intent(word, None) is intent(word.title(), None) is intent(f" {word.lower()}.\n", None) is Intent.STOP
