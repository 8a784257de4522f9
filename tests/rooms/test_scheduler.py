"""Periodic work when a scheduler dies in the middle of it, and a database that is not there yet."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta

import psycopg
import pytest

from cartwake import scheduler
from cartwake.carriers.protocol import Carrier
from cartwake.jobs import periodic
from cartwake.kit.clock import ManualClock
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, Database, row
from cartwake.kit.runtime import Runtime
from cartwake.kit.schema import NotReadyError, check_ready
from cartwake.scheduler import Task, refill_plans, run_due
from world import World

EVERY_MINUTE = "* * * * *"
LEASE = timedelta(seconds=periodic.LEASE_S)


class CrashError(Exception):
    """The process ends here."""


async def test_a_refill_and_the_question_it_answers_are_one(
    world: World, runtime: Runtime, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise CrashError

    merchant = await world.merchant(credits=0)
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        patch.setattr(scheduler, "ask_again", crash)
        await refill_plans(runtime, carrier)
    assert (await merchant.credits())["available_credits"] == 0, "or nobody would ask again about refused carts"
    await refill_plans(runtime, carrier)
    assert (await merchant.credits())["available_credits"] == 100


async def test_the_task_of_a_scheduler_that_died_runs_again_within_two_minutes(
    runtime: Runtime, clock: ManualClock, carrier: Carrier
) -> None:
    runs = []

    async def work(_runtime: Runtime, _carrier: Carrier) -> None:
        runs.append(clock.now())

    task = Task("work", EVERY_MINUTE, work)
    async with runtime.db.transaction(ENGINE) as conn:
        await periodic.enrol(conn, clock.now(), [task.name])
        assert await periodic.claim(conn, clock.now(), task.name, task.cron, LEASE)  # by one that dies here
    await run_due(runtime, carrier, [task])
    assert not runs
    clock.advance(minutes=2)
    await run_due(runtime, carrier, [task])
    assert len(runs) == 1


@pytest.mark.thorough
async def test_a_task_that_takes_long_is_not_started_beside_itself(
    runtime: Runtime, clock: ManualClock, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(_runtime: Runtime, _carrier: Carrier) -> None:
        for _ in range(8):
            clock.advance(seconds=0.3)
            before = clock.now()
            while (await _leased_until(runtime)) < before + timedelta(seconds=0.8):  # renewed, soon
                await asyncio.sleep(0.01)

    monkeypatch.setattr(periodic, "LEASE_S", 1.0)
    task = Task("work", EVERY_MINUTE, work)
    async with runtime.db.transaction(ENGINE) as conn:
        await periodic.enrol(conn, clock.now(), [task.name])
    async with asyncio.timeout(20):
        await run_due(runtime, carrier, [task])
    async with runtime.db.transaction(ENGINE) as conn:
        found = await row(conn, "SELECT leased_until, last_error FROM periodic_tasks")
    assert found == {"leased_until": None, "last_error": None}


async def test_a_task_that_met_a_deadlock_is_tried_again_at_once_and_one_with_a_mistake_is_not(
    runtime: Runtime, clock: ManualClock, carrier: Carrier
) -> None:
    failures: list[Exception] = [psycopg.errors.DeadlockDetected(), ValueError()]

    async def work(_runtime: Runtime, _carrier: Carrier) -> None:
        raise failures.pop(0)

    task = Task("work", EVERY_MINUTE, work)
    async with runtime.db.transaction(ENGINE) as conn:
        await periodic.enrol(conn, clock.now(), [task.name])
    for _ in range(5):
        await run_due(runtime, carrier, [task])
        clock.advance(seconds=2)
    assert not failures


async def _leased_until(runtime: Runtime) -> datetime:
    async with runtime.db.transaction(ENGINE) as conn:
        found = await row(conn, "SELECT leased_until FROM periodic_tasks")
    assert found is not None
    leased_until: datetime = found["leased_until"]
    return leased_until


@pytest.mark.thorough
def test_a_server_that_is_away_is_waited_for_but_not_for_ever(vault: Vault) -> None:
    began_s = time.monotonic()
    with pytest.raises(NotReadyError, match="cannot be used"):
        check_ready(Database("postgresql://127.0.0.1:9/nothing", vault), patience_s=0.5)
    assert time.monotonic() - began_s >= 0.5


def test_a_server_that_refuses_us_is_not_waited_for(fresh_url: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(NotReadyError, match="cartwake migrate"):
        check_ready(Database(fresh_url, Vault([b"another secret key of at least 32 characters"])), patience_s=60)
    assert time.monotonic() - began_s < 30
