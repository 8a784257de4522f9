"""The scheduler's table of periodic work as jobs of BullMQ: each task is one delayed job that moves on when it has run.

Whether a task runs is still claimed in PostgreSQL. Jobs that are lost are put back within seconds, and while the queue
cannot be reached the scheduler goes by the database's times, as it does without BullMQ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import psycopg
import structlog

from cartwake.carriers.protocol import Carrier
from cartwake.jobs import periodic
from cartwake.jobs.bullmq import QUEUE_ERRORS, FiredJob, JobQueue, JobWorker, NewJob, Settled
from cartwake.jobs.trigger import any_of
from cartwake.kit.clock import machine_ms, on_machine_ms
from cartwake.kit.db import ENGINE
from cartwake.kit.queues import QUEUE_NAMES
from cartwake.kit.runtime import Runtime
from cartwake.scheduler import NAP_S, TASKS, Task, enrol, run_due, run_task

log = structlog.get_logger()

NAME = "maintenance"
# How often a scheduler looks whether every task has its job. Machine seconds.
LOOK_S = 15.0
AGAIN_MS = 1000


async def run_queued_scheduler(
    runtime: Runtime, carrier: Carrier, stop: asyncio.Event, tasks: Sequence[Task] = TASKS
) -> None:
    """As `run_scheduler`, by jobs that fire. Any number of schedulers may run."""
    settings = runtime.settings
    url = settings.queue_url
    assert url is not None, "without a queue there is run_scheduler"
    name, rate = QUEUE_NAMES["maintenance"], settings.queue_rate.get("maintenance")
    async with JobQueue(url, name, settings.queue_prefix) as queue:
        jobs = JobWorker(url, name, settings.queue_prefix, rate)
        maintenance = _Maintenance(runtime, carrier, stop, tasks, queue, jobs)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(maintenance.keep_jobs())
                group.create_task(maintenance.work())
        finally:
            await jobs.close()


def job_id_of(task: str) -> str:
    """A task's one job."""
    return f"{NAME}-{task}"


class _Maintenance:
    def __init__(
        self,
        runtime: Runtime,
        carrier: Carrier,
        stop: asyncio.Event,
        tasks: Sequence[Task],
        queue: JobQueue,
        jobs: JobWorker,
    ) -> None:
        self._runtime, self._carrier, self._stop = runtime, carrier, stop
        self._tasks = {task.name: task for task in tasks}
        self._queue, self._jobs = queue, jobs

    async def keep_jobs(self) -> None:
        """See to it that every task has its job; without a queue, run what is due."""
        away = enrolled = False
        while not self._stop.is_set():
            pause_s = LOOK_S
            try:
                if not enrolled:
                    await enrol(self._runtime, list(self._tasks.values()))
                    enrolled = True
                await self._put()
                if away:
                    log.info("queue.back", queue=NAME)
                away = False
            except QUEUE_ERRORS as error:
                if not away:
                    log.warning("queue.unreachable", queue=NAME, error=type(error).__name__, advice="cartwake doctor")
                away, pause_s = True, NAP_S
                await self._run_by_the_database()
            except Exception:
                log.exception("scheduler.round_failed")
                pause_s = NAP_S
            await any_of([self._stop.wait()], pause_s)

    async def work(self) -> None:
        """Run tasks as their jobs fire."""
        while not self._stop.is_set():
            taking = asyncio.create_task(self._jobs.take(self._runtime.settings.queue_concurrency["maintenance"]))
            try:
                await any_of([_done(taking), self._stop.wait()], None)
                if taking.done():
                    await self._run(taking.result())
            except QUEUE_ERRORS:
                self._jobs.forget()
                await any_of([self._stop.wait()], AGAIN_MS / 1000)
            finally:
                taking.cancel()

    async def _put(self) -> None:
        times = await self._next_runs()
        clock = self._runtime.clock
        jobs = [
            NewJob(job_id_of(name), NAME, {"v": 1, "task": name}, on_machine_ms(clock, at))
            for name, at in times.items()
        ]
        if put_back := await self._queue.mend(jobs):
            log.debug("queue.put_back", queue=NAME, jobs=put_back)

    async def _run_by_the_database(self) -> None:
        try:
            await run_due(self._runtime, self._carrier, list(self._tasks.values()))
        except Exception:
            log.exception("scheduler.round_failed")

    async def _run(self, fired: Sequence[FiredJob]) -> None:
        settled = Settled()
        await asyncio.gather(*(self._run_one(job, settled) for job in fired))
        if fired:
            await self._jobs.settle(settled)

    async def _run_one(self, job: FiredJob, settled: Settled) -> None:
        task = self._tasks.get(job.job_id.removeprefix(f"{NAME}-"))
        if task is None or job.job_id != job_id_of(task.name):
            reason = "Not a job of Cartwake's: no periodic task has this id. Cartwake adds them all itself."
            settled.failed.append((job, reason))
            log.warning("queue.job_broken", queue=NAME, job_id=job.job_id[:100], problem=reason)
            return
        try:
            await run_task(self._runtime, self._carrier, task)
            at_ms = on_machine_ms(self._runtime.clock, (await self._next_runs())[task.name])
        except (psycopg.Error, KeyError):
            log.exception("scheduler.round_failed")
            at_ms = machine_ms() + AGAIN_MS
        settled.again.append((job, at_ms))

    async def _next_runs(self) -> dict[str, datetime]:
        async with self._runtime.db.transaction(ENGINE) as conn:
            return await periodic.next_runs(conn, list(self._tasks))


async def _done(task: asyncio.Task[list[FiredJob]]) -> None:
    await asyncio.wait([task])
