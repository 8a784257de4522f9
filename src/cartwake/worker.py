"""The worker process: sends what is due, and works off what carriers said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import psycopg
import structlog

from cartwake.carriers.protocol import Carrier, SendResult
from cartwake.jobs.trigger import Trigger, Wake
from cartwake.kit.db import ENGINE, Connection, is_transient
from cartwake.kit.runtime import Runtime
from cartwake.messages import inbox, queue
from cartwake.messages.dispatch import Attempt, Calls, Claimed, claim_batch, send_batch
from cartwake.messages.inbound import apply_inbound
from cartwake.messages.receipts import apply_receipts
from cartwake.messages.recording import record_results
from cartwake.tenants.switches import read_pauses

log = structlog.get_logger()
T = TypeVar("T")

BATCHES_IN_FLIGHT = 4
EVENTS_BATCH = 500
# A claim that found shops but could take nothing (their sessions were being written) tries again after this.
BUSY_PAUSE_S = 0.01
# How soon a kill switch stops calls that a claimed batch has not made yet.
SWITCHES_EVERY_S = 0.5
TRIES = 5
RETRY_PAUSE_S = 0.2


async def run_worker(runtime: Runtime, carrier: Carrier, trigger: Trigger, stop: asyncio.Event) -> None:
    """Work until `stop` is set; then finish the calls under way, put back what was not called, and return."""
    calls = Calls(runtime.settings.twilio_concurrency, stop)
    async with asyncio.TaskGroup() as group:
        group.create_task(_forever("dispatch", stop, lambda: dispatch_until(runtime, carrier, calls, trigger, stop)))
        group.create_task(_forever("events", stop, lambda: events_until(runtime, trigger, stop)))


async def dispatch_until(
    runtime: Runtime, carrier: Carrier, calls: Calls, trigger: Trigger, stop: asyncio.Event
) -> None:
    """Claim, send and record, several batches at a time."""
    in_flight: set[asyncio.Task[None]] = set()
    try:
        while not stop.is_set():
            claimed = await dispatch_once(runtime)
            if claimed.attempts:
                in_flight.add(asyncio.create_task(deliver(runtime, carrier, claimed.attempts, calls)))
            elif claimed.more and not claimed.decided:
                await asyncio.sleep(BUSY_PAUSE_S)
            if len(in_flight) >= BATCHES_IN_FLIGHT:
                await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
            in_flight = {task for task in in_flight if not task.done()}
            if not claimed.more:
                await _wait_for_due(runtime, trigger)
    finally:
        if in_flight:
            await asyncio.wait(in_flight)


async def dispatch_once(runtime: Runtime) -> Claimed:
    """Transaction A, committed on return."""

    async def claim(conn: Connection) -> Claimed:
        return await claim_batch(conn, runtime.moment(), runtime.clock, runtime.settings)

    return await _in_transaction(runtime, claim)


async def deliver(runtime: Runtime, carrier: Carrier, attempts: Sequence[Attempt], calls: Calls | None = None) -> None:
    """The network, then transaction B. If B cannot be had, the lease lapses and the carrier is asked."""
    calls = calls or Calls(len(attempts))
    watching = asyncio.create_task(_watch_switches(runtime, calls))
    try:
        results = await send_batch(carrier, runtime.clock, attempts, calls)
    finally:
        watching.cancel()
    try:
        await record(runtime, results)
    except psycopg.Error:
        log.exception("worker.results_not_recorded", attempts=len(attempts))


async def _watch_switches(runtime: Runtime, calls: Calls) -> None:
    """Until cancelled, let calls know which kill switches are thrown. With no answer, the last one goes on counting."""
    while True:
        await asyncio.sleep(SWITCHES_EVERY_S)
        with contextlib.suppress(psycopg.OperationalError):
            async with runtime.db.transaction(ENGINE) as conn:
                calls.pauses = await read_pauses(conn)


async def record(runtime: Runtime, results: Sequence[tuple[Attempt, SendResult]]) -> None:
    """Transaction B, committed on return."""

    async def write(conn: Connection) -> None:
        await record_results(conn, runtime.moment(), results)

    await _in_transaction(runtime, write)


async def events_until(runtime: Runtime, trigger: Trigger, stop: asyncio.Event) -> None:
    """Work off receipts and inbound texts as they come in."""
    while not stop.is_set():
        if await work_off_events(runtime, EVENTS_BATCH) == 0:
            await trigger.wait(Wake.EVENTS, None)


async def work_off_events(runtime: Runtime, limit: int) -> int:
    """One batch of stored carrier events; how many. One that cannot be applied does not stop the others."""

    async def work(conn: Connection) -> int:
        return await _apply_events(conn, runtime, limit)

    try:
        return await _in_transaction(runtime, work)
    except (ValueError, LookupError, TypeError, psycopg.DataError):
        if limit > 1:
            log.warning("worker.events_one_by_one")
            return await work_off_events(runtime, 1)
        log.exception("worker.event_set_aside")
        return await _in_transaction(runtime, lambda conn: _set_aside(conn, runtime))


async def _apply_events(conn: Connection, runtime: Runtime, limit: int) -> int:
    moment = runtime.moment()
    events = await inbox.claim_events(conn, runtime.vault, limit)
    receipts = [event for event in events if event.kind == inbox.STATUS]
    inbound = [event for event in events if event.kind == inbox.INBOUND]
    outcomes = await apply_receipts(conn, moment, receipts, runtime.settings.refund_on) if receipts else {}
    outcomes |= await apply_inbound(conn, moment, inbound) if inbound else {}
    if outcomes:
        await inbox.finish_events(conn, moment, outcomes)
    return len(events)


async def _set_aside(conn: Connection, runtime: Runtime) -> int:
    return await inbox.set_oldest_aside(conn, runtime.clock.now())


async def _wait_for_due(runtime: Runtime, trigger: Trigger) -> None:
    async with runtime.db.transaction(ENGINE) as conn:
        next_due_at = await queue.next_due(conn)
    if next_due_at is None or next_due_at > runtime.clock.now():
        await trigger.wait(Wake.MESSAGES, next_due_at)


async def _in_transaction(runtime: Runtime, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `work` in a transaction of its own, again when the database says that trying again may help."""
    for attempt in range(1, TRIES + 1):
        try:
            async with runtime.db.transaction(ENGINE) as conn:
                return await work(conn)
        except psycopg.Error as error:
            if not is_transient(error) or attempt == TRIES:
                raise
            log.warning("worker.trying_again", error=type(error).__name__, attempt=attempt)
            await asyncio.sleep(RETRY_PAUSE_S * attempt)
    raise AssertionError("unreachable")


async def _forever(name: str, stop: asyncio.Event, loop: Callable[[], Awaitable[None]]) -> None:
    """Keep a loop going: an unexpected error is logged and the loop begins anew, a little later."""
    while not stop.is_set():
        try:
            await loop()
        except Exception:
            log.exception("worker.loop_failed", loop=name)
            await asyncio.sleep(1)
