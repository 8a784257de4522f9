"""What is wrong with the queue that is configured, and what to do: at start, and for `cartwake doctor`."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any, Literal

from cartwake.kit.config import Settings
from cartwake.kit.queues import QUEUE_NAMES

TIMEOUT_S = 5.0
# BullMQ's own requirement.
LEAST_VERSION = (6, 2)
PROBE_LIVES_S = 10


@dataclass(frozen=True)
class Finding:
    """Something to put right. An error keeps the queue from being used; a warning does not."""

    level: Literal["error", "warning"]
    problem: str
    advice: str


async def check_queue(settings: Settings) -> list[Finding]:
    """Everything wrong with the queue of `CARTWAKE_QUEUE`; nothing where PostgreSQL keeps the times.

    Connects, and writes one key that lives for seconds. Takes at most some seconds; shows no password.
    """
    url, prefix = settings.queue_url, settings.queue_prefix
    if url is None:
        return []
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

    options: dict[str, Any] = {"socket_connect_timeout": TIMEOUT_S, "socket_timeout": TIMEOUT_S}
    client = Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0), **options)
    try:
        await client.set(f"{prefix}:cartwake-check", "1", ex=PROBE_LIVES_S)
        paused = [name for name in QUEUE_NAMES.values() if await client.hexists(f"{prefix}:{name}:meta", "paused")]
        return _of_server(await client.info(), prefix) + [_paused(name) for name in paused]
    except (RedisError, OSError) as error:
        return [_of_error(error)]
    finally:
        await client.aclose()


def _paused(name: str) -> Finding:
    advice = "Resume it in the dashboard or the program that paused it; to stop texts there is `cartwake pause`."
    return Finding("error", f"The queue {name} is paused, so its jobs do not fire.", advice)


def _of_error(error: Exception) -> Finding:
    text, causes = str(error), _causes(error)
    for pattern, problem, advice in REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            return Finding("error", problem, advice)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes) or "certificate" in text.lower():
        advice = "Add ?ssl_ca_certs=/path/of/the/ca.pem to CARTWAKE_QUEUE, or name the host that the certificate names."
        return Finding("error", f"The queue's certificate is not trusted ({_short(text)}).", advice)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return Finding(
            "error", f"The queue's TLS failed ({_short(text)}).", "Is the port one for TLS? Else use redis://."
        )
    advice = "Start it, or correct CARTWAKE_QUEUE. Until it answers, texts go out by the database's times."
    return Finding("error", f"The queue does not answer ({_short(text)}).", advice)


# What servers answer, in their own words.
REFUSALS = (
    (
        r"NOAUTH|already authenticated|Authentication required",
        "The queue's password is missing.",
        "Put the password into CARTWAKE_QUEUE, as redis://:password@host:6379/0.",
    ),
    (
        r"WRONGPASS|invalid (username|password)",
        "The queue refuses the user or password.",
        "Correct them in CARTWAKE_QUEUE, as redis://user:password@host:6379/0; write special characters as %40 for @.",
    ),
    (
        r"NOPERM|no permissions",
        "The queue's user may not do what BullMQ needs.",
        "Give the user +@all -@dangerous +info +client, and ~PREFIX:* with the value of CARTWAKE_QUEUE_PREFIX.",
    ),
    (
        r"READONLY|read only replica",
        "The queue is a read-only replica.",
        "Name the primary in CARTWAKE_QUEUE.",
    ),
    (
        r"\bOOM\b|used memory > 'maxmemory'",
        "The queue's memory is full and it takes no writes.",
        "Raise its maxmemory, or remove what else lives there.",
    ),
    (
        r"NOREPLICAS",
        "The queue has too few replicas and takes no writes.",
        "Bring its replicas back, or lower its min-replicas-to-write.",
    ),
    (
        r"CLUSTERDOWN|Hash slot not served|MOVED|CROSSSLOT",
        "The queue is a cluster that does not answer for all of its keys.",
        "Mend the cluster, and set CARTWAKE_QUEUE_PREFIX={bull}: braces keep a queue's keys on one node.",
    ),
    (
        r"MISCONF",
        "The queue cannot write to its disk and takes no writes.",
        "Free space on its disk, or see its log.",
    ),
)


def _of_server(info: dict[str, Any], prefix: str) -> list[Finding]:
    found: list[Finding] = []
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST_VERSION:
        found.append(Finding("error", f"The queue is Redis {version}.", "BullMQ needs 6.2 or newer, or Valkey."))
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        advice = "Set maxmemory-policy noeviction. Jobs that are evicted come back with the next scan, minutes late."
        found.append(Finding("warning", f"The queue may evict jobs (maxmemory-policy {policy}).", advice))
    if not info.get("aof_enabled"):
        advice = "Set appendonly yes. Jobs that are lost come back with the next scan, minutes late."
        found.append(Finding("warning", "The queue forgets its jobs when it restarts (appendonly no).", advice))
    if info.get("cluster_enabled") and not re.search(r"\{[^}]+\}", prefix):
        advice = "Set CARTWAKE_QUEUE_PREFIX={bull}: braces keep a queue's keys on one node."
        found.append(Finding("error", "The queue is a cluster and its keys would be spread over it.", advice))
    return found


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _short(text: str) -> str:
    return text.strip().rstrip(".")[:200]
