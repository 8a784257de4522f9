"""Connections to PostgreSQL: one small pool per login, and transactions that only the edge opens.

The four logins are walls, not conveniences: a request that serves a tenant can only ever get the web
login, which sees nothing until a tenant is set (see `cartwake.tenants.scope`).
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import psycopg
from psycopg import AsyncConnection
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg.types.array import ListBinaryDumper
from psycopg_pool import AsyncConnectionPool

from cartwake.kit.crypto import Vault

# Uses of a statement on one connection before it is prepared there: planning is half of what a small one costs.
PREPARE_AFTER = 3

Login = Literal["cartwake_web", "cartwake_operator", "cartwake_engine"]
LOGINS: tuple[Login, ...] = ("cartwake_web", "cartwake_operator", "cartwake_engine")
WEB: Login = "cartwake_web"
OPERATOR: Login = "cartwake_operator"
ENGINE: Login = "cartwake_engine"

Connection = AsyncConnection[DictRow]

# Batches travel as arrays. As text, every element is searched for characters to quote, which cost a third of
# the worker's CPU; in binary nothing needs quoting.
ADAPTERS = AdaptersMap(psycopg.adapters)
ADAPTERS.register_dumper(list, ListBinaryDumper)


class Database:
    """The pools of one process, opened as they are first needed."""

    def __init__(self, url: str, vault: Vault, pool_size: int = 10, *, prepare: bool = True) -> None:
        """`url` names the server and database; user and password are replaced by each login's own.

        `prepare`: whether statements are prepared; not every transaction pooler can carry them.
        """
        self._prepare = prepare
        self.url = url
        self._vault = vault
        self._pool_size = pool_size
        self._pools: dict[Login, AsyncConnectionPool[Connection]] = {}

    def conninfo(self, login: Login) -> str:
        """The connection string of one login, for a connection outside the pool (LISTEN)."""
        return make_conninfo(self.url, user=login, password=self._vault.password(login))

    @asynccontextmanager
    async def transaction(self, login: Login) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed on leaving, rolled back on an exception."""
        pool = await self._pool(login)
        async with pool.connection() as conn:
            yield conn

    def pool_stats(self) -> dict[Login, dict[str, int]]:
        """What each open pool says of itself (`psycopg_pool`'s `get_stats`)."""
        return {login: pool.get_stats() for login, pool in self._pools.items()}

    async def close(self) -> None:
        """Close every pool."""
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()

    async def _pool(self, login: Login) -> AsyncConnectionPool[Connection]:
        if login not in self._pools:
            pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
                self.conninfo(login),
                min_size=1,
                max_size=self._pool_size,
                kwargs={
                    "row_factory": dict_row,
                    "context": ADAPTERS,
                    "prepare_threshold": PREPARE_AFTER if self._prepare else None,
                },
                check=_still_connected,
                open=False,
            )
            self._pools[login] = pool
            await pool.open()
        return self._pools[login]


async def _still_connected(conn: Connection) -> None:
    """Look at the socket before handing out a pooled connection; ask the server only when it has something to say.

    A server that went away has closed the connection, and that can be read. Asking it each time would cost
    every request a round trip.
    """
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(conn)


async def rows(conn: Connection, query: Any, params: Any = None) -> list[DictRow]:
    """All rows of a query, as dicts."""
    return await (await conn.execute(query, params)).fetchall()


async def row(conn: Connection, query: Any, params: Any = None) -> DictRow | None:
    """The first row of a query, or None."""
    return await (await conn.execute(query, params)).fetchone()


def is_transient(error: Exception) -> bool:
    """Whether running the same transaction again may succeed: a deadlock, a lost connection, a restart."""
    return isinstance(
        error,
        psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure | psycopg.OperationalError,
    )


def ailment(error: psycopg.Error) -> str | None:
    """What is wrong with a server that answers and does not do it, and what to do; None when it is something else.

    What failed to connect has no SQLSTATE, only words.
    """
    if isinstance(error, psycopg.errors.DiskFull):
        return "The database's disk is full. Make room there; it goes on by itself. Then look with `cartwake audit`."
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "The database takes no writes: lead CARTWAKE_DATABASE_URL (or _FILE) to the primary, not to a standby."
    if any(words in str(error) for words in ("too many connections", "too many clients", "connection slots")):
        return (
            "The database has no connection to spare: raise its max_connections (or the database's limit), or "
            "lower CARTWAKE_DATABASE_POOL_SIZE, which counts for each process and login."
        )
    return None
