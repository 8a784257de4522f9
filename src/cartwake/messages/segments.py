"""What a text costs to carry: its encoding, its size, and the number of parts (segments) it is billed as.

A text whose characters all lie in the GSM 7-bit default alphabet or its extension table (3GPP TS
23.038, sections 6.2.1 and 6.2.1.1) travels in septets; one other character sends all of it in UCS-2.
A longer text is cut into parts, and each part gives room to a header that joins them again (3GPP TS
23.040, section 9.2.3.24.1):

    encoding  unit               alone  per part
    GSM-7     septet               160       153
    UCS-2     UTF-16 code unit      70        67

Some characters are pairs of units: those of the extension table (an escape and a septet) and those
outside the Basic Multilingual Plane (two surrogates). A pair is never torn between two parts, so a
part may end one unit short, and dividing the units by 153 or 67 counts too few parts.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

GSM7_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM7_EXTENSION = "\f^{}\\[~]|€"

# The escape (U+001B) is in neither: as a character of its own it would change the one after it.
_NOT_GSM7 = re.compile(f"[^{re.escape(GSM7_BASIC + GSM7_EXTENSION)}]")
_GSM7_PAIR = re.compile(f"[{re.escape(GSM7_EXTENSION)}]")
_UCS2_PAIR = re.compile("[\U00010000-\U0010ffff]")


class Encoding(enum.StrEnum):
    """How a text travels."""

    GSM7 = "GSM-7"
    UCS2 = "UCS-2"


@dataclass(frozen=True, slots=True)
class Measure:
    """The size of one text."""

    encoding: Encoding
    units: int  # septets (GSM-7) or UTF-16 code units (UCS-2), without part headers
    segments: int  # what the carrier bills; at least 1
    forcing_character: str | None  # the first character that GSM-7 lacks, to show a merchant what doubles the price
    forcing_position: int | None  # where it stands, in characters counted from 1


def measure(text: str) -> Measure:
    """Measure `text` as the carrier will.

    An empty text counts as one segment of GSM-7: the carrier refuses it (Twilio error 21602), so the
    number is never billed, and a price of nothing would pass every check on credits.
    """
    forcing = _NOT_GSM7.search(text)
    if forcing is None:
        encoding, pair, alone, per_part = Encoding.GSM7, _GSM7_PAIR, 160, 153
    else:
        encoding, pair, alone, per_part = Encoding.UCS2, _UCS2_PAIR, 70, 67
    # The pairs before a pair each took one unit more than one character.
    pair_starts = [found.start() + pairs_before for pairs_before, found in enumerate(pair.finditer(text))]
    units = len(text) + len(pair_starts)
    segments = 1 if units <= alone else _parts(units, pair_starts, per_part)
    character, position = (forcing[0], forcing.start() + 1) if forcing else (None, None)
    return Measure(encoding, units, segments, character, position)


def _parts(units: int, pair_starts: Iterable[int], per_part: int) -> int:
    """Parts for `units`, where a pair that would start on a part's last unit leaves that unit unused."""
    unused = 0
    for start in pair_starts:
        if (start + unused) % per_part == per_part - 1:
            unused += 1
    return -(-(units + unused) // per_part)
