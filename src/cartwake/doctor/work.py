"""Is the work done: do the periodic tasks run, are credits settled, may texts go out?"""

from __future__ import annotations

from datetime import timedelta

from cartwake import __version__
from cartwake.consent.chain_store import oldest_unsealed
from cartwake.credits.invariants import reservations_open_longer_than
from cartwake.doctor.model import Finding, Patient, bad, ok, warn
from cartwake.jobs.beats import GONE_AFTER_S, read_beats
from cartwake.jobs.periodic import TaskRow, read_tasks
from cartwake.kit.db import ENGINE, OPERATOR
from cartwake.messages.aside import count_set_aside
from cartwake.messages.inbox import oldest_waiting
from cartwake.messages.queue import next_due
from cartwake.observe.gauges import texting_without_credits
from cartwake.outbox.queue import shops_not_heard
from cartwake.scheduler import TASKS
from cartwake.tenants.switches import deployment_paused_since, read_pauses

# A scheduler looks twice a second; a task that waits so much longer (machine seconds) has nobody who runs it.
TASK_LATE_S = 120.0
# What shoppers say is sealed within a minute or two; the machine that wrote it may have a clock that is behind.
UNSEALED_S = 300.0
# Unknown outcomes are given up, and their credits released, after a day at the latest.
RESERVATION_STALE = timedelta(hours=25)
# A server that restarts is no news.
NOT_HEARD_FOR = timedelta(hours=1)
SHOWN_MAX = 3


async def look_at_tasks(patient: Patient) -> Finding:
    """Every periodic task ran when it was due."""
    now = patient.clock.now()
    async with patient.as_login(ENGINE) as conn:
        enrolled = await read_tasks(conn)
    # An older or newer version may have left tasks of its own.
    found = {task.name: enrolled[task.name] for task in TASKS if task.name in enrolled}
    grace = patient.clock.machine(TASK_LATE_S)

    def waits(task: TaskRow | None) -> bool:
        return task is None or max(task.next_run_at, task.leased_until or task.next_run_at) < now - grace

    late = [task.name for task in TASKS if waits(found.get(task.name))]
    if len(late) == len(TASKS):
        newest = max((row.last_run_at for row in found.values() if row.last_run_at), default=None)
        last = f"since {newest:%Y-%m-%d %H:%M} UTC" if newest else "ever"
        return bad(f"no periodic task ran {last}", "Run `cartwake scheduler`; without it no cart is texted.")
    if late:
        return bad(f"tasks are late: {', '.join(late)}", "Look at the scheduler's log; update older ones.")
    failed = [f"{row.name} ({row.last_error})" for row in found.values() if row.last_error]
    if failed:
        return warn(f"tasks failed the last time they ran: {', '.join(failed)}", "Look at the scheduler's log.")
    return ok(f"all {len(TASKS)} periodic tasks run when they are due")


async def look_at_workers(patient: Patient) -> Finding:
    """A worker lives, is of this version, and gets its work done."""
    now, clock = patient.clock.now(), patient.clock
    async with patient.as_login(ENGINE) as conn:
        seen = await read_beats(conn)
        due_at, waiting_since = await next_due(conn), await oldest_waiting(conn)
    alive = [each for each in seen if each.seen_at > now - clock.machine(GONE_AFTER_S)]
    if not alive:
        last = f"since {seen[0].seen_at:%Y-%m-%d %H:%M} UTC" if seen else "at all"
        return bad(
            f"no worker has been seen {last}", "Run `cartwake worker`; without it nothing is sent and no STOP is heard."
        )
    late = now - clock.machine(TASK_LATE_S)
    if waiting_since and waiting_since < late:
        said = f"receipts and replies have waited since {waiting_since:%Y-%m-%d %H:%M} UTC, though workers live"
        return bad(said, "Look for worker.loop_failed in the workers' logs: a STOP may be among what waits.")
    if due_at and due_at < late:
        said = f"texts have been due since {due_at:%Y-%m-%d %H:%M} UTC, and no worker takes them"
        return bad(said, "Look for worker.loop_failed in the workers' logs; if all are busy, start more.")
    strange = sorted({each.version for each in alive} - {__version__})
    if strange:
        said = f"workers of another version run: {', '.join(strange)}; this is {__version__}"
        return warn(said, "Fine while an upgrade rolls; otherwise restart what still runs the other one.")
    return ok(f"workers at work: {len(alive)}")


