"""Jobs in BullMQ, added and worked off in batches. Needs the extra `cartwake[bullmq]`: import it where it is used.

The official Python port supplies the scripts, which are those of the Node library. Its `Worker` runs one job at a
time and asks the server for each; this one takes whatever has fired together and settles it together, a round trip
each. It also blocks for fractions of a second from the start: the port's worker rounds up to whole seconds until it
has asked for the server's version.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import structlog
from bullmq import Job, Queue
from bullmq.scripts import raw2NextJobData
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cartwake.jobs.trigger import end
from cartwake.kit.clock import machine_ms

log = structlog.get_logger()

# What a queue that is away, or refuses, answers with.
QUEUE_ERRORS = (RedisError, OSError)

CHUNK = 500  # jobs in one round trip
CONNECT_TIMEOUT_S = 5.0
LONGEST_WAIT_S = 5.0
ANSWER_TIMEOUT_S = LONGEST_WAIT_S + 10.0
# A job whose worker died runs again after its lock has lapsed and two checks have missed it: half a minute.
LOCK_MS = 15_000
STALLED_CHECK_S = 10.0
RENEW_LOCKS_S = 5.0
# Jobs are run again however often their workers die: what may be done twice is decided in PostgreSQL.
MANY_TIMES = 1_000_000
# Failed jobs are kept for a person to look at: a week, the last thousand.
KEEP_FAILED = {"age": 7 * 86_400, "count": 1000}
# BullMQ keeps a delayed job's place among those of its millisecond in the lower bits of its score.
SCORE_PER_MS = 0x1000
LATE_MS = 1000
# A count that anybody may have written: `int` refuses some of what calls itself digits, and very many of them.
ATTEMPTS = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class NewJob:
    """A job to be. `at_ms`: when it fires, in Unix milliseconds of the machine's clock."""

    job_id: str
    name: str
    data: dict[str, Any]
    at_ms: int
    keep_done_s: int = 0  # how long its id stays taken once it has ended well


@dataclass(frozen=True)
class FiredJob:
    """A job that we hold. `data` is as it was found: anybody may have written it."""

    job_id: str
    name: str
    data: Any
    attempts_made: int


@dataclass
class Settled:
    """What becomes of the jobs of a batch."""

    done: list[FiredJob] = field(default_factory=list)
    again: list[tuple[FiredJob, int]] = field(default_factory=list)  # and when, as `NewJob.at_ms`
    failed: list[tuple[FiredJob, str]] = field(default_factory=list)  # and why


def connect(url: str, client_name: str | None = None) -> Redis:
    """A client of the queue's server. Asks once more after a lost connection, and then says so."""
    return Redis.from_url(
        url,
        client_name=client_name,
        decode_responses=True,
        encoding_errors="replace",  # a job may hold anything
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
    )


class JobQueue:
    """Adds jobs to one queue. All methods raise `QUEUE_ERRORS`."""

    def __init__(self, url: str, name: str, prefix: str) -> None:
        self._client = connect(url)
        self._queue = Queue(name, {"connection": self._client, "prefix": prefix})

    async def __aenter__(self) -> JobQueue:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def put(self, jobs: Sequence[NewJob]) -> None:
        """Add jobs. One whose id there is already stays as it is."""
        for chunk in _chunks(jobs):
            now_ms = machine_ms()
            await self._queue.addBulk([_as_added(job, now_ms) for job in chunk])

    async def limit(self, at_a_time: int, per_second: int | None) -> None:
        """Have BullMQ itself hold all who take jobs from the queue, whatever program they are, to these."""
        await self._queue.setGlobalConcurrency(at_a_time)
        if per_second:
            await self._queue.setGlobalRateLimit(per_second, 1000)
        else:
            await self._queue.removeGlobalRateLimit()

    async def mend(self, jobs: Sequence[NewJob]) -> int:
        """See to it that each of these fires by its time; how many were missing or wrong.

        Puts back what is lost, replaces what waits for a later time, and what has ended under the same id: BullMQ
        would ignore a new job while the failed one is kept.
        """
        return sum([await self._mend(chunk) for chunk in _chunks(jobs)])

    async def _mend(self, jobs: Sequence[NewJob]) -> int:
        keys = self._queue.keys
        async with self._client.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.exists(self._queue.toKey(job.job_id))
                for state in ("delayed", "completed", "failed"):
                    pipe.zscore(keys[state], job.job_id)
            answers = await pipe.execute()
        found = [answers[first : first + 4] for first in range(0, len(answers), 4)]
        wrong = [job for job, (_, *scores) in zip(jobs, found, strict=True) if _is_wrong(job, *scores)]
        for job in wrong:
            await self._queue.backend.remove(job.job_id, remove_children=True)
        missing = [job for job, (exists, *_) in zip(jobs, found, strict=True) if not exists]
        await self.put(missing + wrong)
        return len(missing) + len(wrong)


