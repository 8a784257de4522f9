"""Ids: UUIDv7 (RFC 9562, section 5.7), so that rows sort by the time they were made.

The time comes from the injected clock and the randomness from a source that a simulation can seed,
so one seed gives one history.
"""

from __future__ import annotations

import random
from datetime import datetime
from uuid import UUID

# Ids of one millisecond step up by a random stride, so that they sort as made and cannot be counted up.
STRIDE_BITS = 32


class Ids:
    """Makes UUIDv7s that sort in the order in which this process made them (RFC 9562, section 6.2).

    Without a seed the randomness is the operating system's.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._last = 0
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311

    def new(self, now: datetime) -> UUID:
        """A fresh id stamped with `now` (aware UTC, millisecond precision)."""
        millis = int(now.timestamp() * 1000)
        noise = self._random.getrandbits(74)
        value = (millis & (2**48 - 1)) << 80
        value |= 0x7 << 76 | (noise >> 62) << 64  # version 7 and rand_a
        value |= 0b10 << 62 | noise & (2**62 - 1)  # variant and rand_b
        if value <= self._last:
            value = self._last + 1 + self._random.getrandbits(STRIDE_BITS)
        self._last = value
        return UUID(int=value)

    def token_bytes(self, length: int) -> bytes:
        """`length` random bytes, for salts and secrets."""
        return self._random.getrandbits(length * 8).to_bytes(length, "big")
