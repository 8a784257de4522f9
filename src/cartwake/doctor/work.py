"""Is the work done: do the periodic tasks run, are credits settled, may texts go out?"""

from __future__ import annotations

from datetime import timedelta

from cartwake.credits.invariants import reservations_open_longer_than
from cartwake.doctor.model import Finding, Patient, bad, ok, warn
from cartwake.jobs.periodic import TaskRow, read_tasks
from cartwake.kit.db import ENGINE, OPERATOR
from cartwake.scheduler import TASKS
from cartwake.tenants.switches import deployment_paused_since, read_pauses

# A scheduler looks twice a second; a task that waits so much longer (machine seconds) has nobody who runs it.
TASK_LATE_S = 120.0
# Unknown outcomes are given up, and their credits released, after a day at the latest.
RESERVATION_STALE = timedelta(hours=25)


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