def _is_wrong(job: NewJob, delayed: float | None, completed: float | None, failed: float | None) -> bool:
    late = delayed is not None and delayed / SCORE_PER_MS > job.at_ms + LATE_MS
    return late or completed is not None or failed is not None


def _as_added(job: NewJob, now_ms: int) -> dict[str, Any]:
    options = {
        "jobId": job.job_id,
        "timestamp": now_ms,
        "delay": max(job.at_ms - now_ms, 0),
        "removeOnComplete": {"age": job.keep_done_s} if job.keep_done_s else True,
        "removeOnFail": KEEP_FAILED,
    }
    return {"name": job.name, "data": job.data, "opts": options}


class _Taken(NamedTuple):
    jobs: list[FiredJob]
    more: int  # that have fired too
    wait_s: float  # when there are none: until the next one fires, or until the limit of this second is over
    limited: bool = False


class JobWorker:
    """Takes the jobs of one queue as they fire, and settles them. `take` and `settle` raise `QUEUE_ERRORS`."""

    def __init__(self, url: str, name: str, prefix: str, per_second: int | None = None) -> None:
        """`per_second`: at most so many jobs are taken by all workers of the queue together."""
        # By this name dashboards know a queue's workers.
        self._client = connect(url, f"{prefix}:{base64.b64encode(name.encode()).decode()}")
        limiter = {"max": per_second, "duration": 1000} if per_second else None
        options = {"connection": self._client, "prefix": prefix, "lockDuration": LOCK_MS, "limiter": limiter}
        self._queue = Queue(name, options)
        self._scripts = self._queue.scripts
        self._keys: dict[str, str] = self._queue.keys
        self._token = secrets.token_hex(16)
        self._limiter = limiter
        self._held: set[str] = set()
        self._chores = [
            asyncio.create_task(_every(RENEW_LOCKS_S, self._renew_locks)),
            asyncio.create_task(_every(STALLED_CHECK_S, self._free_stalled)),
        ]

    async def close(self) -> None:
        """Let go of everything. Jobs that were taken and not settled run again elsewhere once their locks lapse."""
        await end(*self._chores)
        await self._client.aclose()

    async def take(self, at_most: int) -> list[FiredJob]:
        """Wait until jobs fire, or for some seconds; whatever has fired by then, oldest first. They are ours."""
        taken = await self._take(1)
        if taken.jobs and (count := min(taken.more, at_most - 1)) > 0:
            return taken.jobs + (await self._take(count)).jobs
        if taken.jobs:
            return taken.jobs
        if taken.limited:
            await asyncio.sleep(taken.wait_s)
        else:
            # Until a job is added: BullMQ keeps a marker for exactly this.
            await self._client.bzpopmin(self._keys["marker"], taken.wait_s)
        return []

    async def settle(self, settled: Settled) -> None:
        """End each job's run. One that is gone meanwhile, or was given to another worker, stays as it is."""
        now_ms = machine_ms()
        ended = [self._finished(job, None) for job in settled.done]
        ended += [self._finished(job, reason) for job, reason in settled.failed]
        calls = [("moveToFinished", keys, args) for keys, args in ended]
        calls += [("moveToDelayed", *self._delayed(job, at_ms, now_ms)) for job, at_ms in settled.again]
        try:
            for chunk in _chunks(calls):
                async with self._client.pipeline(transaction=False) as pipe:
                    for script, keys, args in chunk:
                        await self._scripts.commands[script](keys=keys, args=args, client=pipe)
                    await pipe.execute()
        finally:
            self.forget()

    def forget(self) -> None:
        """Give up what was taken and not settled: others get it once its locks have lapsed."""
        self._held.clear()

    async def _take(self, count: int) -> _Taken:
        now_ms = machine_ms()
        async with self._client.pipeline(transaction=False) as pipe:
            for _ in range(count):
                await self._ask_for_one(pipe, now_ms)
            pipe.llen(self._keys["wait"])
            pipe.zcard(self._keys["prioritized"])
            *answers, waiting, prioritized = await pipe.execute()
        found = [raw2NextJobData(answer) for answer in answers]
        jobs = [_fired(raw, job_id) for raw, job_id, _, _ in found if raw]
        self._held.update(job.job_id for job in jobs)
        _, _, limited_ms, next_ms = found[-1]
        if limited_ms:
            return _Taken(jobs, 0, limited_ms / 1000, limited=True)
        wait_s = (next_ms - now_ms) / 1000 if next_ms else LONGEST_WAIT_S
        return _Taken(jobs, waiting + prioritized, min(max(wait_s, 0.001), LONGEST_WAIT_S))

    async def _ask_for_one(self, pipe: Any, now_ms: int) -> None:
        names = ["wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused", "meta", "pc"]
        options = {"token": self._token, "lockDuration": LOCK_MS, "limiter": self._limiter}
        args = [self._keys[""], now_ms, msgpack.packb(options, use_bin_type=True)]
        keys = self._scripts.getKeys([*names, "marker"])
        await self._scripts.commands["moveToActive"](keys=keys, args=args, client=pipe)

    def _finished(self, fired: FiredJob, failure: str | None) -> tuple[Any, Any]:
        job = Job(self._queue, fired.name, None, {"attempts": 1}, fired.job_id)
        job.attemptsMade = fired.attempts_made
        if failure is None:
            done: tuple[Any, Any] = self._scripts.moveToCompletedArgs(job, None, True, self._token, False)
            return done
        told = {"failedReason": failure, "stacktrace": "[]"}
        failed: tuple[Any, Any] = self._scripts.moveToFailedArgs(job, failure, KEEP_FAILED, self._token, False, told)
        return failed

    def _delayed(self, fired: FiredJob, at_ms: int, now_ms: int) -> tuple[Any, Any]:
        options = {"skipAttempt": True}  # holding is not failing
        delay_ms = max(at_ms - now_ms, 0)
        moved: tuple[Any, Any] = self._scripts.moveToDelayedArgs(fired.job_id, now_ms, self._token, delay_ms, options)
        return moved

    async def _renew_locks(self) -> None:
        held = sorted(self._held)
        if held:
            await self._scripts.extendJobLocks(held, [self._token] * len(held), LOCK_MS)

    async def _free_stalled(self) -> None:
        await self._scripts.moveStalledJobsToWait(MANY_TIMES, int(STALLED_CHECK_S * 1000))


def _fired(raw: dict[str, str], job_id: str) -> FiredJob:
    try:
        data = json.loads(raw.get("data") or "null")
    except (ValueError, RecursionError):
        data = None
    made = raw.get("atm") or raw.get("attemptsMade") or "0"
    return FiredJob(job_id, raw.get("name") or "", data, int(made) if ATTEMPTS.fullmatch(made) else 0)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))


async def _every(pause_s: float, chore: Any) -> None:
    while True:
        await asyncio.sleep(pause_s)
        try:
            await chore()
        except QUEUE_ERRORS:
            continue  # whoever takes jobs says so
        except Exception:
            log.exception("queue.round_failed")
