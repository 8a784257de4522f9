"""Many callers, one flush: what arrives while a flush is under way waits for the next and goes out with it.

A commit costs the same for one row as for hundreds. The batch grows with the load by itself, and a lone
caller never waits for company.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Coalescer(Generic[Item]):
    """Gathers items of one event loop into batches for `flush`, one batch at a time."""

    def __init__(self, flush: Callable[[Sequence[Item]], Awaitable[None]], *, batch_max: int = 1000) -> None:
        """`flush` gets from 1 to `batch_max` items and returns once they are safe."""
        self._flush = flush
        self._batch_max = batch_max
        self._waiting: deque[tuple[Item, asyncio.Future[None]]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: Item) -> None:
        """Return once the flush that carried `item` has succeeded; raise what it raised when it has not.

        A failed flush fails its own callers only; the next batch is tried all the same.
        """
        if self._closed:
            raise RuntimeError("the coalescer is closed")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_all())
        await done

    async def close(self) -> None:
        """Take nothing more, and return once everything that was taken is answered."""
        self._closed = True
        if self._flusher is not None:
            await asyncio.wait([self._flusher])

    async def _flush_all(self) -> None:
        try:
            while self._waiting:
                await self._flush_batch(self._take())
        finally:
            self._flusher = None

    def _take(self) -> list[tuple[Item, asyncio.Future[None]]]:
        """The next batch, without those whose callers have gone away."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_max))]
        return [(item, done) for item, done in batch if not done.done()]

    async def _flush_batch(self, batch: list[tuple[Item, asyncio.Future[None]]]) -> None:
        if not batch:
            return
        failure: BaseException | None = None
        try:
            await self._flush([item for item, _ in batch])
        except BaseException as error:
            failure = error
        for _, done in batch:
            if done.done():
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)
        if failure is not None and not isinstance(failure, Exception):
            raise failure  # this process is stopping
