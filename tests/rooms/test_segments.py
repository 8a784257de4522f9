"""What a text is billed as, at every edge, and against a second way of counting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartwake.messages.segments import Encoding, measure

GSM7, UCS2 = Encoding.GSM7, Encoding.UCS2


@pytest.mark.parametrize(
    ("text", "encoding", "units", "segments"),
    [
        ("", GSM7, 0, 1),
        ("a", GSM7, 1, 1),
        ("a" * 160, GSM7, 160, 1),
        ("a" * 161, GSM7, 161, 2),
        ("a" * 306, GSM7, 306, 2),
        ("a" * 307, GSM7, 307, 3),
        ("ž" * 70, UCS2, 70, 1),
        ("ž" * 71, UCS2, 71, 2),
        ("ž" * 134, UCS2, 134, 2),
        ("ž" * 135, UCS2, 135, 3),
        # Extension table: two septets each.
        ("€", GSM7, 2, 1),
        ("\f^{}\\[~]|€", GSM7, 20, 1),
        ("€" * 80, GSM7, 160, 1),
        ("€" * 81, GSM7, 162, 2),
        ("a" * 158 + "€", GSM7, 160, 1),
        # 159 + a pair is one too many to go alone; part 1 holds 153, the rest fits part 2.
        ("a" * 159 + "€", GSM7, 161, 2),
        # The pair would straddle parts 1 and 2: part 1 ends at 152, and one septet is missing at the end.
        ("a" * 152 + "€" + "a" * 151, GSM7, 305, 2),
        ("a" * 152 + "€" + "a" * 152, GSM7, 306, 3),
        ("a" * 151 + "€" + "a" * 153, GSM7, 306, 2),
        # 76 pairs to a part of 153: one septet is lost in every full part.
        ("€" * 152, GSM7, 304, 2),
        ("€" * 153, GSM7, 306, 3),
        # Emoji: two code units each, never torn.
        ("😀" * 35, UCS2, 70, 1),
        ("😀" * 36, UCS2, 72, 2),
        ("😀" * 66, UCS2, 132, 2),
        ("😀" * 67, UCS2, 134, 3),
        ("ž" * 66 + "😀" + "ž" * 66, UCS2, 134, 3),
        ("ž" * 65 + "😀" + "ž" * 67, UCS2, 134, 2),
        # In UCS-2 the extension table no longer matters.
        ("€" * 69 + "ž", UCS2, 70, 1),
        # One character decides for all of them.
        ("a" * 69 + "`", UCS2, 70, 1),
        ("a" * 70 + "`", UCS2, 71, 2),
        # Half a surrogate pair is damage from elsewhere; it must not raise here.
        ("\ud83d", UCS2, 1, 1),
        ("\x1b", UCS2, 1, 1),
    ],
)
def test_edges(text: str, encoding: Encoding, units: int, segments: int) -> None:
    size = measure(text)
    assert (size.encoding, size.units, size.segments) == (encoding, units, segments)


@pytest.mark.parametrize(
    ("text", "forcing"),
    [
        ("You left something in your cart, it's £5 off", None),
        ("It’s still here", "’"),
        ("`quoted`", "`"),
        ("a no-break\u00a0space", "\u00a0"),
        ("Schöne Grüße, Ihr Käufer-Team: 5 €, ÄÖÜ", None),  # de
        ("Città, perché, così, però, più", None),  # it
        ("Hyvää päivää, ostoskorisi odottaa", None),  # fi
        ("Hej på dig, din varukorg är kvar, ÅÄÖ", None),  # sv
        ("Kære kunde, din kurv står på lager, ÆØÅ", None),  # da, no
        ("¿Mañana? ¡Sí!", "í"),  # es: ¿ ¡ ñ fit, í does not
        ("El niño, el pingüino y el café: ñ ü é", None),
        ("¡Aquí está tu carrito!", "í"),
        ("más", "á"),
        ("opción", "ó"),
        ("según", "ú"),
        ("Où est passé le café à crème", None),  # fr
        ("français", "ç"),
        ("être", "ê"),
        ("âge", "â"),
        ("bientôt", "ô"),
        ("île", "î"),
        ("œuvre", "œ"),
        ("ÇA", None),  # the capital is in the alphabet, the small letter is not
        ("één", None),  # nl
        ("geïnd", "ï"),
        ("financiële", "ë"),
        ("promoção", "ç"),  # pt
        ("não", "ã"),
        ("põe", "õ"),
        ("õhtu", "õ"),  # et
        ("šokolaad", "š"),
        ("Jūsų krepšelis", "ū"),  # lt
        ("grozs ir šeit", "š"),  # lv
        ("Twój koszyk", "ó"),  # pl
        ("zażółć", "ż"),
        ("Корзина", "К"),  # ru
        ("ΔΦΓΛΩΠΨΣΘΞ", None),
        ("αβγ", "α"),
    ],
)
def test_what_each_language_costs(text: str, forcing: str | None) -> None:
    size = measure(text)
    assert size.forcing_character == forcing
    assert size.encoding is (GSM7 if forcing is None else UCS2)


# A second way of counting, which shares nothing with the first: its own alphabet, written from the
# other side (ASCII with exceptions), and characters put into parts one at a time.
ASCII_BUT_TWO_SEPTETS = set("[]{}\\^~|")
BASIC = {chr(code) for code in range(0x20, 0x7F)} - ASCII_BUT_TWO_SEPTETS - {"`"} | set("\r\n£¥")
BASIC |= set("èéùìòàäöñüåøæß") | set("ÇÄÖÑÜÅØÆÉ") | set("¤§¡¿") | set("ΔΦΓΛΩΠΨΣΘΞ")
TWO_SEPTETS = ASCII_BUT_TWO_SEPTETS | {"€", "\x0c"}


def naive(text: str) -> tuple[Encoding, int, int]:
    """Encoding, units and parts of `text`, the slow and obvious way."""
    if all(character in BASIC or character in TWO_SEPTETS for character in text):
        encoding, alone, room = GSM7, 160, 153
        sizes = [2 if character in TWO_SEPTETS else 1 for character in text]
    else:
        encoding, alone, room = UCS2, 70, 67
        sizes = [len(character.encode("utf-16-be", "surrogatepass")) // 2 for character in text]
    if sum(sizes) <= alone:
        return encoding, sum(sizes), 1
    parts = [0]
    for size in sizes:
        if parts[-1] + size > room:
            parts.append(0)
        parts[-1] += size
    return encoding, sum(sizes), len(parts)


def test_the_default_alphabet_has_127_characters_and_10_more() -> None:
    assert len(BASIC) == 127  # 128 places, one of which is the escape
    assert len(TWO_SEPTETS) == 10


gsm7_texts = st.text(st.sampled_from(sorted(BASIC)) | st.sampled_from(sorted(TWO_SEPTETS)), max_size=700)
ucs2_texts = st.text(st.sampled_from("až€😀я🛒 "), max_size=400)
# Runs with pairs near the edges, which uniform random text seldom hits.
edge_texts = st.lists(
    st.tuples(st.sampled_from("a€ž😀"), st.sampled_from([1, 2, 65, 66, 67, 76, 77, 151, 152, 153])), max_size=6
).map(lambda runs: "".join(character * count for character, count in runs))


@given(st.text(max_size=400) | gsm7_texts | ucs2_texts | edge_texts)
def test_agrees_with_placing_characters_one_by_one(text: str) -> None:
    size = measure(text)
    assert (size.encoding, size.units, size.segments) == naive(text)


@given(st.text(max_size=300) | edge_texts, st.text(max_size=20))
def test_a_longer_text_is_never_cheaper(text: str, more: str) -> None:
    assert measure(text + more).segments >= measure(text).segments


@given(st.text(max_size=300))
def test_the_forcing_character_is_the_first_that_gsm7_lacks(text: str) -> None:
    forcing = measure(text).forcing_character
    lacking = [character for character in text if character not in BASIC | TWO_SEPTETS]
    assert forcing == (lacking[0] if lacking else None)
