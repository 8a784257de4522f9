"""Reservations on one hot organization: coalesced, against one transaction each with SELECT FOR UPDATE.

Both sides have 64 callers at a time and the same durable database, and take turns three times, because
the machine drifts. What is quoted is the ratio of each round.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from benchmarks.bulk import Bulk, make_world
from benchmarks.deployment import NOON, fresh_runtime, machine, owner
from benchmarks.size import part
from cartwake.credits.model import ReserveRequest
from cartwake.credits.reserver import Reserver
from cartwake.kit.db import ENGINE, row
from cartwake.kit.runtime import Runtime

CALLERS = 64
COALESCED_CALLERS = 2000
ROUNDS = 3
COALESCED, NAIVE = 60_000, 1_500  # reservations in a round

LOCK = "SELECT available_credits FROM org_sms_credit_balances WHERE organization_id = %s AND account = 'sms' FOR UPDATE"
TAKE = """
UPDATE org_sms_credit_balances SET available_credits = available_credits - 1, last_entry_no = last_entry_no + 1,
  updated_at = %s WHERE organization_id = %s AND account = 'sms' RETURNING available_credits, last_entry_no
"""
RESERVE = """
INSERT INTO sms_credit_reservations VALUES (%s, 'sms', %s, %s, 1, 'reserved', %s, NULL)
"""
ENTER = """
INSERT INTO org_sms_credit_ledger
  (organization_id, account, entry_no, entry_type, credits, balance_after, reservation_id, at)
VALUES (%s, 'sms', %s, 'SEND_RESERVE', -1, %s, %s, %s)
"""


async def one_transaction_each(runtime: Runtime, organization_id: UUID) -> None:
    """The article's pattern: lock the balance, look, deduct, write the entry, commit."""
    reservation_id = runtime.ids.new(NOON)
    async with runtime.db.transaction(ENGINE) as conn:
        balance = await row(conn, LOCK, [organization_id])
        assert balance is not None and balance["available_credits"] >= 1
        after = await row(conn, TAKE, [NOON, organization_id])
        assert after is not None
        await conn.execute(RESERVE, [organization_id, reservation_id, reservation_id, NOON])
        await conn.execute(
            ENTER, [organization_id, after["last_entry_no"], after["available_credits"], reservation_id, NOON]
        )


async def rate(work: Callable[[], Awaitable[object]], *, callers: int, count: int) -> float:
    """How many per second when `callers` at a time do `count` in all."""
    numbers = itertools.count()

    async def caller() -> None:
        while next(numbers) < count:
            await work()

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - start)


async def run() -> None:
    """Print both rates and their ratio, round by round."""
    print(f"reservations, one hot organization: {machine()}")
    async with fresh_runtime(database_pool_size=CALLERS) as (runtime, url):
        async with owner(url) as conn:
            await make_world(conn, runtime, Bulk(organizations=1, shops=1, carts=1), NOON)
            found = await row(conn, "SELECT organization_id FROM organizations")
        assert found is not None
        organization_id: UUID = found["organization_id"]
        reserver = Reserver(runtime.db, runtime.clock)

        async def coalesce() -> None:
            reservation_id = runtime.ids.new(NOON)
            assert await reserver.reserve(ReserveRequest(organization_id, reservation_id, reservation_id, 1))

        for number in range(1, part(ROUNDS) + 1):
            ours = await rate(coalesce, callers=COALESCED_CALLERS, count=part(COALESCED))
            theirs = await rate(
                lambda: one_transaction_each(runtime, organization_id), callers=CALLERS, count=part(NAIVE)
            )
            print(
                f"  round {number}: coalesced {ours:8.0f}/s, one transaction each {theirs:6.0f}/s, "
                f"ratio {ours / theirs:5.1f}x"
            )
        await reserver.close()
