"""How many parts a text has: 3GPP 23.038 (alphabets) and 23.040 (parts).

The sandbox counts for itself, as a carrier does, so that it can disagree with Cartwake's own count.
"""

from __future__ import annotations

_GSM7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_ESCAPED = frozenset("^{}\\[~]|€\f")  # two septets each
_GSM7_ALL = _GSM7 | _ESCAPED

GSM7_LIMITS = (160, 153)  # septets alone, septets per part
UCS2_LIMITS = (70, 67)  # 16-bit units alone, units per part


def segments(body: str) -> int:
    """Parts that `body` takes. Neither an escaped character nor a surrogate pair straddles two parts."""
    if _GSM7_ALL.issuperset(body):
        widths = [2 if character in _ESCAPED else 1 for character in body]
        alone, per_part = GSM7_LIMITS
    else:
        widths = [2 if ord(character) > 0xFFFF else 1 for character in body]
        alone, per_part = UCS2_LIMITS
    if sum(widths) <= alone:
        return 1
    parts, used = 1, 0
    for width in widths:
        if used + width > per_part:
            parts, used = parts + 1, 0
        used += width
    return parts
