"""Token buckets in memory: so many at once, and so many a minute from then on."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from cartwake.kit.clock import Clock

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Rate:
    """A bucket of `burst` tokens that is refilled with `per_minute` a minute (machine time)."""

    per_minute: int
    burst: int

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """`600/100` is 600 a minute and 100 at once; `off` is no limit. Raises `ValueError`."""
        if text == "off":
            return None
        per_minute, slash, burst = text.partition("/")
        if not (slash and per_minute.isdecimal() and burst.isdecimal() and int(per_minute[:9]) and int(burst[:9])):
            raise ValueError("must be requests per minute and at once, like 600/100, or 'off'")
        return cls(int(per_minute[:9]), int(burst[:9]))

    @property
    def refill_s(self) -> int:
        """How long an empty bucket takes to be full, rounded up."""
        return math.ceil(self.burst * 60 / self.per_minute)

    def __str__(self) -> str:
        return f"{self.per_minute}/{self.burst}"


@dataclass(frozen=True)
class Level:
    """How full a bucket is after somebody asked it for a token."""

    granted: bool
    remaining: int
    full_in_s: int
    next_in_s: int  # until there is a token; 0 when there is one now


class Buckets(Generic[Name]):
    """A bucket for each name. The least recently used one is forgotten when there are too many."""

    def __init__(self, clock: Clock, rate: Rate, names_max: int) -> None:
        self._clock = clock
        self._rate = rate
        self._names_max = names_max
        self._buckets: OrderedDict[Name, tuple[float, datetime]] = OrderedDict()

    def take(self, name: Name) -> Level:
        """Take a token, if there is one."""
        now = self._clock.now()
        tokens = self._tokens(name, now)
        granted = tokens >= 1
        if granted:
            tokens -= 1
        self._buckets[name] = (tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._names_max:
            self._buckets.popitem(last=False)
        return self._level(granted, tokens)

    def look(self, name: Name) -> Level:
        """Whether there is a token; none is taken."""
        tokens = self._tokens(name, self._clock.now())
        return self._level(tokens >= 1, tokens)

    def __len__(self) -> int:
        return len(self._buckets)

    def _tokens(self, name: Name, now: datetime) -> float:
        found = self._buckets.get(name)
        if found is None:
            return self._rate.burst
        tokens, since = found
        elapsed_s = max((now - since) / self._clock.machine(1), 0)
        return min(tokens + elapsed_s * self._rate.per_minute / 60, self._rate.burst)

    def _level(self, granted: bool, tokens: float) -> Level:
        per_s = self._rate.per_minute / 60
        return Level(
            granted,
            int(tokens),
            math.ceil((self._rate.burst - tokens) / per_s),
            0 if tokens >= 1 else math.ceil((1 - tokens) / per_s),
        )
