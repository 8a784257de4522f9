"""A shop's own text: what is refused, why, and where in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartwake.kit.errors import BadInput
from cartwake.messages.segments import GSM7_BASIC, GSM7_EXTENSION, measure
from cartwake.messages.template_rules import (
    MAX_SEGMENTS,
    accept_template,
    find_flaws,
    plainer,
    replacements,
    worst_case,
)
from cartwake.messages.templates import LOCALES, MAX_SHOP_NAME_CHARACTERS, render_text, wording

PUBLIC_URL = "https://sms.example.com"
GOOD = "{shop}: come back: {link} {opt_out}"


def flaws(text: str, locale: str = "en") -> list[tuple[str, int | None]]:
    return [(flaw.slug, flaw.position) for flaw in find_flaws(text, locale=locale, public_url=PUBLIC_URL)]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "{link} {opt_out}",
        "Labas!\nJūsų krepšelis laukia:\n{link}\n{opt_out}\n{shop}",
        "{shop}. Come back ({link}). {opt_out}!",
        'Cart: "{link}", {opt_out}',
        "{shop}: z. B. 12.50 EUR, 3,5 % ab 10.00 Uhr, т.е. 5 m² ❤️ {link} {opt_out}",
        "{shop}: 24.12.2026, v1.2 {link} {opt_out}",
        "{shop} ’quotes’ – and… {link} {opt_out}",
        "{link}\r\n{opt_out}",
        "{shop} {link} {opt_out} {link}",
        "{shop}: don't lose the e.g. 3 items. {link} {opt_out}",
    ],
)
def test_a_good_text_is_accepted(text: str) -> None:
    assert flaws(text) == []


@pytest.mark.parametrize("locale", LOCALES)
def test_the_built_in_texts_keep_the_rules(locale: str) -> None:
    assert flaws(wording(locale).cart_recovery, locale) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("empty-template", None)]),
        (" \n\t ", [("empty-template", None)]),
        ("\u200b\u202e", [("empty-template", None)]),
        ("Hi {name}! {link} {opt_out}", [("unknown-variable", 4)]),
        ("{link} {opt_out} {Shop} {shop }", [("unknown-variable", 18), ("unknown-variable", 25)]),
        ("{} {link} {opt_out}", [("unknown-variable", 1)]),
        ("{shop.__class__} {link} {opt_out}", [("unknown-variable", 1)]),
        ("{opt_out_link} {link} {opt_out}", [("unknown-variable", 1)]),
        ("{link} {opt_out} :-}", [("malformed-braces", 20)]),
        ("{shop {link} {opt_out}", [("malformed-braces", 1)]),
        ("{{link}} {opt_out}", [("malformed-braces", 1), ("crowded-link", 2), ("malformed-braces", 8)]),
        ("{shop} {opt_out}", [("missing-link", None)]),
        ("{shop} {link}", [("missing-opt-out", None)]),
        ("Come back", [("missing-link", None), ("missing-opt-out", None)]),
        ("{link} {opt_out} \u202etxet", [("unseen-character", 18)]),
        ("a\u200bb {link} {opt_out}", [("unseen-character", 2)]),
        ("a\tb {link} {opt_out}", [("unseen-character", 2)]),
        ("a\rb {link} {opt_out}", [("unseen-character", 2)]),
        ("a\x00\x1b {link} {opt_out}", [("unseen-character", 2), ("unseen-character", 3)]),
        ("a\u2028b {link} {opt_out}", [("unseen-character", 2)]),
        ("\ue000 \u3164 \u2800 \U000e0041 {link} {opt_out}", [("unseen-character", 2 * n + 1) for n in range(4)]),
        ("a\u00adb \u2066c {link} {opt_out}", [("unseen-character", 2), ("unseen-character", 5)]),
        ("See https://shop.example/a {link} {opt_out}", [("foreign-link", 5)]),
        ("{link} {opt_out} bit.ly/x and goo.gl", [("foreign-link", 18), ("foreign-link", 31)]),
        ("{link} {opt_out} WWW.SHOP", [("foreign-link", 18)]),
        ("{link} {opt_out} info@shop.lt", [("foreign-link", 18)]),
        ("{link} {opt_out} парта.рф", [("foreign-link", 18)]),
        ("{link} {opt_out} bit。ly/x", [("foreign-link", 18)]),
        ("{link} {opt_out} 10.0.0.1/x", [("foreign-link", 18)]),
        ("{link} {opt_out} wait.Come back", [("foreign-link", 18)]),
        ("{link} {opt_out} tel://1 javascript://x", [("foreign-link", 18), ("foreign-link", 26)]),
        ("{link} {opt_out} {shop}.com", [("foreign-link", 18)]),
        ("go:{link}now {opt_out}", [("crowded-link", 4)]),
        ("{link}/extra {opt_out}", [("crowded-link", 1)]),
        ("{shop}{link} {opt_out}", [("crowded-link", 7)]),
        ("https{link} {opt_out}?", [("crowded-link", 6)]),
        ("{link}{opt_out}", [("crowded-link", 1), ("crowded-link", 7)]),
        ("x" * 900 + "{link} {opt_out}", [("crowded-link", 901)]),
        ("x" * 900 + " {link} {opt_out}", [("text-too-long", None)]),
        ("{link} " * 60 + "{opt_out}", [("text-too-long", None)]),
    ],
)
def test_what_is_wrong_and_where(text: str, expected: list[tuple[str, int | None]]) -> None:
    assert flaws(text) == expected


def test_a_refusal_names_everything_with_its_place_and_nothing_that_could_be_personal() -> None:
    with pytest.raises(BadInput) as error:
        accept_template("Hi {name}\n{+37061234567} bit.ly/+37061234567", locale="en", public_url=PUBLIC_URL)
    assert error.value.slug == "unknown-variable" and error.value.field == "text"
    said = [error.value.detail, *error.value.also]
    assert said[0].startswith("At character 4 (line 1): {name} is not known") and "{opt_out}" in said[0]
    assert said[1].startswith("At character 11 (line 2): this variable is not known")
    assert said[2].startswith("At character 26 (line 2): reads like an address")
    assert len(said) == 5 and all("61234567" not in each for each in said)


def test_thousands_of_flaws_make_a_short_refusal() -> None:
    with pytest.raises(BadInput) as error:
        accept_template("{x}" * 600, locale="en", public_url=PUBLIC_URL)
    assert len(error.value.also) == 19


def test_what_is_kept_is_what_is_sent() -> None:
    text = "Labas!\r\nTai „{shop}“ –\u00a0Jūsų   krepšelis…\n{link}\n{opt_out}\n"
    kept = accept_template(text, locale="lt", public_url=PUBLIC_URL)
    assert kept == 'Labas!\nTai "{shop}" - Jūsų krepšelis...\n{link}\n{opt_out}'
    assert accept_template(kept, locale="lt", public_url=PUBLIC_URL) == kept
    assert [(each.character, each.position, each.by) for each in replacements(text)] == [
        ("„", 12, '"'),
        ("“", 19, '"'),
        ("–", 21, "-"),
        ("\u00a0", 22, " "),
        ("…", 39, "..."),
    ]


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("country", ["LT", "FR", "CA"])
@pytest.mark.parametrize("two_way", [True, False])
def test_no_text_is_larger_than_the_worst_case(locale: str, country: str, two_way: bool) -> None:
    link = f"{PUBLIC_URL}/r/{'A' * 24}"
    for template in (GOOD, wording(locale).cart_recovery, "{shop} {shop} Žalia 🌳 {link} {opt_out}"):
        worst = worst_case(template, locale=locale, public_url=PUBLIC_URL)
        for name in ("Lino Namai", "🌳" * 50, "ž" * MAX_SHOP_NAME_CHARACTERS):
            text = render_text(
                locale=locale,
                shop_name=name,
                phone_country=country,
                link=link,
                opt_out_link=link.replace("/r/", "/o/"),
                two_way_sender=two_way,
                template=template,
            )
            assert measure(text).segments <= worst.segments <= MAX_SEGMENTS


@pytest.mark.parametrize(
    ("char", "expected"),
    [("’", "'"), ("–", "-"), ("“", '"'), ("…", "..."), ("•", "-"), ("™", "TM"), ("½", "1/2"), ("ﬁ", "fi"), ("Ａ", "A")],
)
def test_what_says_the_same_in_the_cheap_encoding(char: str, expected: str) -> None:
    assert plainer(char) == expected


@pytest.mark.parametrize("char", ["ą", "ç", "Я", "ś", "🌳", "ё"])
def test_letters_are_never_changed(char: str) -> None:
    assert plainer(char) is None


@given(st.characters())
def test_a_suggestion_is_always_cheap(char: str) -> None:
    assert set(plainer(char) or "") <= set(GSM7_BASIC + GSM7_EXTENSION)


@given(st.text(max_size=120), st.sampled_from(LOCALES))
def test_whatever_is_accepted_can_be_sent(text: str, locale: str) -> None:
    for candidate in (text, text + " {link} {opt_out}"):
        try:
            kept = accept_template(candidate, locale=locale, public_url=PUBLIC_URL)
        except BadInput as error:
            assert error.detail and error.field == "text"
            continue
        link = f"{PUBLIC_URL}/r/{'A' * 24}"
        shown = render_text(
            locale=locale,
            shop_name="Acme",
            phone_country="LT",
            link=link,
            opt_out_link="",
            two_way_sender=True,
            template=kept,
        )
        assert link in shown and "STOP" in shown
