"""The processes, each under supervision: whatever ends one, it is started again a moment later."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import aiohttp

LOOPBACK = "127.0.0.1"
RESTART_AFTER_S = 1.0  # at most
STOP_PATIENCE_S = 25.0
READY_TIMEOUT_S = 60.0
PR_SET_PDEATHSIG = 1


class Member:
    """One process of Cartwake that is kept running."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], logs: Path) -> None:
        self.name = name
        self.deaths: list[int] = []  # the statuses with which it ended though nobody had killed it
        self._arguments = arguments
        self._environment = environment
        self._log = logs / f"{name}.log"
        self._child: asyncio.subprocess.Process | None = None
        self._was_killed = self._is_stopping = False

    @property
    def is_up(self) -> bool:
        """Whether there is somebody to kill."""
        return self._child is not None and self._child.returncode is None

    @property
    def pid(self) -> int | None:
        """Its process id, while there is one."""
        return self._child.pid if self._child else None

    async def keep(self, rng: Random) -> None:
        """Start it, and start it again until `stop`."""
        while not self._is_stopping:
            self._child = await self._spawn()
            status = await self._child.wait()
            if not self._is_stopping and not (self._was_killed and status == -signal.SIGKILL):
                self.deaths.append(status)
            self._was_killed = False
            await asyncio.sleep(rng.uniform(0, RESTART_AFTER_S))

    async def kill(self) -> bool:
        """`kill -9`, at this very instant. Whether that is what it died of, and not of something else just before."""
        assert self._child is not None
        child, self._was_killed = self._child, True
        with suppress(ProcessLookupError):
            child.kill()
        return await child.wait() == -signal.SIGKILL

    async def stop(self) -> None:
        """Ask it to end, and see to it."""
        self._is_stopping = True
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), STOP_PATIENCE_S)
        except TimeoutError:
            self.deaths.append(-signal.SIGKILL)  # it would not stop
            child.kill()
            await child.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cartwake",
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                preexec_fn=_die_with_parent,
            )


class Machine:
    """All of them."""

    def __init__(self, members: Sequence[Member], rng: Random) -> None:
        self.members = members
        self._rng = rng
        self._keepers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Machine:
        self._keepers = [asyncio.create_task(member.keep(self._rng)) for member in self.members]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop every process in good order. Harmless to repeat."""
        await asyncio.gather(*(member.stop() for member in self.members))
        for keeper in self._keepers:
            keeper.cancel()

    async def wait_until_ready(self, urls: Sequence[str]) -> None:
        """Return once all of these answer. Raises `TimeoutError`."""
        async with asyncio.timeout(READY_TIMEOUT_S), aiohttp.ClientSession() as http:
            for url in urls:
                while not await _answers(http, url):
                    await asyncio.sleep(0.1)


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
            return answer.status < 500
    return False


def _die_with_parent() -> None:
    """Runs in the new process: should we be killed ourselves, so is it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def steady_port(first: int) -> int:
    """A free port from `first` on, below those that outgoing connections are given.

    Everybody knocks again and again at a server that was killed. On loopback, such a knock may be given the
    server's own port to come from, and it could not start again.
    """
    for port in range(first, first + 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise OSError(f"no port from {first} on is free")
