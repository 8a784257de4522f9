"""Connections that pass a gate before everything that they ask of the server, and that may be lost.

The pool is a simple one without limits; everything else (logins, transactions, what the server does) is real.
A pipeline's statements go out one by one, for a server that runs ahead of its client runs ahead of the director
too: at once, or as late as they may, when somebody asks for a result. The seed says which.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row

from cartwake.carts import store as carts
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ADAPTERS, PREPARE_AFTER, Connection, Database, Login
from cartwake.kit.schema import migrate
from cartwake.messages import queue, store
from simulation.director import DEADLOCK_TIMEOUT_MS
from simulation.process import Process

# The statements by which a worker's transactions are told apart.
MARKS = {
    id(carts.READ_LOCKED): "claiming",
    id(store.MOVE): "recording",
    id(store.CLAIM_EVENTS): "applying events",
}
COMMIT, ROLLBACK = "COMMIT", "ROLLBACK"
WRITES = ("INSERT", "UPDATE", "DELETE")
IDS_MAX = 60  # of one line of the story


@dataclass
class Transaction:
    """What one transaction did."""

    process: Process
    began_step: int
    began_at: datetime
    statements: list[tuple[Any, Any]] = field(default_factory=list)  # query and parameters
    wrote: bool = False
    looked: int | None = None  # the step at which it took the shops that have something due

    @property
    def marks(self) -> Iterator[str]:
        """What it is about, by the statements that tell."""
        return (MARKS[id(query)] for query, _ in self.statements if id(query) in MARKS)


class StoryConnection(psycopg.AsyncConnection[DictRow]):
    """A connection of a simulated process."""

    process: Process | None = None  # None while it is being made
    pid: int = 0
    transaction_so_far: Transaction | None = None
    on_commit: Callable[[Transaction], None]
    _asking: str = ""
    _ids: frozenset[object] = frozenset()
    _pending: list[Pending] | None = None  # statements of a pipeline that the server has not seen yet

    @property
    def owner(self) -> str:
        return self.process.name if self.process else "nobody"

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if self._pending is None:
            return await self.execute_now(query, params, **options)
        self._pending.append(Pending(self, query, params))
        return self._pending[-1]

    async def execute_now(self, query: Any, params: Any, **options: Any) -> psycopg.AsyncCursor[DictRow]:
        """Send a statement, and return when the server has done it."""
        assert self.process is not None
        if self.transaction_so_far is None:
            director = self.process.director
            self.transaction_so_far = Transaction(self.process, director.step_number, director.now())
        self._asking, self._ids = name_of(query), ids_in(params)
        cursor = await super().execute(query, params, **options)
        self.transaction_so_far.statements.append((query, params))
        if query is queue.TAKE_TURNS:
            self.transaction_so_far.looked = self.process.director.step_number
        if (cursor.statusmessage or "").startswith(WRITES) and cursor.rowcount:
            self.transaction_so_far.wrote = True
        return cursor

    async def commit(self) -> None:
        self._asking, self._ids = COMMIT, frozenset()
        await super().commit()

    async def rollback(self) -> None:
        self._asking, self._ids = ROLLBACK, frozenset()
        self.transaction_so_far = None
        await super().rollback()

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Any]:
        assert self.process is not None
        if self.process.director.chaos.dice("pipeline").random() < 0.5:
            self._pending = []
        try:
            yield None
            await self.catch_up()
        finally:
            self._pending = None

    async def catch_up(self) -> None:
        """Send whatever is pending."""
        while self._pending:
            await self._pending.pop(0).run()

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """What every exchange with the server goes through."""
        process, what, pid = self.process, self._asking, self.pid
        idle = self.pgconn.transaction_status == TransactionStatus.IDLE and what in (COMMIT, ROLLBACK)
        if process is None or idle or self.closed:
            return await super().wait(gen)
        director = process.director
        await process.gate(what, self._ids)
        strikes_after = what == COMMIT and director.chaos.strikes("drop_commit")
        # Half of the connections that are lost in a commit are lost before the server has heard of it.
        if (strikes_after and director.chaos.choices.random() < 0.5) or director.chaos.strikes("drop"):
            raise self._lose(what, "before")
        try:
            result = await director.perform(process, what, pid, self.pgconn.socket, gen)
        except asyncio.CancelledError:
            if process.alive:  # what nobody waits for any more is cancelled, and its transaction with it
                director.cut(pid, self.cut)
            raise
        if what in (COMMIT, ROLLBACK):
            director.released(pid)
        if what == COMMIT:
            assert self.transaction_so_far is not None
            done, self.transaction_so_far = self.transaction_so_far, None
            self.on_commit(done)
            if strikes_after:
                raise self._lose(what, "after")
        return result

    def cut(self) -> None:
        """The connection is gone, for this side too."""
        self.pgconn.finish()
        if self.process is not None:
            self.process.connections.pop(self, None)

    def _lose(self, what: str, when: str) -> psycopg.OperationalError:
        assert self.process is not None
        director = self.process.director
        director.tell(self.process.name, f"loses its connection {when} {what}")
        director.coverage.crashes[f"connection lost {when} a {'commit' if what == COMMIT else 'statement'}"] += 1
        director.cut(self.pid, self.cut)
        return psycopg.OperationalError("server closed the connection unexpectedly")


class Pending:
    """A statement in a pipeline: it has not run before its result, or a later one's, is asked for."""

    def __init__(self, conn: StoryConnection, query: Any, params: Any) -> None:
        self._conn, self._query, self._params = conn, query, params
        self._cursor: psycopg.AsyncCursor[DictRow] | None = None

    async def run(self) -> None:
        self._cursor = await self._conn.execute_now(self._query, self._params)

    async def fetchone(self) -> DictRow | None:
        return await (await self._done()).fetchone()

    async def fetchall(self) -> list[DictRow]:
        return await (await self._done()).fetchall()

    async def _done(self) -> psycopg.AsyncCursor[DictRow]:
        await self._conn.catch_up()
        assert self._cursor is not None
        return self._cursor


