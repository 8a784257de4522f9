"""The second trigger: the times of texts are delayed jobs in BullMQ, on Redis or Valkey.

The queue says when, PostgreSQL says whether. Jobs that fired wake the worker, which claims what is due, as ever: fair
shares of all shops, whichever message's job it was that fired. Then PostgreSQL is asked, once for the whole batch,
what became of the messages that the jobs are about, and each job ends or is moved to its message's new time.

While the queue cannot be reached the database's own times count, so that texts go out all the same; unless a rate
limit is set, which only the queue can count.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import psycopg
import structlog

from cartwake.jobs.bullmq import QUEUE_ERRORS, FiredJob, JobQueue, JobWorker, NewJob, Settled
from cartwake.jobs.text_job import ADVICE, NAME, BrokenJob, Fate, TextJob, Timed
from cartwake.jobs.trigger import Announcements, Wake, any_of, end
from cartwake.kit.clock import Clock, machine_ms, on_machine_ms
from cartwake.kit.db import Database

log = structlog.get_logger()

# After the database did not answer, or the queue.
AGAIN_MS = 1000


class Times(Protocol):
    """What the trigger asks of PostgreSQL."""

    async def fates(self, jobs: Sequence[TextJob]) -> list[Fate]:
        """What is to become of these jobs, now that what was due has been claimed; in their order."""

    async def put_back(self, queue: JobQueue) -> int:
        """Put back the jobs of messages that are due or soon will be; how many were missing."""


def new_job(clock: Clock, timed: Timed) -> NewJob:
    """A message's job, to fire when `clock` comes to its time."""
    job, due_at = timed
    return NewJob(job.job_id, NAME, job.data, on_machine_ms(clock, due_at))


class BullmqTrigger:
    """Wakes the worker when jobs fire, and when something is announced."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        queue: JobQueue,
        jobs: JobWorker,
        times: Times,
        stop: asyncio.Event,
        *,
        at_a_time: int,
        limited: bool,
    ) -> None:
        """`at_a_time`: jobs taken at once. `limited`: no more messages are claimed than jobs fired."""
        self._clock = clock
        self._queue, self._jobs, self._times, self._stop = queue, jobs, times, stop
        self._at_a_time, self._limited = at_a_time, limited
        self._announcements = Announcements(db, clock)
        self._fired = asyncio.Event()
        self._allowance = 0
        self._away = False
        self._taken: Sequence[FiredJob] = []
        # The claims for jobs that fired: asked for, and under way since the last `wait` returned.
        self._asked: asyncio.Future[None] | None = None
        self._claiming: asyncio.Future[None] | None = None
        self._rounds = asyncio.create_task(self._run())

    async def wait(self, wake: Wake, until: datetime | None) -> int | None:
        if wake is not Wake.MESSAGES:
            await self._announcements.wait(wake, until)
            return None
        self._claims_are_through()
        if self._limited:
            await any_of([self._fired.wait(), self._stop.wait()], None)
        elif self._away:
            await any_of([self._fired.wait(), self._announcements.wait(wake, until)], None)
        else:
            await any_of([self._fired.wait(), self._stop.wait(), self._announcements.heard[wake].wait()], None)
        self._fired.clear()
        self._announcements.heard[wake].clear()
        self._claiming, self._asked = self._asked, None
        allowance, self._allowance = self._allowance, 0
        return allowance if self._limited else None

    async def put(self, due: Sequence[Timed]) -> None:
        try:
            await self._queue.put([new_job(self._clock, each) for each in due])
        except QUEUE_ERRORS as error:
            log.warning("queue.not_put", jobs=len(due), error=type(error).__name__)

    async def close(self) -> None:
        await end(self._rounds)
        with contextlib.suppress(*QUEUE_ERRORS):  # for others to take at once; else when the locks lapse
            await self._jobs.settle(Settled(again=[(job, machine_ms()) for job in self._taken]))
        await self._jobs.close()
        await self._queue.close()
        await self._announcements.close()

    def _claims_are_through(self) -> None:
        """Whoever waits again has claimed what there was."""
        if self._claiming is not None and not self._claiming.done():
            self._claiming.set_result(None)
        self._claiming = None

    async def _run(self) -> None:
        while True:
            try:
                jobs = await self._jobs.take(self._at_a_time)
                if self._away:
                    await self._come_back()
                if jobs:
                    await self._round(jobs)
            except Exception as error:
                if not isinstance(error, QUEUE_ERRORS):
                    log.exception("queue.round_failed")
                # Whatever it was: texts are not to wait for it.
                self._jobs.forget()
                self._go_away(error)
                await asyncio.sleep(AGAIN_MS / 1000)

    def _go_away(self, error: Exception) -> None:
        if not self._away:
            meanwhile = "nothing is sent" if self._limited else "texts go out by the database's times"
            log.warning("queue.unreachable", error=type(error).__name__, meanwhile=meanwhile, advice="cartwake doctor")
        self._away = True
        if not self._limited:
            self._fired.set()  # whoever waits for jobs waits for the database's times now

    async def _come_back(self) -> None:
        """What was to be put meanwhile is missing."""
        try:
            put_back = await self._times.put_back(self._queue)
        except psycopg.Error as error:  # the scan will
            log.warning("queue.not_put_back", error=type(error).__name__)
            put_back = None
        self._away = False
        log.info("queue.back", put_back=put_back)

    async def _round(self, fired: Sequence[FiredJob]) -> None:
        """Have claimed what is due; then let each job end, or move it to its message's new time."""
        settled, self._taken = Settled(), fired
        known = [(job, text) for job in fired if (text := _read(job, settled)) is not None]
        try:
            if known:
                await self._have_claimed(len(known))
                self._apply(known, await self._times.fates([text for _, text in known]), settled)
        except psycopg.Error as error:
            log.warning("queue.fates_unknown", jobs=len(known), error=type(error).__name__)
            settled.done.clear()
            settled.again = [(job, machine_ms() + AGAIN_MS) for job, _ in known]
        await self._jobs.settle(settled)
        self._taken = []

    async def _have_claimed(self, jobs: int) -> None:
        self._asked = through = asyncio.get_running_loop().create_future()
        self._allowance += jobs
        self._fired.set()
        await through

    def _apply(self, known: Sequence[tuple[FiredJob, TextJob]], fates: Sequence[Fate], settled: Settled) -> None:
        for (job, text), fate in zip(known, fates, strict=True):
            if fate.again_at is not None:
                settled.again.append((job, on_machine_ms(self._clock, fate.again_at)))
                continue
            settled.done.append(job)
            if not fate.known:
                log.warning(
                    "queue.job_discarded",
                    job_id=text.job_id,
                    problem="there is no such message under its organization and shop",
                    advice=ADVICE,
                )


def _read(job: FiredJob, settled: Settled) -> TextJob | None:
    try:
        return TextJob.read(job.job_id, job.name, job.data)
    except BrokenJob as broken:
        settled.failed.append((job, f"Not a job of Cartwake's: {broken}. {ADVICE}"))
        log.warning("queue.job_broken", job_id=job.job_id[:100], problem=str(broken), advice=ADVICE)
        return None
