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
from cartwake.messages.dispatch import LEASE_MARGIN_S, Attempt, Claimed, claim_batch, send_batch
from cartwake.messages.inbound import apply_inbound
from cartwake.messages.receipts import apply_receipts
from cartwake.messages.recording import record_results
from cartwake.outbox import queue as outbox
from cartwake.outbox.model import Round
from cartwake.outbox.sending import WebhookClient

log = structlog.get_logger()
T = TypeVar("T")

BATCHES_IN_FLIGHT = 4
# Shops whose servers are being told something. A server that hangs holds its own place and no other.
SHOPS_IN_FLIGHT = 64
EVENTS_BATCH = 500
# A claim that found shops but could take nothing (their sessions were being written) tries again after this.
BUSY_PAUSE_S = 0.01
TRIES = 5
RETRY_PAUSE_S = 0.2


async def run_worker(runtime: Runtime, carrier: Carrier, trigger: Trigger, stop: asyncio.Event) -> None:
    """Work until `stop` is set; then finish what is in flight and return."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_forever("dispatch", stop, lambda: dispatch_until(runtime, carrier, trigger, stop)))
        group.create_task(_forever("events", stop, lambda: events_until(runtime, trigger, stop)))
        group.create_task(_forever("outbox", stop, lambda: outbox_until(runtime, trigger, stop)))


async def dispatch_until(runtime: Runtime, carrier: Carrier, trigger: Trigger, stop: asyncio.Event) -> None:
    """Claim, send and record, several batches at a time."""
    in_flight: set[asyncio.Task[None]] = set()
    try:
        while not stop.is_set():
            claimed = await dispatch_once(runtime)
            if claimed.attempts:
                in_flight.add(asyncio.create_task(deliver(runtime, carrier, claimed.attempts)))
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


async def deliver(runtime: Runtime, carrier: Carrier, attempts: Sequence[Attempt]) -> None:
    """The network, then transaction B. If B cannot be had, the lease lapses and the carrier is asked."""
    results = await send_batch(carrier, runtime.clock, attempts)
    try:
        await record(runtime, results)
    except psycopg.Error:
        log.exception("worker.results_not_recorded", attempts=len(attempts))


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


async def outbox_until(runtime: Runtime, trigger: Trigger, stop: asyncio.Event) -> None:
    """Tell shops' servers what they wait for, many shops at a time."""
    client = open_webhook_client(runtime)
    in_flight: set[asyncio.Task[None]] = set()
    try:
        while not stop.is_set():
            rounds = await claim_rounds(runtime, SHOPS_IN_FLIGHT - len(in_flight))
            in_flight |= {asyncio.create_task(tell(runtime, client, each)) for each in rounds}
            if len(in_flight) >= SHOPS_IN_FLIGHT:
                await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
            in_flight = {task for task in in_flight if not task.done()}
            if not rounds:
                await _wait_for_outbox(runtime, trigger)
    finally:
        client.wind_down()
        if in_flight:
            await asyncio.wait(in_flight)
        await client.close()


def open_webhook_client(runtime: Runtime) -> WebhookClient:
    """The client for shops' servers, as the settings want it."""
    settings = runtime.settings
    return WebhookClient(timeout_s=settings.webhook_timeout_s, production=settings.environment == "production")


async def claim_rounds(runtime: Runtime, limit: int) -> list[Round]:
    """Lease shops with something to be told; committed on return."""
    lease = runtime.clock.machine(outbox.EVENTS_PER_ROUND * runtime.settings.webhook_timeout_s + LEASE_MARGIN_S)
    return await _in_transaction(
        runtime, lambda conn: outbox.claim(conn, runtime.vault, runtime.clock.now(), lease, limit)
    )


async def tell(runtime: Runtime, client: WebhookClient, leased: Round) -> None:
    """The network, then what came of it. If that cannot be written, the lease lapses and it is told again."""
    tries = await client.deliver(leased, runtime.clock)
    try:
        await _in_transaction(runtime, lambda conn: outbox.record(conn, runtime.clock.now(), leased, tries))
    except psycopg.Error:
        log.exception("worker.tries_not_recorded", tries=len(tries))


async def _set_aside(conn: Connection, runtime: Runtime) -> int:
    return await inbox.set_oldest_aside(conn, runtime.clock.now())


async def _wait_for_due(runtime: Runtime, trigger: Trigger) -> None:
    async with runtime.db.transaction(ENGINE) as conn:
        next_due_at = await queue.next_due(conn)
    if next_due_at is None or next_due_at > runtime.clock.now():
        await trigger.wait(Wake.MESSAGES, next_due_at)


async def _wait_for_outbox(runtime: Runtime, trigger: Trigger) -> None:
    async with runtime.db.transaction(ENGINE) as conn:
        next_due_at = await outbox.next_due(conn)
    if next_due_at is not None and next_due_at <= runtime.clock.now():
        await asyncio.sleep(BUSY_PAUSE_S)  # its row is being written just now
    else:
        await trigger.wait(Wake.OUTBOX, next_due_at)


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
