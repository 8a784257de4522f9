"""Dying at a chosen point: a story is played up to its n-th step, and there it stops for ever.

A step is what a task does between two waits, in the story itself and in every task that it starts; so dying at step 1,
2, 3 … until the story ends is dying at every point where a process can be caught waiting. What dies does not clean up:
its tasks stand still with whatever they hold, until the test has taken its database sessions away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, Database

NAME = "about to die"
SESSIONS = "FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"
TAKE_AWAY = f"SELECT pg_terminate_backend(pid) {SESSIONS}"
STILL_THERE = f"SELECT {SESSIONS}"


@dataclass
class Life:
    """How many steps a story has, and how many it has taken."""

    dies_at: int
    steps: int = 0
    died: asyncio.Event = field(default_factory=asyncio.Event)
    buried: bool = False
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def is_over(self) -> bool:
        """Count one step; whether it is one too many."""
        self.steps += 1
        if self.steps >= self.dies_at and not self.buried:
            self.died.set()
        return self.died.is_set() and not self.buried


LIFE: ContextVar[Life | None] = ContextVar("life", default=None)


class _Counted:
    """A coroutine that takes its steps only while it lives."""

    def __init__(self, inner: Coroutine[Any, Any, Any], life: Life) -> None:
        self._inner, self._life = inner, life

    def __await__(self) -> Generator[Any, Any, Any]:
        steps, thrown = self._inner.__await__(), None
        while True:
            try:
                while self._life.is_over():
                    yield from asyncio.get_running_loop().create_future()
            except BaseException as error:  # it is being buried
                thrown = error
            try:
                waits_for = steps.throw(thrown) if thrown else steps.send(None)
            except StopIteration as end:
                return end.value
            thrown = None
            try:
                yield waits_for
            except BaseException as error:
                thrown = error


@contextlib.contextmanager
def mortal_tasks() -> Iterator[None]:
    """While the block lasts, tasks that are started in a life are counted as its own."""
    loop = asyncio.get_running_loop()

    def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        if (life := LIFE.get()) is None:
            return asyncio.Task(coro, loop=loop, **options)

        async def live() -> Any:
            return await _Counted(coro, life)

        task = asyncio.Task(live(), loop=loop, **options)
        life.tasks.add(task)
        return task

    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def die_at(step: int, url: str, vault: Vault, story: Callable[[Database], Awaitable[object]]) -> bool:
    """Play the story, with connections of its own, to its `step`; whether it died there (else it has ended)."""
    database = Database(make_conninfo(url, application_name=NAME), vault)
    async with database.transaction(ENGINE):
        pass  # connected before the story begins
    life = Life(step)
    with mortal_tasks():
        token = LIFE.set(life)
        told = asyncio.ensure_future(_tell(story, database))
        LIFE.reset(token)
        death = asyncio.ensure_future(life.died.wait())
        await asyncio.wait({told, death}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if not life.died.is_set():
            await told
        else:
            take_sessions_away(url)
        await _bury(life)
    await database.close()
    return life.died.is_set()


async def _tell(story: Callable[[Database], Awaitable[object]], database: Database) -> None:
    await story(database)


def take_sessions_away(url: str) -> None:
    """As the kernel does with a dead process's sockets: what was not committed is undone."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(TAKE_AWAY, (NAME,))
        while owner.execute(STILL_THERE, (NAME,)).fetchone():
            pass


async def _bury(life: Life) -> None:
    """Let its tasks go; they can do nothing any more."""
    life.buried = True
    for task in life.tasks:
        task.cancel()
    await asyncio.gather(*life.tasks, return_exceptions=True)
