"""What a check finds, and what every check may use."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psycopg
from psycopg.rows import dict_row

from cartwake.carriers.protocol import Examinable
from cartwake.kit.clock import Clock
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import WEB, Connection, Database, Login

CONNECT_TIMEOUT_S = 5


class Verdict(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # works, but somebody should know
    FAIL = "FAIL"  # does not work, or is not safe
    SKIPPED = "skip"


@dataclass(frozen=True)
class Finding:
    """What one check found: one sentence, and what to do about it unless all is well."""

    verdict: Verdict
    said: str
    mend: str = ""


def ok(said: str) -> Finding:
    return Finding(Verdict.OK, said)


def warn(said: str, mend: str) -> Finding:
    return Finding(Verdict.WARN, said, mend)


def bad(said: str, mend: str) -> Finding:
    return Finding(Verdict.FAIL, said, mend)


def skipped(why: str) -> Finding:
    return Finding(Verdict.SKIPPED, f"skipped: {why}")


@dataclass
class Patient:
    """The deployment under examination."""

    settings: Settings
    clock: Clock
    vault: Vault
    carrier: Examinable
    http: aiohttp.ClientSession
    url: str | None  # of the database
    no_url: str = ""  # why there is none
    is_embedded: bool = False
    database: Database = field(init=False)

    def __post_init__(self) -> None:
        self.database = Database(self.url or "", self.vault)

    @asynccontextmanager
    async def as_configured(self) -> AsyncIterator[Connection]:
        """A connection with the configured address as it is. Raises `psycopg.Error`."""
        async with self._connected(self.url or "") as conn:
            yield conn

    @asynccontextmanager
    async def as_login(self, login: Login) -> AsyncIterator[Connection]:
        """A connection as one of our logins. Raises `psycopg.Error`."""
        async with self._connected(self.database.conninfo(login)) as conn:
            yield conn

    @asynccontextmanager
    async def as_anybody(self) -> AsyncIterator[Connection]:
        """A connection as whoever gets in: the address may hold no password, or our logins may not exist yet."""
        try:
            conn = await self._connect(self.url or "")
        except psycopg.OperationalError as first:
            try:
                conn = await self._connect(self.database.conninfo(WEB))
            except psycopg.OperationalError as ours:
                raise (ours if "no password supplied" in str(first) else first) from None
        async with conn:
            yield conn

    @asynccontextmanager
    async def _connected(self, conninfo: str) -> AsyncIterator[Connection]:
        async with await self._connect(conninfo) as conn:
            yield conn

    async def _connect(self, conninfo: str) -> Connection:
        more: dict[str, Any] = {"row_factory": dict_row, "connect_timeout": CONNECT_TIMEOUT_S}
        return await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **more)


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    look: Callable[[Patient], Awaitable[Finding]]
    needs: tuple[str, ...] = ()  # checks that must not have failed, or this one cannot say anything
