"""Both triggers side by side: how late texts start, how fast a pile goes, and what each text asks of PostgreSQL.

One worker, the carrier stubbed inside the process, the same world for both; the two take turns, because the
machine drifts. Each reference is the other one in the same round.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql
from pydantic import SecretStr

from benchmarks.bulk import Bulk, make_world
from benchmarks.deployment import NOON, fresh_runtime, machine, owner
from benchmarks.pipeline import AcceptsAll
from benchmarks.queue import queue_url
from benchmarks.size import part
from benchmarks.statements import counted
from cartwake.carriers.protocol import OutboundText, SendResult
from cartwake.kit.db import ENGINE, rows
from cartwake.kit.runtime import Runtime
from cartwake.messages import schedule
from cartwake.timekeeping import open_trigger, put_back_texts
from cartwake.worker import run_worker

ROUNDS = part(3)
SHOPS = part(2000)
PER_SECOND, FOR_S = 50, part(20)  # texts coming due, for the lateness
PILE = part(10_000)  # texts due at once, for the speed
HEAD_START_S = 3.0
PATIENCE_S = 120.0
# Texts that come due one after the other from a moment on, or all at once.
SET_DUE = """
WITH timed AS (
  SELECT organization_id, shop_id, session_id, message_id,
         %(first)s + (row_number() OVER (ORDER BY message_id) - 1) * %(apart)s::interval AS due_at
  FROM sms_messages WHERE state = 'scheduled'
), moved AS (
  UPDATE sms_messages m SET due_at = t.due_at FROM timed t
  WHERE (m.organization_id, m.shop_id, m.message_id) = (t.organization_id, t.shop_id, t.message_id)
)
UPDATE sms_shop_queues q SET next_due_at = s.due_at
FROM (SELECT organization_id, shop_id, min(due_at) AS due_at FROM timed GROUP BY 1, 2) AS s
WHERE (q.organization_id, q.shop_id) = (s.organization_id, s.shop_id)
"""


class NotesStarts(AcceptsAll):
    """A carrier inside the process that notes when each call came."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._clock = runtime.clock
        self.started: dict[uuid.UUID, datetime] = {}

    async def send(self, text: OutboundText) -> SendResult:
        self.started[text.attempt_id] = self._clock.now()
        return await super().send(text)


@dataclass(frozen=True)
class Measured:
    """What one trigger came to in one round."""

    p50_ms: float
    p99_ms: float
    per_s: float  # of a pile
    statements: float  # for each text of the pile


async def run() -> None:
    """Print both triggers' lateness, speed and statements, round by round."""
    print(f"trigger, carrier stubbed, one worker: {machine()}")
    print(f"  lateness: {PER_SECOND} texts/s come due for {FOR_S} s; speed: {PILE} due at once, {SHOPS} shops")
    print(f"  {'':16}{'p50':>9}{'p99':>9}{'texts/s':>10}{'statements/text':>18}")
    found: dict[str, list[Measured]] = {"postgres": [], "bullmq": []}
    with queue_url() as url:
        for number, name in itertools.product(range(1, ROUNDS + 1), found):
            measured = await _measure(url if name == "bullmq" else None)
            found[name].append(measured)
            _print(f"{number} {name}", measured)
    for name, each in found.items():
        _print(
            f"median {name}",
            Measured(*(statistics.median(column) for column in zip(*map(_columns, each), strict=True))),
        )


def _columns(measured: Measured) -> tuple[float, ...]:
    return measured.p50_ms, measured.p99_ms, measured.per_s, measured.statements


def _print(name: str, it: Measured) -> None:
    print(f"  {name:16}{it.p50_ms:6.1f} ms{it.p99_ms:6.1f} ms{it.per_s:10.0f}{it.statements:18.3f}", flush=True)


async def _measure(url: str | None) -> Measured:
    queue: Any = SecretStr(url) if url else "postgres"
    async with fresh_runtime(queue=queue, queue_prefix=f"bench-{uuid.uuid4().hex[:8]}") as (runtime, database_url):
        late_ms = sorted(await _lateness_ms(runtime, database_url))
    async with fresh_runtime(queue=queue, queue_prefix=f"bench-{uuid.uuid4().hex[:8]}") as (runtime, database_url):
        per_s, statements = await _pile(runtime, database_url)
    return Measured(late_ms[len(late_ms) // 2], late_ms[len(late_ms) * 99 // 100], per_s, statements)


async def _lateness_ms(runtime: Runtime, database_url: str) -> list[float]:
    texts = PER_SECOND * FOR_S
    await _scheduled(runtime, database_url, texts)
    carrier = NotesStarts(runtime)
    first = runtime.clock.now() + timedelta(seconds=HEAD_START_S)
    await _set_due(runtime, database_url, first, timedelta(seconds=1 / PER_SECOND))
    async with _worker(runtime, carrier):
        await _until(carrier, texts)
    async with runtime.db.transaction(ENGINE) as conn:
        due = await rows(conn, "SELECT attempt_id, due_at FROM sms_messages WHERE attempt_id IS NOT NULL")
    return [(carrier.started[each["attempt_id"]] - each["due_at"]).total_seconds() * 1000 for each in due]


async def _pile(runtime: Runtime, database_url: str) -> tuple[float, float]:
    await _scheduled(runtime, database_url, PILE)
    carrier = AcceptsAll()
    due_at = runtime.clock.now() + timedelta(seconds=HEAD_START_S)
    await _set_due(runtime, database_url, due_at, timedelta(0))
    with counted() as statements:
        async with _worker(runtime, carrier):
            await runtime.clock.sleep_until(due_at)
            start, before = time.perf_counter(), statements.count
            await _until(carrier, PILE)
            took_s = time.perf_counter() - start
        asked = statements.count - before
    return PILE / took_s, asked / PILE


async def _scheduled(runtime: Runtime, database_url: str, texts: int) -> None:
    async with owner(database_url) as conn:
        await make_world(conn, runtime, Bulk(shops=SHOPS, carts=texts), NOON - timedelta(hours=1))
    async with runtime.db.transaction(ENGINE) as conn:
        while (await schedule.scan(conn, runtime.moment(), 1000)).sessions:
            pass


async def _set_due(runtime: Runtime, database_url: str, first: datetime, apart: timedelta) -> None:
    """Times are written first, and then put where the trigger keeps them, as the scan does."""
    async with owner(database_url) as conn:
        await conn.execute(sql.SQL(SET_DUE), {"first": first, "apart": apart})
    await put_back_texts(runtime)


async def _until(carrier: AcceptsAll, texts: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while carrier.calls < texts:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _worker(runtime: Runtime, carrier: AcceptsAll) -> AsyncIterator[None]:
    stop = asyncio.Event()
    trigger = open_trigger(runtime, stop)
    working = asyncio.create_task(run_worker(runtime, carrier, trigger, stop))  # type: ignore[arg-type]
    await asyncio.sleep(1)  # it waits
    try:
        yield
    finally:
        stop.set()
        await working
        await trigger.close()
