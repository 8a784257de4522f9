"""The words of a text and of the opt-out page, in seven languages, and putting a shop and its links into them.

The words are data: `locales/<locale>.toml`. A text that fits the GSM-7 alphabet carries 160 characters
to a segment, any other one 70, so typographic quotes, dashes and no-break spaces are written plainly
here: one of them doubles what the merchant pays. Letters are never changed.

A shop may bring its own template (`template_rules` says what it must be). Placeholders: `{link}` and
`{opt_out}`, both required, and `{shop}`. `{opt_out}` becomes the wording that suits the phone's country and
the sender: a word to answer with, or a link.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib import resources

from cartwake.kit.errors import BadInput
from cartwake.messages.opt_out import opt_out_words

LOCALES = ("en", "lt", "de", "fr", "es", "pl", "ru")
DEFAULT_LOCALE = "en"

MAX_TEXT_CHARACTERS = 1600  # a longer Body is refused (Twilio error 21617)
MAX_SHOP_NAME_CHARACTERS = 40  # what follows is cut; a name is the first thing a shopper reads, not all of it

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
KNOWN_PLACEHOLDERS = frozenset({"shop", "link", "opt_out"})

# Each of these forces UCS-2, and each has a plain form that every reader takes for the same.
PLAIN = str.maketrans(
    {**dict.fromkeys("‘’‚‛`´", "'"), **dict.fromkeys("“”„‟«»", '"'), **dict.fromkeys("‐‑‒–—−", "-"), "…": "..."}
)
# Control characters, lone surrogates, and format characters: bidi overrides that reorder the rest of
# the text, zero-width joiners and soft hyphens that nobody sees but everybody pays for.
UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs"})


@dataclass(frozen=True, kw_only=True)
class OptOutPage:
    """The words of the opt-out page, as plain text: whoever shows them escapes them."""

    title: str
    question: str  # with a `{shop}` placeholder: see `ask`
    confirm: str  # the button that stops this shop's texts
    not_mine: str  # the second button, which stops everybody's
    not_mine_hint: str  # what it does that the first does not
    done: str  # after `confirm`
    done_not_mine: str  # after `not_mine`
    expired: str

    def ask(self, shop_name: str) -> str:
        """The question, naming the shop."""
        return self.question.replace("{shop}", clean_shop_name(shop_name))


@dataclass(frozen=True)
class Wording:
    """One locale file."""

    cart_recovery: str
    stop_words: tuple[str, ...]  # that a text may name; all are understood by `keywords.intent`
    start_words: tuple[str, ...]
    page: OptOutPage


def choose_locale(wanted: str | None, shop_default: str | None) -> str:
    """The shopper's locale if we speak it, else the shop's, else English.

    Region, script and encoding are ignored: `lt`, `LT`, `lt-LT` and `lt_LT.UTF-8` are all `lt`.
    """
    for tag in (wanted, shop_default):
        language = re.split(r"[^a-z]", (tag or "").strip().lower(), maxsplit=1)[0]
        if language in LOCALES:
            return language
    return DEFAULT_LOCALE


def render_text(
    *,
    locale: str,
    shop_name: str,
    phone_country: str,
    link: str,
    opt_out_link: str,
    two_way_sender: bool,
    template: str | None = None,
) -> str:
    """The text as it is sent.

    `locale` is one of `LOCALES`. `template` replaces the locale's built-in text; the opt-out wording stays
    that of locale and country. `opt_out_link` is used only where the sender cannot be answered.
    Raises `BadInput` for a template with an unknown placeholder or a stray brace, or without `{link}`
    or `{opt_out}`; for a shop name with nothing to read in it; and for a result that is too long.
    """
    built_in = wording(locale).cart_recovery
    body = built_in if template is None else _checked(template)
    opt_out = opt_out_words(phone_country, locale, None if two_way_sender else opt_out_link)
    return fill(body, shop=clean_shop_name(shop_name), link=link, opt_out=opt_out)


def fill(body: str, **values: str) -> str:
    """`body` with its placeholders replaced. Raises `BadInput` when the result is too long for a carrier."""
    # One pass: a shop that calls itself "{link}" is called that, and nothing else happens.
    text = PLACEHOLDER.sub(lambda found: values[found[1]], body)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise BadInput(
            f"The text has {len(text)} characters; the carrier takes at most {MAX_TEXT_CHARACTERS}.",
            slug="text-too-long",
            field="template",
        )
    return text


def opt_out_page(locale: str) -> OptOutPage:
    """The opt-out page's words. `locale` is one of `LOCALES`."""
    return wording(locale).page


def clean_shop_name(name: str) -> str:
    """A shop's name as texts and pages show it: one line, nothing unseen, at most 40 characters.

    Raises `BadInput` when nothing is left: a text must say who writes.
    """
    cleaned = _clean_line(name)[:MAX_SHOP_NAME_CHARACTERS].rstrip()
    if not cleaned:
        raise BadInput("The shop's name has no character that can be read.", slug="empty-shop-name", field="shop_name")
    return cleaned


@cache
def wording(locale: str) -> Wording:
    """Everything that a locale's file says. Raises `BadInput` for a locale that is not one of `LOCALES`."""
    if locale not in LOCALES:
        raise BadInput(f"The locale must be one of {', '.join(LOCALES)}.", slug="unknown-locale", field="locale")
    file = resources.files("cartwake.messages") / "locales" / f"{locale}.toml"
    words = tomllib.loads(file.read_text(encoding="utf-8"))
    opt_out = words["opt_out"]
    return Wording(
        cart_recovery=words["texts"]["cart_recovery"],
        stop_words=tuple(opt_out["stop_words"]),
        start_words=tuple(opt_out["start_words"]),
        page=OptOutPage(**words["page"]),
    )


def clean_template(template: str) -> str:
    """A template as it is sent: cleaned line by line, without empty lines around it."""
    return "\n".join(_clean_line(line) for line in template.splitlines()).strip()


def _checked(template: str) -> str:
    """A template cleaned once more, and fit to be filled: what was saved before a rule changed is not sent.

    The full rules are those of `template_rules`, which are asked when a template is saved.
    """
    cleaned = clean_template(template)
    names = set(PLACEHOLDER.findall(cleaned))
    if names - KNOWN_PLACEHOLDERS or re.search("[{}]", PLACEHOLDER.sub("", cleaned)):
        known = ", ".join(f"{{{name}}}" for name in sorted(KNOWN_PLACEHOLDERS))
        raise _bad_template(f"The template knows {known} and no other braces.", "unknown-variable")
    for name, slug in (("link", "missing-link"), ("opt_out", "missing-opt-out")):
        if name not in names:
            raise _bad_template(f"The template needs {{{name}}}.", slug)
    return cleaned


def _bad_template(detail: str, slug: str) -> BadInput:
    return BadInput(detail, slug=slug, field="template")


def _clean_line(text: str) -> str:
    """One line: nothing unseen, single spaces, plain punctuation, letters composed.

    Composed (NFC), because "é" written as a letter and an accent is two characters outside GSM-7.
    """
    seen = "".join(char for char in text if char.isspace() or unicodedata.category(char) not in UNSEEN_CATEGORIES)
    return " ".join(unicodedata.normalize("NFC", seen).translate(PLAIN).split())
