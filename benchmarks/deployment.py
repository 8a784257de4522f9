"""A durable database of its own for a benchmark, and what kind of machine it ran on."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from cartwake.kit.clock import Clock, VirtualClock
from cartwake.kit.config import Settings
from cartwake.kit.db import Connection
from cartwake.kit.embedded import embedded_postgres
from cartwake.kit.runtime import Runtime, open_runtime, vault_of
from cartwake.kit.schema import migrate

# A Tuesday at noon in Vilnius: every window is open.
NOON = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@asynccontextmanager
async def fresh_runtime(clock: Clock | None = None, **settings: object) -> AsyncIterator[tuple[Runtime, str]]:
    """A runtime on an empty, durable, embedded database, and its owner's address."""
    folder = Path(tempfile.mkdtemp(prefix="cartwake-bench-"))
    try:
        with embedded_postgres(folder) as server:
            made = Settings(**settings)  # type: ignore[arg-type]
            migrate(server.url, vault_of(made))
            running = clock or VirtualClock.create(folder / "clock", NOON, speed=1)
            async with open_runtime(made, server.url, clock=running) as runtime:
                yield runtime, server.url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def owner(url: str) -> AsyncIterator[Connection]:
    """A connection of the owner's, for writing a world in bulk."""
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as conn:
        yield conn


def machine() -> str:
    """One line about the machine: cores, kernel, Python, and how long a write to disk takes."""
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"fsync {fsync_ms():.2f} ms (median of 50)"
    )


def fsync_ms() -> float:
    """Median time of an 8 kB write with fsync, in milliseconds: what each commit waits for."""
    with tempfile.NamedTemporaryFile() as file:
        times = []
        for _ in range(50):
            start = time.perf_counter()
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return sorted(times)[25] * 1000
