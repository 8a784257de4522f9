"""Which trigger keeps the times of texts, and how they get there when it is BullMQ.

Times are written in PostgreSQL first, always. What was committed and not put into the queue, because a process
died in between or the queue was away, the next scan puts back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from cartwake.jobs.text_job import EMAIL_NAME, Fate, TextJob, Timed
from cartwake.jobs.trigger import PostgresTrigger, Trigger
from cartwake.kit.clock import on_machine_ms
from cartwake.kit.db import ENGINE
from cartwake.kit.queues import QUEUE_NAMES
from cartwake.kit.runtime import Runtime
from cartwake.messages.text_jobs import FIRST, read_due, read_fates

if TYPE_CHECKING:  # an optional extra: imported where it is used
    from cartwake.jobs.bullmq import JobQueue

log = structlog.get_logger()

# The scan puts back the jobs of the next ten minutes: those until the next scan, and as many again.
AHEAD = timedelta(minutes=10)
# A shop that another worker holds is free again after a transaction.
SOON_S = 0.25
# An e-mail job that was done keeps its id for a day, so that nothing puts it there again.
EMAIL_KEPT_S = 86_400


def open_trigger(runtime: Runtime, stop: asyncio.Event) -> Trigger:
    """The trigger that `CARTWAKE_QUEUE` names. `stop`: that the worker is to end; nobody need fire for that."""
    settings = runtime.settings
    url = settings.queue_url
    if url is None:
        return PostgresTrigger(runtime.db, runtime.clock)
    from cartwake.jobs.bullmq import JobWorker
    from cartwake.jobs.bullmq_trigger import BullmqTrigger

    rate = settings.queue_rate.get("texts")
    jobs = JobWorker(url, QUEUE_NAMES["texts"], settings.queue_prefix, rate)
    return BullmqTrigger(
        runtime.db,
        runtime.clock,
        _text_queue(runtime, url),
        jobs,
        _Times(runtime),
        stop,
        at_a_time=settings.queue_concurrency["texts"],
        limited=rate is not None,
    )


async def put_texts(runtime: Runtime, due: Sequence[Timed]) -> None:
    """Committed: these messages wait until these times. Does nothing where PostgreSQL keeps them itself."""
    url = runtime.settings.queue_url
    if url is None or not due:
        return
    from cartwake.jobs.bullmq import QUEUE_ERRORS
    from cartwake.jobs.bullmq_trigger import new_job

    try:
        async with _text_queue(runtime, url) as queue:
            await queue.put([new_job(runtime.clock, each) for each in due])
    except QUEUE_ERRORS as error:
        log.warning("queue.not_put", jobs=len(due), error=type(error).__name__)


async def put_emails(runtime: Runtime, due: Sequence[Timed]) -> None:
    """Committed: these carts' e-mail steps are due. Handed to whoever sends e-mail, where that is wanted.

    At most once: nobody tells us whether a job that is not there was lost or done.
    """
    settings = runtime.settings
    url = settings.queue_url
    if url is None or not settings.queue_email or not due:
        return
    from cartwake.jobs.bullmq import QUEUE_ERRORS, JobQueue, NewJob

    clock = runtime.clock
    try:
        async with JobQueue(url, QUEUE_NAMES["email"], settings.queue_prefix) as queue:
            await queue.limit(settings.queue_concurrency["email"], settings.queue_rate.get("email"))
            await queue.put(
                [
                    NewJob(job.email_job_id, EMAIL_NAME, job.data, on_machine_ms(clock, at), EMAIL_KEPT_S)
                    for job, at in due
                ]
            )
    except QUEUE_ERRORS as error:
        log.warning("queue.not_put", queue="email", jobs=len(due), error=type(error).__name__)


async def put_back_texts(runtime: Runtime) -> None:
    """Put back what is due, or soon will be, and has no job, or a wrong one."""
    url = runtime.settings.queue_url
    if url is None:
        return
    from cartwake.jobs.bullmq import QUEUE_ERRORS

    try:
        async with _text_queue(runtime, url) as queue:
            put_back = await _Times(runtime).put_back(queue)
    except QUEUE_ERRORS as error:
        log.warning("queue.not_put_back", error=type(error).__name__, advice="cartwake doctor")
    else:
        if put_back:
            log.info("queue.put_back", jobs=put_back)


class _Times:
    """What the trigger asks of PostgreSQL, each in a transaction of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def fates(self, jobs: Sequence[TextJob]) -> list[Fate]:
        clock = self._runtime.clock
        async with self._runtime.db.transaction(ENGINE) as conn:
            return await read_fates(conn, clock.now(), clock.machine(SOON_S), jobs)

    async def put_back(self, queue: JobQueue) -> int:
        from cartwake.jobs.bullmq_trigger import new_job

        before = self._runtime.clock.now() + AHEAD
        after, put_back = FIRST, 0
        while True:
            async with self._runtime.db.transaction(ENGINE) as conn:
                page = await read_due(conn, before, after)
            put_back += await queue.mend([new_job(self._runtime.clock, each) for each in page.due])
            if page.after is None:
                return put_back
            after = page.after


def _text_queue(runtime: Runtime, url: str) -> JobQueue:
    from cartwake.jobs.bullmq import JobQueue

    return JobQueue(url, QUEUE_NAMES["texts"], runtime.settings.queue_prefix)
