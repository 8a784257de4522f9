"""What counts as a kill: a blow that hit somebody, and of which that one died."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import psycopg
import pytest

from chaos.database import Database, strike
from chaos.machine import Machine, Member, steady_port


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database(tmp_path_factory.mktemp("killed") / "postgres", steady_port(18_600)) as database:
        yield database


@pytest.mark.thorough
async def test_a_process_that_ended_by_itself_was_not_killed(tmp_path: Path) -> None:
    member = Member("one that ends", ("--version",), os.environ, tmp_path)
    async with Machine([member], Random(1)):
        while not member.is_up:
            await asyncio.sleep(0.01)
        assert member.pid is not None
        _wait_for_its_end(member.pid)
        assert member.is_up
        assert not await member.kill()


@pytest.mark.thorough
async def test_a_process_that_is_at_work_was_killed(tmp_path: Path) -> None:
    member = Member("one that goes on", ("sandbox", "--port", str(steady_port(18_700))), os.environ, tmp_path)
    async with Machine([member], Random(1)):
        while not member.is_up:
            await asyncio.sleep(0.01)
        assert await member.kill()
    assert member.deaths == []


def test_a_dead_process_feels_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    _wait_for_its_end(child.pid)
    assert not strike(child.pid)
    child.wait()
    assert not strike(child.pid)


@pytest.mark.thorough
async def test_one_of_the_databases_processes_was_killed_when_the_database_says_so(database: Database) -> None:
    assert await database.kill_backend(Random(1))
    assert "was terminated by signal 9" in (database.folder / "postgres.log").read_text()
    await _recovered(database)


@pytest.mark.thorough
async def test_the_database_was_killed_and_is_back(database: Database) -> None:
    assert await database.kill()
    await _recovered(database)


def _wait_for_its_end(pid: int) -> None:
    """It ends, and nobody else here is told: nothing else runs meanwhile."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def _recovered(database: Database) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(psycopg.OperationalError):
                async with await psycopg.AsyncConnection.connect(database.url) as conn:
                    await conn.execute("SELECT 1")
                    return
            await asyncio.sleep(0.05)