class StoryDatabase(Database):
    """The connections of one simulated process."""

    def __init__(self, url: str, vault: Vault, process: Process, on_commit: Callable[[Transaction], None]) -> None:
        super().__init__(url, vault)
        self._process = process
        self._on_commit = on_commit
        self._idle: dict[Login, list[StoryConnection]] = {}

    @asynccontextmanager
    async def transaction(self, login: Login) -> AsyncIterator[Connection]:
        idle = self._idle.setdefault(login, [])
        conn = idle.pop() if idle else await self._connect(login)
        try:
            yield conn
            await conn.commit()
        except BaseException:
            with suppress(psycopg.Error):
                await conn.rollback()  # also after a commit that was cancelled before it began
            raise
        finally:
            if not conn.closed:
                idle.append(conn)

    async def close(self) -> None:
        for conn in list(self._process.connections):
            conn.cut()
        self._idle.clear()

    async def _connect(self, login: Login) -> StoryConnection:
        await self._process.gate("connects")
        director = self._process.director
        with director.connecting():
            conn = await StoryConnection.connect(
                self.conninfo(login), row_factory=dict_row, context=ADAPTERS, prepare_threshold=PREPARE_AFTER
            )
        conn.pid, conn.process, conn.on_commit = conn.info.backend_pid, self._process, self._on_commit
        self._process.connections[conn] = None
        return conn


def name_of(query: Any) -> str:
    """The name of the constant that a query is, else its first words."""
    if not _names:
        _names.update(_constants())
    return _names.get(id(query)) or " ".join(str(query).split()[:6])


def ids_in(params: Any) -> frozenset[object]:
    """The ids that a statement is about."""
    values: Iterable[Any] = params.values() if isinstance(params, Mapping) else params or ()
    found = {
        each for value in values for each in (value if isinstance(value, list) else [value]) if isinstance(each, UUID)
    }
    return frozenset(sorted(found)[:IDS_MAX])


@contextmanager
def fresh_database(server_url: str, template: str) -> Iterator[str]:
    """The address (owner login) of an empty database whose server does nothing by itself, and finds deadlocks soon."""
    name = f"simulation_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        conn.execute(make.format(sql.Identifier(name), sql.Identifier(template)))
        timeout = sql.SQL("ALTER DATABASE {} SET deadlock_timeout = {}")
        conn.execute(timeout.format(sql.Identifier(name), sql.Literal(f"{DEADLOCK_TIMEOUT_MS}ms")))
        try:
            yield make_conninfo(server_url, dbname=name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def template_database(server_url: str, vault: Vault) -> Iterator[str]:
    """A migrated database to copy."""
    name = f"simulation_template_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            migrate(make_conninfo(server_url, dbname=name), vault)
            yield name
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


# Vacuum and its statistics come when they like, and change plans: a story must not depend on that.
QUIET_TABLES = """
DO $$
DECLARE
  t regclass;
BEGIN
  FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
    EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t);
  END LOOP;
END $$
"""

_names: dict[int, str] = {}


def _constants() -> Iterator[tuple[int, str]]:
    """The statements of the product, by identity."""
    modules = {name: module for name, module in sys.modules.items() if name.startswith("cartwake.")}
    for name, module in sorted(modules.items()):
        room = ".".join(part for part in name.split(".")[1:] if part != "store")
        for constant, value in vars(module).items():
            if constant.isupper() and isinstance(value, str | bytes | sql.Composable) and len(str(value)) > 20:
                yield id(value), f"{room}.{constant}"
