"""What every trigger owes the worker, whatever it is made of: one suite, run against each.

A trigger says when to look. It may fire too often; it may not sleep through something. What it owes when processes
are killed and servers are away is in test_triggers_at_work.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from pydantic import SecretStr

from cartwake.jobs.text_job import TextJob
from cartwake.jobs.trigger import Trigger, Wake, announce
from cartwake.kit.clock import SystemClock
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, WEB, Database
from cartwake.kit.ids import Ids
from cartwake.kit.runtime import Runtime
from cartwake.timekeeping import open_trigger
from queued import QUEUE_SERVERS

# Generous: these bounds only keep a broken trigger from hanging the suite.
BOUND_S = 10.0
# What the database keeps the time of, whatever the trigger.
KEPT_BY_THE_DATABASE = (Wake.EVENTS, Wake.OUTBOX)

OpenTrigger = Callable[[], Trigger]


@pytest.fixture(params=["postgres", *QUEUE_SERVERS])
def keeper(request: pytest.FixtureRequest) -> str:
    """What keeps the times of messages: `CARTWAKE_QUEUE`."""
    if request.param == "postgres":
        return "postgres"
    url: str = request.getfixturevalue(request.param).url
    return url


@pytest.fixture
def open_one(keeper: str, db: Database, vault: Vault) -> OpenTrigger:
    """The triggers of one deployment's processes."""
    queue = SecretStr(keeper) if keeper != "postgres" else "postgres"
    settings = Settings(queue=queue, queue_prefix=f"test-{uuid.uuid4().hex[:12]}")
    runtime = Runtime(settings, SystemClock(), Ids(), vault, db)
    return lambda: open_trigger(runtime, asyncio.Event())


@pytest.fixture
async def trigger(open_one: OpenTrigger) -> AsyncIterator[Trigger]:
    made = open_one()
    await _settle(made)
    yield made
    await made.close()


async def _settle(trigger: Trigger) -> None:
    """Let it connect, and take the wake-up that it gives itself when it has."""
    for wake in Wake:
        await asyncio.wait_for(trigger.wait(wake, None), BOUND_S)
    await asyncio.sleep(0.2)
    for wake in Wake:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(trigger.wait(wake, datetime.now(UTC)), 0.2)


async def _due(trigger: Trigger, until: datetime) -> datetime:
    """A message whose time that is: committed, and told to the trigger, which may keep its own times."""
    job = TextJob(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), 1)
    await trigger.put([(job, until)])
    return until


async def _woken_by(trigger: Trigger, wake: Wake, until: datetime | None) -> asyncio.Task[int | None]:
    task = asyncio.create_task(trigger.wait(wake, until))
    await asyncio.sleep(0.05)  # it is waiting now
    return task


async def test_returns_when_the_time_has_come(trigger: Trigger) -> None:
    until = await _due(trigger, datetime.now(UTC) + timedelta(milliseconds=150))
    await asyncio.wait_for(trigger.wait(Wake.MESSAGES, until), BOUND_S)
    assert datetime.now(UTC) >= until


async def test_returns_at_once_when_the_time_is_past(trigger: Trigger) -> None:
    past = await _due(trigger, datetime.now(UTC) - timedelta(hours=1))
    await asyncio.wait_for(trigger.wait(Wake.MESSAGES, past), BOUND_S)


@pytest.mark.parametrize("login", [WEB, pytest.param(ENGINE, marks=pytest.mark.thorough)])
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


async def test_every_process_hears(open_one: OpenTrigger, db: Database) -> None:
    both = [open_one() for _ in range(2)]
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


@pytest.mark.thorough
@pytest.mark.parametrize("wake", KEPT_BY_THE_DATABASE)
async def test_looks_again_by_itself_when_nothing_is_ever_announced(trigger: Trigger, wake: Wake) -> None:
    """A lost wake-up call costs a second, not a message. Lost jobs are put back by the scan."""
    await asyncio.wait_for(trigger.wait(wake, None), BOUND_S)


@pytest.mark.parametrize("wake", KEPT_BY_THE_DATABASE)
async def test_what_the_database_keeps_the_time_of_is_woken_by_it(trigger: Trigger, wake: Wake) -> None:
    until = datetime.now(UTC) + timedelta(milliseconds=100)
    await asyncio.wait_for(trigger.wait(wake, until), BOUND_S)
    assert datetime.now(UTC) >= until


async def test_a_later_time_does_not_hide_an_earlier_one(trigger: Trigger, db: Database) -> None:
    late = await _due(trigger, datetime.now(UTC) + timedelta(hours=1))
    sleeper = await _woken_by(trigger, Wake.MESSAGES, late)
    async with db.transaction(ENGINE) as conn:
        await announce(conn, Wake.MESSAGES)  # as whoever writes an earlier time does
    await _due(trigger, datetime.now(UTC) + timedelta(milliseconds=100))
    await asyncio.wait_for(sleeper, BOUND_S)


@pytest.mark.thorough
async def test_survives_the_loss_of_its_connection(trigger: Trigger, db: Database, fresh_url: str) -> None:
    with psycopg.connect(fresh_url, autocommit=True) as conn:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    await asyncio.wait_for(trigger.wait(Wake.EVENTS, None), BOUND_S)  # polls meanwhile
    await asyncio.sleep(1.5)  # and listens again
    for wake in Wake:
        await asyncio.wait_for(trigger.wait(wake, None), BOUND_S)
    await test_an_announcement_wakes_a_sleeper(trigger, db, ENGINE, Wake.MESSAGES)
