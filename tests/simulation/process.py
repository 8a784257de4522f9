"""A simulated process: tasks that die together, with a clock of its own that may be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from cartwake.jobs.text_job import Timed
from cartwake.jobs.trigger import Wake

if TYPE_CHECKING:
    from simulation.database import StoryConnection
    from simulation.director import Director

T = TypeVar("T")
CURRENT: ContextVar[Process | None] = ContextVar("CURRENT", default=None)
ERRAND: ContextVar[str] = ContextVar("ERRAND", default="")  # on whose behalf a task runs


class Process:
    """Whatever would end with one `kill -9`. Tasks that its tasks start belong to it too."""

    def __init__(self, name: str, director: Director) -> None:
        self.name = name
        self.director = director
        self.alive = True
        # In the order in which they were made, which a set would not keep.
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.connections: dict[StoryConnection, None] = {}
        self.doing: list[str] = []  # what its tasks are in the middle of
        self.in_hand: dict[UUID, str] = {}  # attempts that it has claimed and not recorded, and how far each is
        self.clock = StoryClock(self)
        director.processes.append(self)

    @property
    def kind(self) -> str:
        return self.name.partition("-")[0]

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """In the middle of something, as long as the block lasts."""
        self.doing.append(what)
        try:
            yield
        finally:
            self.doing.remove(what)

    def whereabouts(self) -> set[str]:
        """Where it is in its work: nowhere, when it is at rest."""
        transactions = [each.transaction_so_far for each in self.connections]
        marks = {mark for each in transactions if each is not None for mark in each.marks}
        return {f"{self.kind} {where}" for where in (*self.doing, *self.in_hand.values(), *marks)}

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`; what it raises ends the simulation."""
        self.task(self._watched(work))

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` as one of this process's tasks."""
        context = copy_context()
        context.run(CURRENT.set, self)
        return self.director.loop.create_task(work, context=context)

    async def gate(self, what: str, ids: frozenset[object] = frozenset()) -> None:
        """Wait until the director lets this task go on. In a dead process it never does."""
        await self.director.gate(self, what, ids)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.director.troubles.append(error)


class StoryClock:
    """The story's time as one machine sees it: its clock may be some seconds wrong, and be put right."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.wrong_by = timedelta(0)

    def now(self) -> datetime:
        return self._process.director.now() + self.wrong_by

    def machine(self, seconds: float) -> timedelta:
        return timedelta(seconds=seconds)

    async def sleep_until(self, when: datetime) -> None:
        """As the system's clock does: a nap of the right length, whatever happens to the clock meanwhile."""
        await asyncio.sleep(max((when - self.now()).total_seconds(), 0))
        await self._process.gate("wakes up")


class StoryTrigger:
    """Wakes a worker when something is due or announced; an announcement may be lost."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._heard = {wake: asyncio.Event() for wake in Wake}

    async def wait(self, wake: Wake, until: datetime | None) -> None:
        patience_s = self._process.director.chaos.patience_s()
        if until is not None:
            patience_s = min(patience_s, max((until - self._process.clock.now()).total_seconds(), 0))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._heard[wake].wait(), patience_s)
        self._heard[wake].clear()
        await self._process.gate(f"looks for {wake.removeprefix('cartwake_')}")

    async def put(self, due: Sequence[Timed]) -> None:
        """The times are in the database."""

    def hear(self, wake: Wake) -> None:
        """Something was announced."""
        self._heard[wake].set()

    async def close(self) -> None:
        """Nothing to give back."""


def belonging_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """A task factory: a task belongs to the process that started it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    context: Context | None = options.get("context")
    process = context.get(CURRENT) if context else CURRENT.get()
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(process.tasks.pop)
    return task
