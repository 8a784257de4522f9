"""Phone numbers in the logs: there must be none (guarantee G12, with real processes).

The numbers of the plan are looked for in what every process wrote, PostgreSQL's own log included: as E.164 with
and without the plus, wherever it stands, and as a country's people write it, where it stands by itself (its eight to
eleven digits would else be met by chance in ids and hashes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from chaos.plan import Cart

CALLING_CODES = {"LT": "370", "FI": "358", "DE": "49"}
TRUNK = "0"  # before a number within each of these countries
DIGITS = re.compile(rb"(?<!\d)\d{8,}(?!\d)")
# What makes of some digits a part of something longer.
WORD = re.compile(rb"\w")


class Numbers:
    """The phone numbers of some carts, in every way that they might be written."""

    def __init__(self, carts: Iterable[Cart]) -> None:
        self._e164: dict[bytes, Cart] = {}
        self._national: dict[bytes, Cart] = {}
        for cart in carts:
            digits = cart.phone.removeprefix("+")
            national = digits.removeprefix(CALLING_CODES[cart.country])
            self._e164[digits.encode()] = cart
            self._national |= {national.encode(): cart, f"{TRUNK}{national}".encode(): cart}
        self._lengths = {len(digits) for digits in self._e164}

    def found_in(self, logs: Iterable[Path]) -> list[str]:
        """Where: the file, its line, and whose number it is."""
        return [f"{log.name}, line {number}: the phone of {cart.external_id}"
                for log in logs for number, cart in self._lines(log)]  # fmt: skip

    def _lines(self, log: Path) -> Iterator[tuple[int, Cart]]:
        with log.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                for digits in DIGITS.finditer(line):
                    if cart := self._whose(line, digits.start(), digits.end()):
                        yield number, cart

    def _whose(self, line: bytes, start: int, end: int) -> Cart | None:
        digits = line[start:end]
        for length in self._lengths:
            for at in range(len(digits) - length + 1):
                if cart := self._e164.get(digits[at : at + length]):
                    return cart
        stands_alone = not WORD.match(line[start - 1 : start]) and not WORD.match(line[end : end + 1])
        return self._national.get(digits) if stands_alone else None


def logs_in(folder: Path) -> list[Path]:
    """What the processes of a run wrote, each into a file of its own, and PostgreSQL."""
    return sorted([*(folder / "logs").iterdir(), *(folder / "postgres").glob("postgres.log*")])
