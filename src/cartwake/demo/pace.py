"""Steering the clock: a pace that people can follow while things happen, and none wasted while nothing does.

Under a fast clock the machine is slow: what takes it 50 ms takes an hour at 72,000 times real time, and a
text's window may close meanwhile. So nothing is ever due while the clock runs fast. It slows down before
the next thing that is known to be due, and runs at the pace of the story while anything is under way.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

from cartwake.kit.clock import VirtualClock

FASTEST = 60_000.0
STEER_EVERY_S = 0.01
# A gap is crossed at the speed that would take this long: the clock slows down as it comes near, and does
# not run past what is due unless this process is kept from steering for so long.
APPROACH_S = 0.2
# The rest of the way is at the pace of the story.
CALM_S = 0.3
# What was seen longer ago than this no longer says that nothing is due.
SIGHT_S = 0.3

SCAN_EVERY = timedelta(minutes=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def next_scan(scan_at: datetime) -> datetime:
    """When the abandonment scan comes to a cart that may be asked about from `scan_at` on."""
    return scan_at + (EPOCH - scan_at) % SCAN_EVERY


def speed_towards(now: datetime, due_at: datetime | None, pace: float) -> float:
    """How fast to run at `now` when nothing is due before `due_at` (None: nothing known)."""
    if due_at is None:
        return FASTEST
    gap_s = (due_at - now).total_seconds() - CALM_S * pace
    return min(max(gap_s / APPROACH_S, pace), FASTEST)


class Steering:
    """The only hand on the clock, in a thread of its own, which no busy event loop keeps from braking."""

    def __init__(self, clock: VirtualClock, pace: float) -> None:
        """`pace`: virtual seconds per real second while something happens."""
        self._clock = clock
        self._pace = pace
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._steer, name="steering", daemon=True)
        self._haste = 1.0
        self._due_at: datetime | None = None
        self._seen_s: float | None = None  # by the machine's stopwatch; None: something happens

    def __enter__(self) -> Steering:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def nothing_until(self, due_at: datetime | None) -> None:
        """Nothing is under way, and nothing is due before `due_at` (None: nothing at all)."""
        with self._lock:
            self._due_at, self._seen_s = due_at, time.monotonic()

    def something_happens(self, haste: float = 1.0) -> None:
        """Keep the pace of the story, or `haste` times that, from this moment on."""
        with self._lock:
            self._seen_s, self._haste = None, haste
            self._turn()

    def _steer(self) -> None:
        while not self._stopped.wait(STEER_EVERY_S):
            with self._lock:
                self._turn()

    def _turn(self) -> None:
        is_calm = self._seen_s is not None and time.monotonic() - self._seen_s < SIGHT_S
        pace = self._pace * self._haste
        speed = speed_towards(self._clock.now(), self._due_at, pace) if is_calm else pace
        if abs(speed - self._clock.speed) > 0.01 * self._clock.speed:
            self._clock.set_speed(speed)
