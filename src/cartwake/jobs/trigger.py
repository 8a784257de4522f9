"""Waking up: exactly when the next thing is due, or at once when something earlier arrives."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from datetime import datetime
from typing import Protocol

import psycopg
import structlog

from cartwake.kit.clock import Clock
from cartwake.kit.db import ENGINE, Connection, Database

log = structlog.get_logger()

# Nothing depends on a wake-up call arriving: a waiter looks again after this long, whatever it heard.
LOOK_AGAIN_S = 1.0
# Without a connection to listen on, looking is all there is.
POLL_S = 0.05


class Wake(enum.StrEnum):
    """What there may be to do."""

    MESSAGES = "cartwake_messages"
    EVENTS = "cartwake_events"
    OUTBOX = "cartwake_outbox"


class Trigger(Protocol):
    """Says when to look. One conformance suite runs against every implementation."""

    async def wait(self, wake: Wake, until: datetime | None) -> None:
        """Return when `until` has come, when something was announced, or after a short while anyway."""

    async def close(self) -> None:
        """Stop listening."""


async def announce(conn: Connection, wake: Wake) -> None:
    """Tell every waiting process, once this transaction commits, that there is something to do."""
    await conn.execute("SELECT pg_notify(%s, '')", [wake])


class PostgresTrigger:
    """LISTEN on a connection of its own. Where there is none (a pooler, an outage), it polls."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._conninfo = db.conninfo(ENGINE)
        self._clock = clock
        self._heard = {wake: asyncio.Event() for wake in Wake}
        self._listening = False
        self._listener = asyncio.create_task(self._listen())

    async def wait(self, wake: Wake, until: datetime | None) -> None:
        heard = self._heard[wake]
        patience_s = LOOK_AGAIN_S if self._listening else POLL_S
        waits: list[asyncio.Task[object]] = [asyncio.create_task(heard.wait())]
        if until is not None:
            waits.append(asyncio.create_task(self._clock.sleep_until(until)))
        try:
            await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard.clear()
            for each in waits:
                each.cancel()

    async def close(self) -> None:
        self._listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listener

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except psycopg.Error as error:
                log.warning("trigger.listening_lost", error=type(error).__name__)
            self._listening = False
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _listen_once(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as conn:
            for wake in Wake:
                await conn.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(wake)))
            self._listening = True
            for heard in self._heard.values():
                heard.set()  # whatever was announced before we listened
            async for notice in conn.notifies():
                self._heard[Wake(notice.channel)].set()
