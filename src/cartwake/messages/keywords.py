"""What a shopper's answer means: STOP, START, HELP or something else.

A shopper may withdraw consent "by any reasonable means" (47 CFR 64.1200(a)(10); GDPR article 7(3)),
in any language and not only with the carrier's keywords. So STOP is read generously: a text wrongly
taken for STOP costs a merchant one shopper, a STOP that is missed breaks the law. START lifts a
suppression, so it is read strictly: the whole body must be one of its words.

So this is the rule, in this order. A body that is a word for stopping, save courtesies, is STOP. Then what is
known to be harmless is taken out: "stop by", "bus stop", "don't stop", "stop the presses". Then a phrase for
stopping, anywhere, is STOP. A phrase is in the tables when somebody who answers a cart reminder hardly means
anything else by it, and in doubt it is: "wrong number" is, "cancel my order" is not.

The words are data, one table per language, for the languages of the 23 countries with a price of their own:
`keywords.toml`. Case, accents, punctuation, digits and emoji do not matter, neither in a body nor in the tables.
An entry is a word or a phrase; in a phrase `a/b` is a choice, `nebesiųsk*` any ending, a lone `*` up
to three words, and a leading `^` the beginning of the body.
"""

from __future__ import annotations

import enum
import re
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from cartwake.messages.opt_out import every_reply_wording


class Intent(enum.StrEnum):
    """What an inbound text asks for."""

    STOP = "stop"
    START = "start"
    HELP = "help"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Words:
    """One language's table: entries separated by commas, as `keywords.toml` describes them."""

    alone: str = ""
    anywhere: str = ""
    harmless: str = ""
    start: str = ""
    help: str = ""
    courtesy: str = ""


def _read_tables() -> dict[str, Words]:
    text = (resources.files("cartwake.messages") / "keywords.toml").read_text(encoding="utf-8")
    return {language: Words(**words) for language, words in tomllib.loads(text).items()}


TABLES = _read_tables()

# Letters that do not decompose into a base letter and a mark, and the one emoji that is a word.
_UNMARKED = str.maketrans(
    {"ł": "l", "ø": "o", "æ": "ae", "œ": "oe", "đ": "d", "🛑": " stop "} | dict.fromkeys("'’‘`´ʼ", "")
)
_NOT_A_LETTER = re.compile(r"[\W\d_]+")
_STRETCHED = re.compile(r"(.)\1{2,}")


def fold(text: str) -> str:
    """`text` as lower-case words of unmarked letters with single spaces between them ("Arrêtez !!" → "arretez").

    Apostrophes vanish ("don't" → "dont") and stretched letters shrink ("stoppp" → "stop").
    """
    # Folded again, because only decomposing turns a letter of a fancy font ("𝗦𝗧𝗢𝗣") into a plain one.
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_UNMARKED)).casefold()
    unmarked = "".join(char for char in decomposed if not unicodedata.combining(char))
    return _STRETCHED.sub(r"\1", _NOT_A_LETTER.sub(" ", unmarked)).strip()


def intent(body: str, opt_out_type: str | None) -> Intent:
    """What an inbound text asks for.

    `opt_out_type` is the carrier's own reading (STOP, START, HELP or none). Its STOP is final, because
    it has blocked the number by then. Its START and HELP are not taken on trust: the body decides.
    """
    words = fold(body)
    if body.rstrip().endswith(_CLOSING_QUOTES):
        # A reaction quotes our text: Liked “Acme: your cart ... Reply STOP to opt out”.
        words = _OUR_WORDING.sub(" ", words)
    if (opt_out_type or "").strip().upper() == "STOP" or _is_stop(words):
        return Intent.STOP
    whole = words.replace(" ", "")
    if whole in _START:
        return Intent.START
    return Intent.HELP if whole in _HELP else Intent.OTHER


def _is_stop(words: str) -> bool:
    blunt = "".join(word for word in words.split() if word not in _COURTESY)
    # Joined, so that "STOP ALL", "opt-out" and "S T O P" are words too.
    return blunt in _STOP_ALONE or _STOP_ANYWHERE.search(_HARMLESS.sub(" ", words)) is not None


def _entries(tables: Iterable[str]) -> list[str]:
    return [entry.strip() for table in tables for entry in table.split(",") if entry.strip()]


def _joined(tables: Iterable[str]) -> frozenset[str]:
    """Entries as whole bodies, without their spaces."""
    return frozenset(fold(entry).replace(" ", "") for entry in _entries(tables))


def _phrases(tables: Iterable[str]) -> re.Pattern[str]:
    """One pattern for all entries, to be searched for in a folded body."""
    return re.compile("|".join(sorted({_phrase(entry) for entry in _entries(tables)})))


def _phrase(entry: str) -> str:
    start = "^" if entry.startswith("^") else r"(?<!\S)"
    pattern = ""
    for slot in entry.removeprefix("^").split():
        if slot == "*":
            pattern += r"(?: \S+){0,3}?"
        else:
            choices = [fold(choice) + (r"\S*" if choice.endswith("*") else "") for choice in slot.split("/")]
            pattern += (" " if pattern else "") + "(?:" + "|".join(choices) + ")"
    return start + pattern + r"(?!\S)"


_CLOSING_QUOTES = ('"', "”", "“", "»", "’", "'")
_OUR_WORDING = re.compile("|".join(sorted({fold(words) for words in every_reply_wording()}, key=len, reverse=True)))

_STOP_ALONE = _joined(words.alone for words in TABLES.values())
_START = _joined(words.start for words in TABLES.values())
_HELP = _joined(words.help for words in TABLES.values())
_COURTESY = _joined(words.courtesy for words in TABLES.values())
_STOP_ANYWHERE = _phrases(words.anywhere for words in TABLES.values())
_HARMLESS = _phrases(words.harmless for words in TABLES.values())
