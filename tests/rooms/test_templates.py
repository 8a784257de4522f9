"""The words that shoppers read: complete in seven languages, as cheap as they can be, and safe to fill in."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartwake.kit.errors import BadInput
from cartwake.messages.opt_out import opt_out_rules
from cartwake.messages.segments import Encoding, measure
from cartwake.messages.templates import (
    LOCALES,
    MAX_SHOP_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    choose_locale,
    clean_shop_name,
    opt_out_page,
    render_text,
    wording,
)

LINK = "https://sms.example.com/r/AAAAAAAAAAAAAAAAAAAAAAAAAA"  # 52 characters
OPT_OUT_LINK = "https://sms.example.com/o/AAAAAAAAAAAAAAAAAAAAAAAAAA"
LONG_LINK = LINK + "A" * 8
SHOP = "Acmestore123"  # 12 letters


def render(
    *, locale: str = "en", shop: str = SHOP, link: str = LINK, two_way: bool = True, template: str | None = None
) -> str:
    return render_text(
        locale=locale,
        shop_name=shop,
        phone_country="LT",
        link=link,
        opt_out_link=OPT_OUT_LINK,
        two_way_sender=two_way,
        template=template,
    )


@pytest.mark.parametrize(
    ("locale", "encoding", "two_way", "one_way"),
    [
        ("en", Encoding.GSM7, 1, 1),
        ("lt", Encoding.UCS2, 2, 3),
        ("de", Encoding.GSM7, 1, 1),
        ("fr", Encoding.GSM7, 1, 1),
        ("es", Encoding.GSM7, 1, 1),
        ("pl", Encoding.GSM7, 1, 1),
        ("ru", Encoding.UCS2, 2, 3),
    ],
)
def test_what_the_default_text_costs(locale: str, encoding: Encoding, two_way: int, one_way: int) -> None:
    answered = measure(render(locale=locale))
    assert (answered.encoding, answered.segments) == (encoding, two_way)
    assert measure(render(locale=locale, link=LONG_LINK)).segments == two_way
    assert measure(render(locale=locale, two_way=False)).segments == one_way


@pytest.mark.parametrize("locale", LOCALES)
def test_every_text_says_who_writes_where_to_return_and_how_to_stop(locale: str) -> None:
    answered, one_way = render(locale=locale), render(locale=locale, two_way=False)
    for text in (answered, one_way):
        assert text.startswith(SHOP)
        assert f" {LINK} " in text
        assert "{" not in text
    assert "STOP" in answered.removeprefix(SHOP)
    assert OPT_OUT_LINK not in answered
    assert one_way.endswith(f" {OPT_OUT_LINK}")


@pytest.mark.parametrize("locale", LOCALES)
def test_texts_have_no_punctuation_that_forces_ucs2(locale: str) -> None:
    words = wording(locale)
    rows = opt_out_rules().every_row()
    for text in (words.cart_recovery, *(row.reply[locale] for row in rows), *(row.link[locale] for row in rows)):
        assert all(char.isalnum() or char in " !?:.,'{}_/" for char in text), text
        assert unicodedata.is_normalized("NFC", text)


@pytest.mark.parametrize("locale", LOCALES)
def test_the_opt_out_page_is_complete_and_names_the_shop(locale: str) -> None:
    page = opt_out_page(locale)
    assert all(asdict(page).values())
    assert "Žalioji" in page.ask("Žalioji")
    assert "{" not in page.ask("Žalioji")
    others = {name: text for name, text in asdict(page).items() if name != "question"}
    assert not any("{" in text for text in others.values())


def test_every_locale_has_its_own_words() -> None:
    assert len({wording(locale).cart_recovery for locale in LOCALES}) == len(LOCALES)
    assert len({opt_out_page(locale).confirm for locale in LOCALES}) == len(LOCALES)


@pytest.mark.parametrize(
    ("wanted", "shop_default", "chosen"),
    [
        ("lt", None, "lt"),
        ("LT", None, "lt"),
        ("lt-LT", "de", "lt"),
        ("lt_LT.UTF-8", None, "lt"),
        (" de-AT ", None, "de"),
        ("fr-CA", "en", "fr"),
        ("it", "de", "de"),
        ("it-IT", "pl_PL", "pl"),
        ("it", "sv", "en"),
        (None, "ru", "ru"),
        ("", "", "en"),
        (None, None, "en"),
        ("english", "lt", "lt"),
        ("{link}", None, "en"),
        ("../en", None, "en"),
    ],
)
def test_choice_of_locale(wanted: str | None, shop_default: str | None, chosen: str) -> None:
    assert choose_locale(wanted, shop_default) == chosen


def test_an_unknown_locale_is_refused() -> None:
    with pytest.raises(BadInput):
        render(locale="it")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("{link}", "{link}"),
        ("{opt_out}", "{opt_out}"),
        ("{shop}", "{shop}"),
        ("{{x}}", "{{x}}"),
        ("%s %(link)s $link {0}", "%s %(link)s $link {0}"),
        (r"\g<0>\1", r"\g<0>\1"),
        ("'; DROP TABLE shops; --", "'; DROP TABLE shops; --"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("Two\nlines\r\n\tand  tabs", "Two lines and tabs"),
        ("Nul\x00 bell\x07 escape\x1b", "Nul bell escape"),
        ("\u202egnp.exe\u202c", "gnp.exe"),  # written backwards by a bidi override
        ("Zero\u200bwidth\u00adsoft\ufeff", "Zerowidthsoft"),
        ("No\u00a0break\u2028line", "No break line"),
        ("Joe’s “Café” – only…", 'Joe\'s "Café" - only...'),
        ("Cafe\u0301", "Café"),
        ("Broken \ud83d half", "Broken half"),
        ("Žalioji Ąžuolo 🌳", "Žalioji Ąžuolo 🌳"),
        ("x" * 100, "x" * MAX_SHOP_NAME_CHARACTERS),
        ("x" * (MAX_SHOP_NAME_CHARACTERS - 1) + " y", "x" * (MAX_SHOP_NAME_CHARACTERS - 1)),
    ],
)
def test_a_shops_name_is_only_ever_text(name: str, shown: str) -> None:
    assert clean_shop_name(name) == shown
    assert render(shop=name) == f"{shown}: we saved your cart for you: {LINK} Reply STOP to opt out"


@pytest.mark.parametrize("name", ["", "   ", "\x00\x01", "\u202e\u200b"])
def test_a_text_must_say_who_writes(name: str) -> None:
    with pytest.raises(BadInput) as error:
        render(shop=name)
    assert error.value.slug == "empty-shop-name"


@pytest.mark.parametrize(
    ("template", "slug"),
    [
        ("Hello {name}, {link} {opt_out}", "unknown-variable"),
        ("Hello {}, {link} {opt_out}", "unknown-variable"),
        ("{ link } {link} {opt_out}", "unknown-variable"),
        ("{shop.__class__} {link} {opt_out}", "unknown-variable"),
        ("{opt_out_link} {link} {opt_out}", "unknown-variable"),
        ("{{shop}} {link} {opt_out}", "unknown-variable"),
        ("{link {link} {opt_out}", "unknown-variable"),
        ("{link} {opt_out} :-}", "unknown-variable"),
        ("{shop} {opt_out}", "missing-link"),
        ("{shop} {link}", "missing-opt-out"),
        ("", "missing-link"),
        ("{link} {opt_out}" + "x" * MAX_TEXT_CHARACTERS, "text-too-long"),
    ],
)
def test_a_template_that_cannot_be_sent_is_refused(template: str, slug: str) -> None:
    with pytest.raises(BadInput) as error:
        render(template=template)
    assert (error.value.slug, error.value.field) == (slug, "template")


def test_a_shops_own_template_keeps_its_lines_and_letters() -> None:
    template = "Labas!\r\nTai „{shop}“ –\u00a0Jūsų   krepšelis…\n\n{link}\n{opt_out}\n"
    assert render(locale="lt", template=template) == (
        f'Labas!\nTai "{SHOP}" - Jūsų krepšelis...\n\n{LINK}\nNebenorite SMS? Atsakykite STOP'
    )


def test_the_longest_text_that_fits() -> None:
    used = len(render(template="{link} {opt_out}"))
    assert len(render(template="{link} {opt_out}" + "x" * (MAX_TEXT_CHARACTERS - used))) == MAX_TEXT_CHARACTERS


@given(st.text(max_size=80), st.sampled_from(LOCALES), st.booleans())
def test_whatever_a_shop_is_called_the_rest_of_the_text_stands(name: str, locale: str, two_way: bool) -> None:
    try:
        shown = clean_shop_name(name)
    except BadInput:
        return
    text = render(locale=locale, shop=name, two_way=two_way)
    assert text == shown + render(locale=locale, two_way=two_way).removeprefix(SHOP)
    assert len(shown) <= MAX_SHOP_NAME_CHARACTERS
    assert clean_shop_name(shown) == shown
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)
    text.encode()


@given(st.text(max_size=80))
def test_any_template_renders_or_is_refused(template: str) -> None:
    for candidate in (template, template + "{link} {opt_out}"):
        try:
            text = render(template=candidate)
        except BadInput:
            continue
        assert LINK in text
        assert "Reply STOP" in text
