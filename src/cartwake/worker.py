"""The worker process: sends what is due, and works off what carriers said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeGuard, TypeVar
from uuid import UUID, uuid4

import psycopg
import structlog

from cartwake import __version__
from cartwake.carriers.protocol import Carrier, ErrorClass, Rejected, SendResult
from cartwake.jobs import beats
from cartwake.jobs.trigger import Trigger, Wake
from cartwake.kit import metrics, tracing
from cartwake.kit.db import ENGINE, Connection, is_transient
from cartwake.kit.logs import some_ids
from cartwake.kit.runtime import Runtime
from cartwake.messages import aside, inbox, queue
from cartwake.messages.answers import Move
from cartwake.messages.dispatch import LEASE_MARGIN_S, Attempt, Calls, Claimed, claim_batch, send_batch
from cartwake.messages.inbound import apply_inbound
from cartwake.messages.receipts import apply_receipts
from cartwake.messages.recording import record_results
from cartwake.messages.text_jobs import job_of
from cartwake.observe import harmless
from cartwake.observe.counting import count_answers, count_claim, count_events, count_moves, count_set_aside
from cartwake.observe.traces import trace, trace_moves, traced
from cartwake.outbox import queue as outbox
from cartwake.outbox.model import Round
from cartwake.outbox.sending import WebhookClient
from cartwake.tenants.switches import read_pauses

log = structlog.get_logger()
T = TypeVar("T")

BATCHES_IN_FLIGHT = 4
# Shops whose servers are being told something. A server that hangs holds its own place and no other.
SHOPS_IN_FLIGHT = 64
EVENTS_BATCH = 500
# A claim that found shops but could take nothing (their sessions were being written) tries again after this.
BUSY_PAUSE_S = 0.01
# How soon a kill switch stops calls that a claimed batch has not made yet.
SWITCHES_EVERY_S = 0.5
TRIES = 5
RETRY_PAUSE_S = 0.2
SEE_EVENTS = "cartwake events list"


async def run_worker(runtime: Runtime, carrier: Carrier, trigger: Trigger, stop: asyncio.Event) -> None:
    """Work until `stop` is set; then finish the calls under way, put back what was not called, and return."""
    calls = Calls(runtime.settings.twilio_concurrency, stop)
    async with asyncio.TaskGroup() as group:
        group.create_task(_forever("dispatch", stop, lambda: dispatch_until(runtime, carrier, calls, trigger, stop)))
        group.create_task(_forever("events", stop, lambda: events_until(runtime, trigger, stop)))
        group.create_task(_forever("outbox", stop, lambda: outbox_until(runtime, trigger, stop)))


@contextlib.asynccontextmanager
async def living(runtime: Runtime) -> AsyncIterator[UUID]:
    """While the block lasts, say every few seconds that this worker lives; its id. For the doctor alone."""
    worker_id = uuid4()
    beating = asyncio.create_task(_beat_forever(runtime, worker_id))
    try:
        yield worker_id
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError, psycopg.Error):
            await beating
        with contextlib.suppress(psycopg.Error):
            async with runtime.db.transaction(ENGINE) as conn:
                await beats.end(conn, worker_id)


async def _beat_forever(runtime: Runtime, worker_id: UUID) -> None:
    while True:
        try:
            async with runtime.db.transaction(ENGINE) as conn:
                await beats.beat(conn, runtime.clock.now(), worker_id, __version__)
        except psycopg.Error as error:
            log.warning("worker.not_seen", error=type(error).__name__)
        await asyncio.sleep(beats.BEAT_S)


async def dispatch_until(
    runtime: Runtime, carrier: Carrier, calls: Calls, trigger: Trigger, stop: asyncio.Event
) -> None:
    """Claim, send and record, several batches at a time."""
    in_flight: set[asyncio.Task[None]] = set()
    try:
        allowance = await _wait_for_due(runtime, trigger)
        while not stop.is_set():
            claimed = await dispatch_once(runtime, allowance)
            if allowance is not None:
                allowance -= len(claimed.attempts) + len(claimed.decided)
            if claimed.attempts:
                in_flight.add(asyncio.create_task(_deliver(runtime, carrier, trigger, claimed.attempts, calls)))
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

    async def claim(conn: Connection) -> Claimed:
        return await claim_batch(conn, runtime.moment(), runtime.clock, runtime.settings, allowance)

    began_ns = tracing.now_ns()
    claimed = await _in_transaction(runtime, claim)
    _tell_claim(claimed, began_ns)
    return claimed


async def deliver(
    runtime: Runtime, carrier: Carrier, attempts: Sequence[Attempt], calls: Calls | None = None
) -> list[Move]:
    """The network, then transaction B. If B cannot be had, the lease lapses and the carrier is asked."""
    calls = calls or Calls(len(attempts))
    watching = asyncio.create_task(_watch_switches(runtime, calls))
    try:
        results = await send_batch(traced(carrier, attempts), runtime.clock, attempts, calls)
    finally:
        watching.cancel()
    try:
        return await record(runtime, results)
    except psycopg.Error:
        log.exception("worker.results_not_recorded", message_ids=some_ids(each.message.message_id for each in attempts))
        return []


async def _deliver(
    runtime: Runtime, carrier: Carrier, trigger: Trigger, attempts: Sequence[Attempt], calls: Calls
) -> None:
    """As `deliver`; and what was not called, or met a busy carrier, has a new time, which the trigger should know."""
    moves = await deliver(runtime, carrier, attempts, calls)
    again_at = {move.message.message_id: move.due_at for move in moves if move.due_at is not None}
    if again_at:
        waiting = [attempt.message for attempt in attempts if attempt.message.message_id in again_at]
        await trigger.put([(job_of(message), again_at[message.message_id]) for message in waiting])


async def _watch_switches(runtime: Runtime, calls: Calls) -> None:
    """Until cancelled, let calls know which kill switches are thrown. With no answer, the last one goes on counting."""
    while True:
        await asyncio.sleep(SWITCHES_EVERY_S)
        with contextlib.suppress(psycopg.OperationalError):
            async with runtime.db.transaction(ENGINE) as conn:
                calls.pauses = await read_pauses(conn)


async def record(runtime: Runtime, results: Sequence[tuple[Attempt, SendResult]]) -> list[Move]:
    """Transaction B, committed on return."""

    async def write(conn: Connection) -> list[Move]:
        return await record_results(conn, runtime.moment(), results)

    began_ns = tracing.now_ns()
    moves = await _in_transaction(runtime, write)
    _tell_answers(results, moves, began_ns)
    return moves


async def events_until(runtime: Runtime, trigger: Trigger, stop: asyncio.Event) -> None:
    """Work off receipts and inbound texts as they come in."""
    while not stop.is_set():
        if await work_off_events(runtime, EVENTS_BATCH) == 0:
            await trigger.wait(Wake.EVENTS, None)


async def work_off_events(runtime: Runtime, limit: int) -> int:
    """One batch of stored carrier events; how many. One that cannot be applied does not stop the others."""
    claimed: list[UUID] = []

    async def claim(conn: Connection) -> list[inbox.StoredEvent]:
        stored = await inbox.claim_events(conn, limit)
        claimed[:] = [each.event_id for each in stored]
        return stored

    try:
        return await _work_off(runtime, claim)
    except Exception as error:
        if not claimed or not aside.is_of_the_event(error):
            raise
        log.warning("worker.events_one_by_one", error=type(error).__name__)
    for event_id in claimed:
        await _work_off_one(runtime, event_id)
    return len(claimed)


async def _work_off_one(runtime: Runtime, event_id: UUID) -> None:
    """One event in a transaction of its own; set aside when it cannot be applied there either."""
    try:
        await _work_off(runtime, lambda conn: inbox.claim_event(conn, event_id))
    except Exception as error:
        if not aside.is_of_the_event(error):
            raise
        refusal = error
    else:
        return
    kind = await _in_transaction(runtime, lambda conn: aside.set_aside(conn, runtime.clock.now(), event_id, refusal))
    if kind is not None:
        count_set_aside(kind)
        log.error("worker.event_set_aside", event_id=str(event_id), kind=kind, exc_info=refusal, advice=SEE_EVENTS)


async def _work_off(runtime: Runtime, claim: Callable[[Connection], Awaitable[list[inbox.StoredEvent]]]) -> int:
    """Claim and apply in one transaction; how many events that was."""

    async def work(conn: Connection) -> _WorkedOff:
        return await _apply_events(conn, runtime, inbox.open_events(runtime.vault, await claim(conn)))

    began_ns = tracing.now_ns()
    done = await _in_transaction(runtime, work)
    _tell_events(done, began_ns)
    return len(done.events)


@dataclass(frozen=True)
class _WorkedOff:
    """A batch of carrier events with what came of each, and of the messages they were about."""

    at: datetime
    events: list[tuple[inbox.CarrierEvent, str]]
    moves: list[Move]


async def _apply_events(conn: Connection, runtime: Runtime, events: Sequence[inbox.CarrierEvent]) -> _WorkedOff:
    moment = runtime.moment()
    receipts = [event for event in events if event.kind == inbox.STATUS]
    inbound = [event for event in events if event.kind == inbox.INBOUND]
    outcomes, moves = await apply_receipts(conn, moment, receipts, runtime.settings.refund_on) if receipts else ({}, [])
    outcomes |= await apply_inbound(conn, moment, inbound) if inbound else {}
    if outcomes:
        await inbox.finish_events(conn, moment, outcomes)
    return _WorkedOff(moment.now, [(event, outcomes[event.event_id]) for event in events], moves)


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


async def _wait_for_due(runtime: Runtime, trigger: Trigger) -> int | None:
    """Wait until it is time to look; how many messages may be claimed then, None: whatever is due."""
    async with runtime.db.transaction(ENGINE) as conn:
        next_due_at = await queue.next_due(conn)
    return await trigger.wait(Wake.MESSAGES, next_due_at)


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
            metrics.RETRIES.labels(type(error).__name__).inc()
            log.warning("worker.trying_again", error=type(error).__name__, attempt=attempt)
            await asyncio.sleep(RETRY_PAUSE_S * attempt)
    raise AssertionError("unreachable")


async def _forever(name: str, stop: asyncio.Event, loop: Callable[[], Awaitable[None]]) -> None:
    """Keep a loop going: an unexpected error is logged and the loop begins anew, a little later."""
    structlog.contextvars.bind_contextvars(loop=name)  # of this task and those it starts
    while not stop.is_set():
        try:
            await loop()
        except Exception:
            log.exception("worker.loop_failed")
            await asyncio.sleep(1)


# --- what happened, told after it was committed -----------------------------------------------------


@harmless
def _tell_claim(claimed: Claimed, began_ns: int) -> None:
    count_claim(claimed)
    trace("text.claim", began_ns, [(each.message.message_id, each.message.traceparent) for each in claimed.attempts])
    for each in claimed.decided:
        verdict = each.verdict
        log.debug("message.decided", message_id=str(each.message_id), outcome=verdict.outcome, reason=verdict.reason)


@harmless
def _tell_answers(results: Sequence[tuple[Attempt, SendResult]], moves: Sequence[Move], began_ns: int) -> None:
    count_answers(moves)
    trace_moves("text.record", began_ns, moves)
    for move in moves:
        log.debug("message.answered", message_id=str(move.message.message_id), state=move.state)
    refused = [(each.message.message_id, result.code) for each, result in results if _is_ours_to_mend(result)]
    if refused:
        codes = sorted({code for _, code in refused if code is not None})
        log.error("carrier.account_refused", codes=codes, message_ids=some_ids(message_id for message_id, _ in refused))


@harmless
def _tell_events(done: _WorkedOff, began_ns: int) -> None:
    count_events(done.at, done.events)
    count_moves(done.moves)
    trace_moves("text.receipt", began_ns, done.moves)
    for move in done.moves:
        log.debug("message.reported", message_id=str(move.message.message_id), state=move.state)


def _is_ours_to_mend(result: SendResult) -> TypeGuard[Rejected]:
    return isinstance(result, Rejected) and result.error_class is ErrorClass.ACCOUNT
