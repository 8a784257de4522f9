"""The worker process: sends what is due, and works off what carriers said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import psycopg
import structlog

from cartwake.carriers.protocol import Carrier, SendResult
from cartwake.jobs.trigger import Trigger, Wake
from cartwake.kit.db import ENGINE, Connection, is_transient
from cartwake.kit.runtime import Runtime
from cartwake.messages import inbox, queue
from cartwake.messages.answers import Move
from cartwake.messages.dispatch import Attempt, Claimed, claim_batch, send_batch
from cartwake.messages.inbound import apply_inbound
from cartwake.messages.receipts import apply_receipts
from cartwake.messages.recording import record_results
from cartwake.messages.text_jobs import job_of

log = structlog.get_logger()
T = TypeVar("T")

BATCHES_IN_FLIGHT = 4
EVENTS_BATCH = 500
# A claim that found shops but could take nothing (their sessions were being written) tries again after this.
BUSY_PAUSE_S = 0.01
TRIES = 5
RETRY_PAUSE_S = 0.2
NOTHING = Claimed([], 0, more=False)


async def run_worker(runtime: Runtime, carrier: Carrier, trigger: Trigger, stop: asyncio.Event) -> None:
    """Work until `stop` is set; then finish what is in flight and return."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_forever("dispatch", stop, lambda: dispatch_until(runtime, carrier, trigger, stop)))
        group.create_task(_forever("events", stop, lambda: events_until(runtime, trigger, stop)))


async def dispatch_until(runtime: Runtime, carrier: Carrier, trigger: Trigger, stop: asyncio.Event) -> None:
    """Claim, send and record, several batches at a time."""
    in_flight: set[asyncio.Task[None]] = set()
    allowance: int | None = 0  # until the trigger says otherwise
    try:
        while not stop.is_set():
            claimed = await dispatch_once(runtime, allowance)
            if allowance is not None:
                allowance -= len(claimed.attempts) + claimed.decided
            if claimed.attempts:
                in_flight.add(asyncio.create_task(_deliver(runtime, carrier, trigger, claimed.attempts)))
            elif claimed.more and not claimed.decided:
                await asyncio.sleep(BUSY_PAUSE_S)
            if len(in_flight) >= BATCHES_IN_FLIGHT:
                await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
            in_flight = {task for task in in_flight if not task.done()}
            if not claimed.more or allowance == 0:
                allowance = await _wait_for_due(runtime, trigger)
    finally:
        if in_flight:
            await asyncio.wait(in_flight)


async def dispatch_once(runtime: Runtime, allowance: int | None = None) -> Claimed:
    """Transaction A, committed on return. `allowance`: messages that may be claimed at most; None: a batch."""
    if allowance == 0:
        return NOTHING

    async def claim(conn: Connection) -> Claimed:
        return await claim_batch(conn, runtime.moment(), runtime.clock, runtime.settings, allowance)

    return await _in_transaction(runtime, claim)


async def deliver(runtime: Runtime, carrier: Carrier, attempts: Sequence[Attempt]) -> list[Move]:
    """The network, then transaction B. If B cannot be had, the lease lapses and the carrier is asked."""
    results = await send_batch(carrier, runtime.clock, attempts)
    try:
        return await record(runtime, results)
    except psycopg.Error:
        log.exception("worker.results_not_recorded", attempts=len(attempts))
        return []


async def record(runtime: Runtime, results: Sequence[tuple[Attempt, SendResult]]) -> list[Move]:
    """Transaction B, committed on return."""

    async def write(conn: Connection) -> list[Move]:
        return await record_results(conn, runtime.moment(), results)

    return await _in_transaction(runtime, write)


async def _deliver(runtime: Runtime, carrier: Carrier, trigger: Trigger, attempts: Sequence[Attempt]) -> None:
    """As `deliver`; and what the carrier was too busy for has a new time, which the trigger should know."""
    moves = await deliver(runtime, carrier, attempts)
    again_at = {move.message.message_id: move.due_at for move in moves if move.due_at is not None}
    if again_at:
        waiting = [attempt.message for attempt in attempts if attempt.message.message_id in again_at]
        await trigger.put([(job_of(message), again_at[message.message_id]) for message in waiting])


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


async def _wait_for_due(runtime: Runtime, trigger: Trigger) -> int | None:
    """Wait until it is time to look; how many messages may be claimed then, None: whatever is due."""
    async with runtime.db.transaction(ENGINE) as conn:
        next_due_at = await queue.next_due(conn)
    return await trigger.wait(Wake.MESSAGES, next_due_at)


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
