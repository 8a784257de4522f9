"""The one clock. Every process gets its time here and nowhere else; SQL is handed times as parameters.

Two kinds of seconds meet in this service. *World* seconds are what merchants, shoppers and laws
count: 45 minutes after a cart was left, 10:00 in Helsinki. *Machine* seconds are what a computer
counts: how long a call to the carrier may take. Under the system clock they are the same. Under a
virtual clock that runs 300 times as fast, a 30-second limit on a call must not shrink to a tenth of
a second, so limits on machines are converted with `Clock.machine`.
"""

from __future__ import annotations

import asyncio
import math
import mmap
import os
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

# A sleeper under a virtual clock looks up this often, because the clock's speed may change meanwhile.
VIRTUAL_NAP_S = 0.02


class Clock(Protocol):
    """Aware UTC time, and sleeping by it."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC. Read it once per decision."""

    def machine(self, seconds: float) -> timedelta:
        """How much of this clock's time passes in `seconds` of a real stopwatch."""

    async def sleep_until(self, when: datetime) -> None:
        """Return once `now()` has reached `when`."""


class SystemClock:
    """The time of the machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def machine(self, seconds: float) -> timedelta:
        return timedelta(seconds=seconds)

    async def sleep_until(self, when: datetime) -> None:
        await asyncio.sleep(max((when - self.now()).total_seconds(), 0))


class ManualClock:
    """Stands still until it is moved, and wakes its sleepers when it is. For tests and simulations."""

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def machine(self, seconds: float) -> timedelta:
        return timedelta(seconds=seconds)

    async def sleep_until(self, when: datetime) -> None:
        if when > self._now:
            awake = asyncio.get_running_loop().create_future()
            self._sleepers.append((when, awake))
            await awake

    @property
    def next_wakeup(self) -> datetime | None:
        """When the next sleeper wants to be woken; None when nobody sleeps."""
        return min((when for when, awake in self._sleepers if not awake.done()), default=None)

    def advance(self, **delta: float) -> datetime:
        """Move forward by `timedelta(**delta)` and return the new time."""
        self.set(self._now + timedelta(**delta))
        return self._now

    def set(self, when: datetime) -> None:
        """Jump to `when` (aware)."""
        self._now = when.astimezone(UTC)
        due = [each for each in self._sleepers if each[0] <= self._now]
        self._sleepers = [each for each in self._sleepers if each[0] > self._now and not each[1].done()]
        for _, awake in due:
            if not awake.done():
                awake.set_result(None)


class VirtualClock:
    """A clock that any number of processes share through one small file.

    The file holds a point where real and virtual time met, and the speed since then; a reader
    extrapolates. Whoever steers the clock writes a new point, at which both sides agree, so time
    never jumps when the speed changes.
    """

    _LAYOUT = struct.Struct("<ddd")  # real unix time, virtual unix time, virtual seconds per real second

    def __init__(self, path: Path) -> None:
        """Open the clock file that `create` made. Raises `FileNotFoundError` when there is none."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._map = mmap.mmap(descriptor, self._LAYOUT.size)
        finally:
            os.close(descriptor)

    @classmethod
    def create(cls, path: Path, start: datetime, speed: float) -> VirtualClock:
        """Make the clock file at `path`, beginning at `start`, and open it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cls._LAYOUT.pack(time.time(), start.timestamp(), speed))
        return cls(path)

    @property
    def speed(self) -> float:
        """Virtual seconds per real second."""
        return self._read()[2]

    def set_speed(self, speed: float) -> None:
        """Run at `speed` from this moment on; only one process should steer."""
        real, virtual, old_speed = self._read()
        here = time.time()
        self._map[:] = self._LAYOUT.pack(here, virtual + (here - real) * old_speed, speed)

    def now(self) -> datetime:
        real, virtual, speed = self._read()
        return datetime.fromtimestamp(virtual + (time.time() - real) * speed, UTC)

    def machine(self, seconds: float) -> timedelta:
        return timedelta(seconds=seconds * max(self.speed, 1.0))

    async def sleep_until(self, when: datetime) -> None:
        while (left_s := (when - self.now()).total_seconds()) > 0:
            await asyncio.sleep(min(left_s / max(self.speed, 1e-6), VIRTUAL_NAP_S))

    def _read(self) -> tuple[float, float, float]:
        return self._LAYOUT.unpack(self._map[:])


def machine_ms() -> int:
    """The machine's own clock, in Unix milliseconds: for software that knows no other."""
    return time.time_ns() // 1_000_000


def on_machine_ms(clock: Clock, when: datetime) -> int:
    """Where the machine's clock stands once `clock` has come to `when`, if it keeps its speed; rounded up."""
    return math.ceil(time.time() * 1000 + (when - clock.now()) / clock.machine(0.001))


def open_clock(setting: str) -> Clock:
    """The clock that `CARTWAKE_CLOCK` names: `system`, or `virtual:<path of a clock file>`.

    Raises `ValueError` with the reason when it names neither.
    """
    if setting == "system":
        return SystemClock()
    kind, _, path = setting.partition(":")
    if kind != "virtual" or not path:
        raise ValueError("must be 'system' or 'virtual:<path of a clock file>'")
    try:
        return VirtualClock(Path(path))
    except OSError as error:
        raise ValueError(f"cannot open the clock file: {error.strerror}") from error
    except ValueError:  # too short to be mapped
        raise ValueError(f"{path} is not a clock file") from None
