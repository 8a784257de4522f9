"""`/metrics` of a process: on a port of its own, so that the public one has no such page.

A scrape can hurt nothing: the database is read one query at a time with a limit on each and on all of them, by
one reader however many ask, and what was read is kept for twenty times as long as it took.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import structlog
from aiohttp import web

from cartwake.kit import metrics
from cartwake.kit.config import Settings
from cartwake.kit.db import ENGINE
from cartwake.kit.listen import open_port
from cartwake.kit.metrics import Sample
from cartwake.kit.runtime import Runtime
from cartwake.observe.gauges import GROUPS, groups_read

log = structlog.get_logger()

QUERY_LIMIT_MS = 2000
READ_WITHIN_S = 5.0
# What was read is shown for so long, and for so many times as long as reading it took.
KEEP_S = 5.0
KEEP_TIMES = 20

Samples = Callable[[], Awaitable[list[Sample]]]


def _may_scrape(settings: Settings, authorization: str) -> bool:
    """Whether this `Authorization` header opens /metrics; with no token set, everything that gets here does."""
    if settings.metrics_token is None:
        return True
    expected = f"Bearer {settings.metrics_token.get_secret_value()}"
    return hmac.compare_digest(authorization.encode("utf-8", "surrogateescape"), expected.encode())


@asynccontextmanager
async def exporting(runtime: Runtime, process: str, samples: Samples | None = None) -> AsyncIterator[int]:
    """Serve `/metrics` while the block lasts, where a port is set; that port (0: none).

    Raises `CannotListenError` when the port cannot be had: every process on a machine needs its own.
    """
    settings = runtime.settings
    if not settings.metrics_port:
        yield 0
        return
    runner = web.AppRunner(_application(runtime, process, samples), access_log=None)
    await runner.setup()
    try:
        host, port = settings.metrics_host, settings.metrics_port
        await web.SockSite(runner, open_port(host, port, "CARTWAKE_METRICS_PORT", "CARTWAKE_METRICS_HOST")).start()
        log.info("metrics.serving", host=host, port=port)
        yield port
    finally:
        await runner.cleanup()


def _application(runtime: Runtime, process: str, samples: Samples | None) -> web.Application:
    async def metrics_page(request: web.Request) -> web.Response:
        if not _may_scrape(runtime.settings, request.headers.get("Authorization", "")):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"}, text="Send the metrics token.\n")
        read = await samples() if samples else []
        body, media_type = metrics.page(process, runtime.db, request.headers.get("Accept", ""), read)
        return web.Response(body=body, headers={"Content-Type": media_type})

    app = web.Application()
    app.router.add_get("/metrics", metrics_page)
    return app


@dataclass
class _Kept:
    samples: list[Sample] | None  # None: could not be read
    until_s: float  # of the machine's stopwatch


class DatabaseGauges:
    """Reads the gauges of the database, not more often than is good for it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._kept: dict[str, _Kept] = {}
        self._reading = asyncio.Lock()

    async def read(self) -> list[Sample]:
        """Every group that can be read; what cannot is left out, so that nothing old looks like the present."""
        async with self._reading:
            try:
                async with asyncio.timeout(READ_WITHIN_S):
                    for group in GROUPS:
                        await self._refresh(group)
            except TimeoutError:
                log.warning("metrics.database_slow", within_s=READ_WITHIN_S)
        fresh = {group: kept for group, kept in self._kept.items() if time.perf_counter() < kept.until_s}
        samples = [sample for kept in fresh.values() for sample in kept.samples or ()]
        return samples + groups_read(group for group, kept in fresh.items() if kept.samples is not None)

    async def _refresh(self, group: str) -> None:
        began_s = time.perf_counter()
        kept = self._kept.get(group)
        if kept and began_s < kept.until_s:
            return
        samples: list[Sample] | None = None
        try:
            async with self._runtime.db.transaction(ENGINE) as conn:
                await conn.execute("SELECT set_config('statement_timeout', %s, true)", [str(QUERY_LIMIT_MS)])
                samples = await GROUPS[group](conn, self._runtime.clock.now())
        except psycopg.Error as error:
            log.warning("metrics.not_read", group=group, error=type(error).__name__)
        now_s = time.perf_counter()
        self._kept[group] = _Kept(samples, now_s + max(KEEP_S, KEEP_TIMES * (now_s - began_s)))
