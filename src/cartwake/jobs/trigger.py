"""Waking up: exactly when the next thing is due, or at once when something earlier arrives."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, Protocol

import psycopg
import structlog

from cartwake.jobs.text_job import Timed
from cartwake.kit.clock import Clock
from cartwake.kit.db import ENGINE, Connection, Database

log = structlog.get_logger()

# Nothing depends on a wake-up call arriving: a waiter looks again after this long, whatever it heard.
LOOK_AGAIN_S = 1.0
# Without a connection to listen on, looking is all there is.
POLL_S = 0.05
END_AGAIN_S = 0.5


class Wake(enum.StrEnum):
    """What there may be to do."""

    MESSAGES = "cartwake_messages"
    EVENTS = "cartwake_events"
    OUTBOX = "cartwake_outbox"


class Trigger(Protocol):
    """Says when to look. One conformance suite runs against every implementation."""

    async def wait(self, wake: Wake, until: datetime | None) -> int | None:
        """Return when it is time to look; how many messages may be claimed then, None: whatever is due.

        `until`: when the database says that something is due. A trigger that keeps the times of messages itself
        goes by its own for those.
        """

    async def put(self, due: Sequence[Timed]) -> None:
        """Committed: these messages wait, until these times. Never fails: what is lost here, the scan puts back."""

    async def close(self) -> None:
        """Stop listening."""


async def announce(conn: Connection, wake: Wake) -> None:
    """Tell every waiting process, once this transaction commits, that there is something to do."""
    await conn.execute("SELECT pg_notify(%s, '')", [wake])


class Announcements:
    """LISTEN on a connection of its own, made again when it is lost."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._conninfo = db.conninfo(ENGINE)
        self._clock = clock
        self.heard = {wake: asyncio.Event() for wake in Wake}
        self.listening = False
        self._listener = asyncio.create_task(self._listen())

    @property
    def patience_s(self) -> float:
        """How long to wait for an announcement before looking anyway."""
        return LOOK_AGAIN_S if self.listening else POLL_S

    async def wait(self, wake: Wake, until: datetime | None) -> None:
        """Return when something is announced, when the time has come, or when patience ends."""
        waits: list[Coroutine[Any, Any, object]] = [self.heard[wake].wait()]
        if until is not None:
            waits.append(self._clock.sleep_until(until))
        try:
            await any_of(waits, self.patience_s)
        finally:
            self.heard[wake].clear()

    async def close(self) -> None:
        await end(self._listener)

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except psycopg.Error as error:
                log.warning("trigger.listening_lost", error=type(error).__name__)
            self.listening = False
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _listen_once(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as conn:
            for wake in Wake:
                await conn.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(wake)))
            self.listening = True
            for heard in self.heard.values():
                heard.set()  # whatever was announced before we listened
            async for notice in conn.notifies():
                self.heard[Wake(notice.channel)].set()


class PostgresTrigger:
    """The database's times, and its announcements. Where it cannot listen (a pooler, an outage), it polls."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._announcements = Announcements(db, clock)

    async def wait(self, wake: Wake, until: datetime | None) -> None:
        await self._announcements.wait(wake, until)

    async def put(self, due: Sequence[Timed]) -> None:
        """Nothing to do: the times are where they were written."""

    async def close(self) -> None:
        await self._announcements.close()


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these until they are done: a library in between may take a cancellation for its own time-out's."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=END_AGAIN_S)


async def any_of(waits: Sequence[Coroutine[Any, Any, object]], timeout_s: float | None) -> None:
    """Return when the first of these is done, or after so many seconds."""
    tasks = [asyncio.create_task(each) for each in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
