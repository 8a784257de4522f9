"""What a shop's own text must be before it is kept, and everything that is wrong with one that is not.

A template serves every country that the shop sells to, so the strictest rule holds for all of them: each
text has the shop's way back and the way out. Lengths are judged at their worst: the longest name that a
shop can show, the longest opt-out wording of any country, links of the real length.

Addresses of the shop's own are refused, whatever they lead to. Carriers filter texts with shorteners and
foreign links (Twilio error 30007; the French charter forbids shorteners outright), an address makes a
reminder look like phishing, and a tap on it is neither counted nor attributed. In doubt a piece of text
counts as an address, because phones underline it as one; a space after the full stop settles it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from cartwake.carts.links import longest_link_path
from cartwake.kit.errors import BadInput
from cartwake.messages.opt_out import longest_opt_out
from cartwake.messages.segments import GSM7_BASIC, GSM7_EXTENSION, Measure, measure
from cartwake.messages.templates import (
    KNOWN_PLACEHOLDERS,
    MAX_SHOP_NAME_CHARACTERS,
    PLACEHOLDER,
    PLAIN,
    UNSEEN_CATEGORIES,
    clean_template,
    fill,
)

FIELD = "text"
# Each segment costs 1 to 3 credits, and carriers deliver long texts badly.
MAX_SEGMENTS = 6
# As long as a name can be shown, in characters that take two units each and force the dearer encoding.
WORST_SHOP_NAME = "🛍" * MAX_SHOP_NAME_CHARACTERS
FLAWS_MAX = 20

# Letters and symbols that look like nothing, whatever Unicode calls them (Default_Ignorable_Code_Point and the
# blank Braille pattern). U+FE0F is allowed: it turns a symbol into its emoji.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for code in range(0xFE00, 0xFE0F)
}
_REFUSED_CATEGORIES = UNSEEN_CATEGORIES | {"Co", "Cn", "Zl", "Zp"}  # private, unassigned, odd line breaks

# A scheme, `www.`, an IPv4 address, or a letter (or a variable), a dot and two letters without a space between them.
_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}://|\bwww\.|(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)|(?:[^\W_]|\})[.。．｡][^\W\d_]{2}",
    re.IGNORECASE,
)
# What stands beside a link becomes part of it, or keeps the phone from seeing it.
_CROWDED = re.compile(r"""(?<=[^\s("'\[:])\{(?:link|opt_out)\}|\{(?:link|opt_out)\}(?=[^\s.,;:!?)"'\]])""")

# Characters that GSM-7 lacks and a plainer one says as well. Letters are not here: without its mark a word is
# misspelt, and that is the merchant's to decide.
_LOOKALIKES = {
    **dict.fromkeys("•·●▪‣", "-"),
    **{"→": "->", "←": "<-", "×": "x", "÷": "/", "©": "(c)", "®": "(R)", "′": "'", "″": '"', "‹": "'", "›": "'"},
}
_GSM7 = frozenset(GSM7_BASIC + GSM7_EXTENSION)


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong with a template."""

    slug: str
    detail: str
    position: int | None = None  # of its first character, counted from 1; None: the text as a whole


@dataclass(frozen=True)
class Replacement:
    """A character of a template that is written more plainly, because it would double the price."""

    character: str
    position: int  # counted from 1
    by: str


def accept_template(text: str, *, locale: str, public_url: str) -> str:
    """The template as it will be kept. Raises `BadInput` that names every flaw and where it is."""
    flaws = find_flaws(text, locale=locale, public_url=public_url)
    if flaws:
        details = [_placed(flaw, text) for flaw in flaws[:FLAWS_MAX]]
        raise BadInput(details[0], slug=flaws[0].slug, field=FIELD, also=details[1:])
    return clean_template(text)


def find_flaws(text: str, *, locale: str, public_url: str) -> list[Flaw]:
    """Everything that is wrong with a template, in order of place; empty when it may be kept."""
    unix = text.replace("\r\n", "\n")
    if not clean_template(unix):
        return [Flaw("empty-template", "The text is empty.")]
    flaws = [*_unseen(unix), *_braces(unix), *_addresses(unix), *_crowded(unix)]
    flaws.sort(key=lambda flaw: flaw.position or 0)
    flaws += _missing(unix)
    return flaws or _too_long(unix, locale, public_url)


def worst_case(template: str, *, locale: str, public_url: str) -> Measure:
    """The largest that an accepted template's text can become. Raises `BadInput` beyond the carrier's limit."""
    link = public_url + longest_link_path("recover")
    opt_out = longest_opt_out(locale, public_url + longest_link_path("opt-out"))
    return measure(fill(clean_template(template), shop=WORST_SHOP_NAME, link=link, opt_out=opt_out))


def replacements(text: str) -> list[Replacement]:
    """The characters of a template that are written more plainly when it is kept."""
    unix = text.replace("\r\n", "\n")
    return [
        Replacement(char, position, " " if char.isspace() else str(PLAIN[ord(char)]))
        for position, char in enumerate(unix, 1)
        if ord(char) in PLAIN or (char.isspace() and char not in " \n")
    ]


def plainer(char: str) -> str | None:
    """What GSM-7 has in place of a character that it lacks; None where nothing says the same."""
    known = PLAIN.get(ord(char)) or _LOOKALIKES.get(char)
    if known:
        return str(known)
    folded = unicodedata.normalize("NFKC", char).replace("⁄", "/")
    return folded if folded != char and set(folded) <= _GSM7 else None


def _unseen(text: str) -> Iterator[Flaw]:
    for position, char in enumerate(text, 1):
        if char == "\n":
            continue
        if char in _INVISIBLE or unicodedata.category(char) in _REFUSED_CATEGORIES:
            name = unicodedata.name(char, "a control character").lower()
            yield Flaw("unseen-character", f"U+{ord(char):04X} ({name}) cannot be seen; remove it", position)


def _braces(text: str) -> Iterator[Flaw]:
    known = ", ".join(f"{{{name}}}" for name in sorted(KNOWN_PLACEHOLDERS))
    for found in PLACEHOLDER.finditer(text):
        if found[1] not in KNOWN_PLACEHOLDERS:
            # Repeated only where it can be a name: the rest of a text is nobody's to read in an error.
            name = found[0] if re.fullmatch(r"[A-Za-z_. ]{0,30}", found[1]) else "this variable"
            yield Flaw("unknown-variable", f"{name} is not known; a text has {known}", found.start() + 1)
    blanked = PLACEHOLDER.sub(lambda found: " " * len(found[0]), text)
    for found in re.finditer("[{}]", blanked):
        yield Flaw("malformed-braces", f"a brace stands alone; a text has {known} and no others", found.start() + 1)


def _addresses(text: str) -> Iterator[Flaw]:
    detail = "reads like an address, and a text has no link but {link}; after a full stop comes a space"
    for word in re.finditer(r"\S+", text):
        if _ADDRESS.search(word[0]):
            yield Flaw("foreign-link", detail, word.start() + 1)


def _crowded(text: str) -> Iterator[Flaw]:
    for found in _CROWDED.finditer(text):
        detail = f"{found[0]} must stand alone, or phones take what is beside it for a part of the link; add a space"
        yield Flaw("crowded-link", detail, found.start() + 1)


def _missing(text: str) -> Iterator[Flaw]:
    names = set(PLACEHOLDER.findall(text))
    if "link" not in names:
        yield Flaw("missing-link", "The text needs {link}, or the shopper cannot return to the cart.")
    if "opt_out" not in names:
        yield Flaw("missing-opt-out", "The text needs {opt_out}: in every country a text says how to stop them.")


def _too_long(text: str, locale: str, public_url: str) -> list[Flaw]:
    try:
        size = worst_case(text, locale=locale, public_url=public_url)
    except BadInput as error:
        return [Flaw(error.slug, error.detail)]
    if size.segments <= MAX_SEGMENTS:
        return []
    detail = (
        f"With the longest shop name and the longest opt-out wording the text takes {size.segments} segments"
        f" ({size.units} units in {size.encoding}); at most {MAX_SEGMENTS} are sent. Shorten it."
    )
    return [Flaw("text-too-long", detail)]


def _placed(flaw: Flaw, text: str) -> str:
    if flaw.position is None:
        return flaw.detail
    before = text.replace("\r\n", "\n")[: flaw.position - 1]
    line = before.count("\n") + 1
    where = f"At character {flaw.position}" + (f" (line {line})" if "\n" in text else "")
    return f"{where}: {flaw.detail}."
