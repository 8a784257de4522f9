"""An event loop whose time is the story's, and which returns when it has run dry.

Nothing here waits by itself. Timers fire when the director moves time, and when no task can go on without
time, a gate or the database, `run_dry` returns. So between two choices of the director everything has come
to rest, however fast or slow the machine is.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any


class StoryLoop(asyncio.SelectorEventLoop):
    """Seconds since the beginning of the story are its time."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()
        self._watcher = _Watcher(self.stop)
        super().__init__(self._watcher)

    def time(self) -> float:
        return self._now_s

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = context or copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, _Timer(when, next(self._numbers), handle, lambda: callback(*args), context))
        return handle

    def run_in_executor(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        raise RuntimeError("the story has no threads: nobody could say when they are done")

    def run_dry(self) -> None:
        """Run until no task can go on."""
        self.run_forever()

    def peek(self, patience_s: float) -> bool:
        """Whether a socket has something to say within so many real seconds."""
        return bool(self._watcher.peek(patience_s))

    def next_timer(self) -> float | None:
        """When the earliest sleeper wants to be woken."""
        while self._timers and self._timers[0].handle.cancelled():
            heapq.heappop(self._timers)
        return self._timers[0].when if self._timers else None

    def set_time(self, now_s: float) -> None:
        """Time is now `now_s`, never earlier than it was; whoever slept until then may wake."""
        self._now_s = max(self._now_s, now_s)
        while (when := self.next_timer()) is not None and when <= self._now_s:
            timer = heapq.heappop(self._timers)
            self.call_soon(timer.fire, context=timer.context)


@dataclass(order=True)
class _Timer:
    when: float
    number: int
    handle: asyncio.TimerHandle = field(compare=False)
    callback: Callable[[], object] = field(compare=False)
    context: Context = field(compare=False)

    def fire(self) -> None:
        if not self.handle.cancelled():
            self.callback()


class _Watcher(selectors.DefaultSelector):
    """Stops the loop instead of waiting."""

    def __init__(self, on_dry: Callable[[], None]) -> None:
        super().__init__()
        self._on_dry = on_dry

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0:
            self._on_dry()
        return ready

    def peek(self, patience_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(patience_s)
