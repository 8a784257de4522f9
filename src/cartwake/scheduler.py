"""The scheduler process, and the one table of periodic work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
import structlog

from cartwake.carriers.protocol import Carrier
from cartwake.carts.abandonment import ask_again, expire_stale, time_out_payments
from cartwake.carts.model import Refusal
from cartwake.consent.chain_store import Place
from cartwake.consent.sealing import seal_batch
from cartwake.credits.refills import due_for_refill, refill
from cartwake.invariants import broken_invariants, note_checks
from cartwake.jobs import periodic
from cartwake.jobs.trigger import Wake, announce
from cartwake.kit import metrics, tracing
from cartwake.kit.db import ENGINE, is_transient
from cartwake.kit.logs import some_ids
from cartwake.kit.runtime import Runtime
from cartwake.messages import reconcile, schedule
from cartwake.messages.model import MessageState
from cartwake.observe.counting import count_decisions, count_moves, count_texts
from cartwake.observe.traces import trace, trace_moves
from cartwake.tenants.answers import forget_answers
from cartwake.tenants.organizations import plans_with_credits
from cartwake.timekeeping import put_back_texts, put_emails, put_texts

log = structlog.get_logger()

SWEEP_BATCH = 1000
ASK_BATCH = 200
REFILL_BATCH = 500
# A scheduler with nothing due looks again after this long at the latest.
NAP_S = 0.5
# A deadlock or a restart of the database is no reason to leave carts until the next round.
AGAIN_AFTER_S = 1.0


@dataclass(frozen=True)
class Task:
    """One line of the table."""

    name: str
    cron: str  # UTC
    run: Callable[[Runtime, Carrier], Awaitable[None]]


async def scan_abandoned(runtime: Runtime, _carrier: Carrier) -> None:
    """Idle sessions become abandoned, and get their text scheduled or their reason stored."""
    limit = runtime.settings.abandonment_batch
    while True:
        began_ns = tracing.now_ns()
        async with runtime.db.transaction(ENGINE) as conn:
            scanned = await schedule.scan(conn, runtime.moment(), limit)
            if scanned.scheduled:
                await announce(conn, Wake.MESSAGES)
        count_decisions(scanned.verdicts)
        trace("text.schedule", began_ns, scanned.messages)
        await put_texts(runtime, scanned.due)
        await put_emails(runtime, scanned.emails)
        if scanned.sessions < limit:
            break
    await put_back_texts(runtime)


async def sweep_stale(runtime: Runtime, _carrier: Carrier) -> None:
    """Sessions too old to text expire; payments that never settled stop counting."""
    for sweep in (expire_stale, time_out_payments):
        moved = SWEEP_BATCH
        while moved == SWEEP_BATCH:
            async with runtime.db.transaction(ENGINE) as conn:
                moved = await sweep(conn, runtime.clock.now(), SWEEP_BATCH)


async def refill_plans(runtime: Runtime, _carrier: Carrier) -> None:
    """Each organization's monthly credits, once a month; carts refused for want of credits are asked again."""
    async with runtime.db.transaction(ENGINE) as conn:
        plans = await plans_with_credits(conn)
    for first in range(0, len(plans), REFILL_BATCH):
        async with runtime.db.transaction(ENGINE) as conn:
            now = runtime.clock.now()
            due = await due_for_refill(conn, now, plans[first : first + REFILL_BATCH])
            # Before the refill, because dispatch too locks carts before balances; and in its transaction, or
            # nobody would ask again after a crash between the two.
            for organization_id, _ in sorted(due):
                await ask_again(conn, now, organization_id, [Refusal.INSUFFICIENT_CREDITS])
            await refill(conn, now, due)


async def resolve_unknown(runtime: Runtime, carrier: Carrier) -> None:
    """Messages whose worker died are asked about at the carrier, and their credits settled."""
    async with runtime.db.transaction(ENGINE) as conn:
        now = runtime.clock.now()
        lapsed = await reconcile.lapse_leases(conn, now, SWEEP_BATCH)
        doubtful = await reconcile.read_doubtful(conn, runtime.vault, now, ASK_BATCH)
    count_texts(MessageState.UNKNOWN, lapsed.values())
    if lapsed:
        log.warning("reconcile.leases_lapsed", texts=len(lapsed), message_ids=some_ids(lapsed))
    began_ns = tracing.now_ns()
    fates = await reconcile.ask(carrier, doubtful)
    async with runtime.db.transaction(ENGINE) as conn:
        moves = await reconcile.record_fates(conn, runtime.moment(), fates, runtime.settings.refund_on)
    count_moves(moves)
    trace_moves("text.settle", began_ns, moves)
    for move in moves:
        log.info("reconcile.settled", message_id=str(move.message.message_id), state=move.state)


async def ask_for_missing_receipts(runtime: Runtime, carrier: Carrier) -> None:
    """Accepted texts without a receipt for three days: the carrier is asked, batch after batch while it answers."""
    while True:
        async with runtime.db.transaction(ENGINE) as conn:
            silent = await reconcile.read_silent(conn, runtime.clock.now(), ASK_BATCH)
        began_ns = tracing.now_ns()
        fates = await reconcile.look_up(carrier, silent)
        async with runtime.db.transaction(ENGINE) as conn:
            moves = await reconcile.record_looked_up(conn, runtime.moment(), fates, runtime.settings.refund_on)
        count_moves(moves)
        trace_moves("text.settle", began_ns, moves)
        if len(silent) < ASK_BATCH or not moves:
            return


