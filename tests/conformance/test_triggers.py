"""What every trigger owes the worker, whatever it is made of: one suite, run against each.

A trigger says when to look. It may fire too often; it may not sleep through something.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from cartwake.jobs.trigger import PostgresTrigger, Trigger, Wake, announce
from cartwake.kit.clock import SystemClock
from cartwake.kit.db import ENGINE, WEB, Database

TriggerFactory = Callable[[Database], Trigger]
ADAPTERS: dict[str, TriggerFactory] = {"postgres": lambda db: PostgresTrigger(db, SystemClock())}
# Generous: these bounds only keep a broken trigger from hanging the suite.
BOUND_S = 10.0


@pytest.fixture(params=ADAPTERS)
async def trigger(request: pytest.FixtureRequest, db: Database) -> AsyncIterator[Trigger]:
    made = ADAPTERS[request.param](db)
    await _settle(made)
    yield made
    await made.close()


async def _settle(trigger: Trigger) -> None:
    """Let it connect, and take the wake-up that it gives itself when it has."""
    for wake in Wake:
        await asyncio.wait_for(trigger.wait(wake, None), BOUND_S)
    await asyncio.sleep(0.2)
    for wake in Wake:
        await asyncio.wait_for(trigger.wait(wake, datetime.now(UTC)), BOUND_S)


async def _woken_by(trigger: Trigger, wake: Wake, until: datetime | None) -> asyncio.Task[int | None]:
    task = asyncio.create_task(trigger.wait(wake, until))
    await asyncio.sleep(0.05)  # it is waiting now
    return task


async def test_returns_when_the_time_has_come(trigger: Trigger) -> None:
    until = datetime.now(UTC) + timedelta(milliseconds=150)
    await asyncio.wait_for(trigger.wait(Wake.MESSAGES, until), BOUND_S)
    assert datetime.now(UTC) >= until


async def test_returns_at_once_when_the_time_is_past(trigger: Trigger) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    await asyncio.wait_for(trigger.wait(Wake.MESSAGES, past), BOUND_S)


@pytest.mark.parametrize("login", [ENGINE, WEB])
@pytest.mark.parametrize("wake", list(Wake))
async def test_an_announcement_wakes_a_sleeper(trigger: Trigger, db: Database, login: str, wake: Wake) -> None:
    sleeper = await _woken_by(trigger, wake, datetime.now(UTC) + timedelta(hours=1))
    async with db.transaction(login) as conn:  # type: ignore[arg-type]
        await announce(conn, wake)
    await asyncio.wait_for(sleeper, BOUND_S)


async def test_an_announcement_counts_only_once_committed(trigger: Trigger, db: Database) -> None:
    """The sleeper may look again by itself; what it may not do is hear of what never happened."""
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with db.transaction(ENGINE) as conn:
            await announce(conn, Wake.EVENTS)
            await conn.execute("SELECT 1/0")
    far = datetime.now(UTC) + timedelta(hours=1)
    sleeper = await _woken_by(trigger, Wake.EVENTS, far)
    await asyncio.sleep(0.2)
    assert not sleeper.done()
    sleeper.cancel()


async def test_an_announcement_made_before_waiting_is_not_lost(trigger: Trigger, db: Database) -> None:
    async with db.transaction(ENGINE) as conn:
        await announce(conn, Wake.MESSAGES)
    await asyncio.sleep(0.2)
    sleeper = asyncio.create_task(trigger.wait(Wake.MESSAGES, datetime.now(UTC) + timedelta(hours=1)))
    await asyncio.wait_for(sleeper, BOUND_S)


async def test_every_process_hears(db: Database) -> None:
    both = [make(db) for make in ADAPTERS.values() for _ in range(2)]
    try:
        for each in both:
            await _settle(each)
        sleepers = [await _woken_by(each, Wake.MESSAGES, None) for each in both]
        async with db.transaction(ENGINE) as conn:
            await announce(conn, Wake.MESSAGES)
        await asyncio.wait_for(asyncio.gather(*sleepers), BOUND_S)
    finally:
        for each in both:
            await each.close()


async def test_looks_again_by_itself_when_nothing_is_ever_announced(trigger: Trigger) -> None:
    """A lost wake-up call costs a second, not a message."""
    await asyncio.wait_for(trigger.wait(Wake.MESSAGES, None), BOUND_S)


async def test_survives_the_loss_of_its_connection(trigger: Trigger, db: Database, fresh_url: str) -> None:
    with psycopg.connect(fresh_url, autocommit=True) as conn:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    await asyncio.wait_for(trigger.wait(Wake.MESSAGES, None), BOUND_S)  # polls meanwhile
    await asyncio.sleep(1.5)  # and listens again
    await asyncio.wait_for(trigger.wait(Wake.MESSAGES, None), BOUND_S)
    await test_an_announcement_wakes_a_sleeper(trigger, db, ENGINE, Wake.MESSAGES)
