"""Due messages to recorded acceptances, one worker, the carrier stubbed inside the process.

The reference is the article's way in the same process and database: one message at a time, a transaction
with SELECT FOR UPDATE to reserve, the call, a transaction to confirm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from benchmarks.bulk import Bulk, make_world
from benchmarks.deployment import NOON, fresh_runtime, machine, owner
from benchmarks.size import part
from cartwake.carriers.protocol import Absent, Accepted, OutboundText, SendResult
from cartwake.credits.model import ReserveRequest
from cartwake.credits.reservations import confirm, reserve
from cartwake.kit.db import ENGINE, row
from cartwake.kit.runtime import Runtime
from cartwake.messages import schedule
from cartwake.worker import deliver, dispatch_once

IN_FLIGHT = 4
CARTS = 20_000
REFERENCE = 500  # messages, one at a time


class AcceptsAll:
    """A carrier inside the process: what is measured is ours alone."""

    def __init__(self) -> None:
        self.calls = 0

    async def send(self, _text: OutboundText) -> SendResult:
        self.calls += 1
        return Accepted(f"SM{self.calls:032x}")

    async def find(self, *_: object) -> Absent:
        return Absent()


async def drain(runtime: Runtime) -> int:
    """Dispatch until nothing is due, batches overlapping as in the worker; how many were sent."""
    sent, flights = 0, set[asyncio.Task[None]]()
    carrier = AcceptsAll()
    while (claimed := await dispatch_once(runtime)).more:
        sent += len(claimed.attempts)
        flights.add(asyncio.create_task(deliver(runtime, carrier, claimed.attempts)))  # type: ignore[arg-type]
        if len(flights) >= IN_FLIGHT:
            _, flights = await asyncio.wait(flights, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*flights)
    return sent


async def one_by_one(runtime: Runtime, organizations: Sequence[object], count: int) -> float:
    """The reference: messages/s with one transaction to reserve and one to confirm, each message alone."""
    start = time.perf_counter()
    for n in range(count):
        organization_id = organizations[n % len(organizations)]
        reservation_id = runtime.ids.new(NOON)
        async with runtime.db.transaction(ENGINE) as conn:
            await reserve(conn, NOON, [ReserveRequest(organization_id, reservation_id, reservation_id, 1)])  # type: ignore[arg-type]
        async with runtime.db.transaction(ENGINE) as conn:
            await confirm(conn, NOON, [(organization_id, reservation_id)])  # type: ignore[list-item]
    return count / (time.perf_counter() - start)


async def written(url: str) -> tuple[int, int]:
    """Bytes that all tables take with their indexes, and bytes of log written so far."""
    async with owner(url) as conn:
        found = await conn.execute(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint AS size,"
            " pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS log"
            " FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
        )
        sums = await found.fetchone()
    assert sums is not None
    return sums["size"], sums["log"]


async def run() -> None:
    """Print messages/s, the ratio to the reference, and what a text takes on disk."""
    carts = part(CARTS)
    async with fresh_runtime() as (runtime, url):
        empty, _ = await written(url)
        async with owner(url) as conn:
            await make_world(conn, runtime, Bulk(carts=carts), NOON - timedelta(hours=1))
        with_carts, log_before = await written(url)
        start = time.perf_counter()
        async with runtime.db.transaction(ENGINE) as conn:
            while (await schedule.scan(conn, runtime.moment(), 1000)).sessions:
                pass
        scanned_per_s = carts / (time.perf_counter() - start)
        start = time.perf_counter()
        sent = await drain(runtime)
        sent_per_s = sent / (time.perf_counter() - start)
        with_texts, log_after = await written(url)
        async with runtime.db.transaction(ENGINE) as conn:
            found = await row(conn, "SELECT array_agg(organization_id) AS ids FROM organizations")
        assert found is not None
        naive_per_s = await one_by_one(runtime, found["ids"], part(REFERENCE))
    print(f"pipeline, carrier stubbed: {machine()}")
    print(f"  scan and schedule  {scanned_per_s:8.0f} carts/s")
    print(f"  dispatch           {sent_per_s:8.0f} messages/s ({sent} of {carts})")
    print(f"  reference          {naive_per_s:8.0f} messages/s (credits alone, one message at a time)")
    print(f"  on disk            {(with_carts - empty) / carts:8.0f} bytes/cart with its consent")
    print(f"                     {(with_texts - with_carts) / sent:8.0f} bytes/text on top, without receipts")
    print(f"  written ahead      {(log_after - log_before) / sent:8.0f} bytes of log/text")
    print(f"  ratio              {sent_per_s / naive_per_s:8.1f}x")