async def sweep_answers(runtime: Runtime, _carrier: Carrier) -> None:
    """Answers to POSTs with an idempotency key, a day after they were given."""
    async with runtime.db.transaction(ENGINE) as conn:
        await forget_answers(conn, runtime.clock.now())


async def seal_consents(runtime: Runtime, _carrier: Carrier) -> None:
    """What shoppers agreed to and took back becomes part of their shops' chains, window after window."""
    place: Place | None = Place()
    while place is not None:
        async with runtime.db.transaction(ENGINE) as conn:
            place = (await seal_batch(conn, runtime.clock.now(), place)).next


async def check_invariants(runtime: Runtime, _carrier: Carrier) -> None:
    """What must always be true, looked at in production too."""
    async with runtime.db.transaction(ENGINE) as conn:
        now = runtime.clock.now()
        found = await broken_invariants(conn, now)
        await note_checks(conn, now, found)
    for broken in found:
        log.error("invariant.broken", invariant=broken.name, rows=len(broken.rows))


TASKS: tuple[Task, ...] = (
    Task("abandonment_scan", "*/5 * * * *", scan_abandoned),
    Task("stale_sweep", "*/5 * * * *", sweep_stale),
    Task("unknown_outcomes", "* * * * *", resolve_unknown),
    Task("consent_sealing", "* * * * *", seal_consents),
    Task("plan_refills", "10 * * * *", refill_plans),
    Task("missing_receipts", "20 * * * *", ask_for_missing_receipts),
    Task("idempotent_answers", "30 * * * *", sweep_answers),
    Task("invariants", "40 * * * *", check_invariants),
)


async def run_scheduler(runtime: Runtime, carrier: Carrier, stop: asyncio.Event, tasks: Sequence[Task] = TASKS) -> None:
    """Run what is due until `stop` is set. Any number of schedulers may run."""
    enrolled = False
    while not stop.is_set():
        try:
            if not enrolled:
                await enrol(runtime, tasks)
                enrolled = True
            next_at = await run_due(runtime, carrier, tasks)
        except Exception:
            log.exception("scheduler.round_failed")
            next_at = None
        nap = runtime.clock.now() + runtime.clock.machine(NAP_S)
        await runtime.clock.sleep_until(min(nap, next_at or nap))


async def enrol(runtime: Runtime, tasks: Sequence[Task]) -> None:
    """Give every task its row."""
    async with runtime.db.transaction(ENGINE) as conn:
        await periodic.enrol(conn, runtime.clock.now(), [task.name for task in tasks])


async def run_due(runtime: Runtime, carrier: Carrier, tasks: Sequence[Task] = TASKS) -> datetime | None:
    """Run every task that is due and not being run by another scheduler; when to look again (None: unknown)."""
    async with runtime.db.transaction(ENGINE) as conn:
        due, next_at = await periodic.due_tasks(conn, runtime.clock.now(), [task.name for task in tasks])
    for task in tasks:
        if task.name in due:
            await run_task(runtime, carrier, task)
    # What has run has a new time, which `next_at` does not know of. Look again at once: a nap measured
    # under a fast clock would be slept through under a slow one.
    return runtime.clock.now() if due else next_at


async def run_task(runtime: Runtime, carrier: Carrier, task: Task) -> None:
    """Run a task if it is due and nobody else runs it."""
    lease = runtime.clock.machine(periodic.LEASE_S)
    async with runtime.db.transaction(ENGINE) as conn:
        if not await periodic.claim(conn, runtime.clock.now(), task.name, task.cron, lease):
            return
    error = again_at = None
    began_s = time.perf_counter()
    with structlog.contextvars.bound_contextvars(task=task.name):
        renewing = asyncio.create_task(_keep_lease(runtime, task.name))
        try:
            await task.run(runtime, carrier)
        except Exception as failure:
            error = type(failure).__name__
            log.exception("scheduler.task_failed")
            if is_transient(failure):
                again_at = runtime.clock.now() + runtime.clock.machine(AGAIN_AFTER_S)
        finally:
            renewing.cancel()
    metrics.TASK_SECONDS.labels(task.name).observe(time.perf_counter() - began_s)
    metrics.TASK_RUNS.labels(task.name, "failed" if error else "done").inc()
    async with runtime.db.transaction(ENGINE) as conn:
        await periodic.finish(conn, task.name, error, again_at)


async def _keep_lease(runtime: Runtime, name: str) -> None:
    """Renew a running task's lease, until cancelled. What fails once may succeed the next time."""
    while True:
        await asyncio.sleep(periodic.LEASE_S / 4)
        with contextlib.suppress(psycopg.OperationalError):
            async with runtime.db.transaction(ENGINE) as conn:
                await periodic.renew(conn, runtime.clock.now(), name, runtime.clock.machine(periodic.LEASE_S))