async def look_at_events(patient: Patient) -> Finding:
    """Every receipt and reply could be applied."""
    async with patient.as_login(ENGINE) as conn:
        pile = await count_set_aside(conn)
    if pile.oldest_at:
        since = f"{pile.oldest_at:%Y-%m-%d %H:%M} UTC"
        said = f"receipts and replies that could not be applied: {pile.events}, since {since}"
        mend = "`cartwake events list` tells which, and of any STOP among them. Mend it, then `cartwake events retry`."
        return bad(said, mend)
    return ok("every receipt and reply could be applied")


async def look_at_reply_webhooks(patient: Patient) -> Finding:
    """Shops' own servers take what they are told."""
    async with patient.as_login(ENGINE) as conn:
        failing = await shops_not_heard(conn, patient.clock.now() - NOT_HEARD_FOR, SHOWN_MAX + 1)
    if not failing:
        return ok("no shop's reply webhook has been failing for an hour")
    told = [f"shop {each.shop.shop_id} since {each.since:%Y-%m-%d %H:%M} UTC ({each.failure})" for each in failing]
    more = " and others" if len(told) > SHOWN_MAX else ""
    return warn(
        f"reply webhooks fail: {', '.join(told[:SHOWN_MAX])}{more}",
        "Tell the merchant: their server must answer 2xx, or PUT /v1/reply-webhook names another. Each reply is tried "
        "for a day; GET /v1/replies has them all.",
    )


async def look_at_sealing(patient: Patient) -> Finding:
    """What shoppers agreed to and took back is in its shop's chain."""
    async with patient.as_login(ENGINE) as conn:
        waiting_since = await oldest_unsealed(conn)
    if waiting_since and waiting_since < patient.clock.now() - patient.clock.machine(UNSEALED_S):
        said = f"consent events have waited for their chain since {waiting_since:%Y-%m-%d %H:%M} UTC"
        return bad(
            said, "Let a scheduler run, whose task consent_sealing chains them; then look with `cartwake audit`."
        )
    return ok("no consent event has waited long for its chain; `cartwake audit` checks the chains")


async def look_at_credits(patient: Patient) -> Finding:
    """Whoever texts has credits."""
    async with patient.as_login(OPERATOR) as conn:
        broke = await texting_without_credits(conn, SHOWN_MAX + 1)
    if not broke:
        return ok("every organization that texts has credits")
    more = " and others" if len(broke) > SHOWN_MAX else ""
    return warn(
        f"organizations that text and have no credits: {', '.join(map(str, broke[:SHOWN_MAX]))}{more}",
        "Nothing of theirs is sent. `cartwake credits adjust` adds some; a new organization has none until its plan's "
        "first ones come, within an hour.",
    )


async def look_at_reservations(patient: Patient) -> Finding:
    """No credit is set aside for longer than a text can be in doubt."""
    async with patient.as_login(ENGINE) as conn:
        stale = await reservations_open_longer_than(conn, patient.clock.now(), RESERVATION_STALE.total_seconds())
    if stale:
        hours = RESERVATION_STALE.total_seconds() / 3600
        mend = "Let a scheduler run, whose task unknown_outcomes settles them; then look at `cartwake doubts`."
        return bad(f"reservations open for more than {hours:.0f} hours: {len(stale)}", mend)
    return ok("no reservation is stale")


async def look_at_switches(patient: Patient) -> Finding:
    """Nobody has stopped the texts."""
    async with patient.as_login(OPERATOR) as conn:
        paused_at = await deployment_paused_since(conn)
        shops = len((await read_pauses(conn)).shops)
    if paused_at:
        since = f"sending has been paused since {paused_at:%Y-%m-%d %H:%M} UTC"
        return warn(since, "`cartwake resume` lets texts go out; after a restore read `docs/operate.md` first.")
    if shops:
        mend = "DELETE /v1/organizations/{id}/shops/{id}/kill-switch lets a shop's texts go out again."
        return warn(f"sending goes on, but not for all: paused shops: {shops}", mend)
    return ok("sending is not paused")
