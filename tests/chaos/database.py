"""A durable PostgreSQL that may be killed: Cartwake's own embedded one, started again by whoever killed it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from random import Random

import psycopg

from cartwake.kit.embedded import EmbeddedServer, start_embedded
from cartwake.kit.embedded_home import Home


class Database:
    """One server on one port, for as long as the `with` block lasts."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._home = Home(folder)
        self._home.make()
        self._home.write_state(port, os.getpid())  # the port that it had last time, as it will believe
        self._shares: list[EmbeddedServer] = []
        self.is_up = False
        self.url = ""

    def __enter__(self) -> Database:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for share in self._shares:
            share.release()

    async def kill(self) -> None:
        """`kill -9` its main process, with which all others go; then start it again, on what the crash left."""
        self.is_up = False
        os.kill(self._pid(), signal.SIGKILL)
        await asyncio.to_thread(self._start)

    async def kill_backend(self, rng: Random) -> None:
        """`kill -9` one of its other processes: it throws everybody out, recovers, and starts them again itself."""
        with suppress(ProcessLookupError):  # ended by itself in this very moment
            os.kill(rng.choice(_children(self._pid())), signal.SIGKILL)

    def settings(self) -> str:
        """What makes it durable, as the server says."""
        names = ["server_version", "fsync", "synchronous_commit", "full_page_writes"]
        with psycopg.connect(self.url) as conn:
            found = conn.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [names])
            return ", ".join(f"{name} {setting}" for name, setting in found)

    def _start(self) -> None:
        share = start_embedded(self._folder)
        if self.url and share.url != self.url:
            raise RuntimeError("PostgreSQL came back at another address")
        self._shares.append(share)
        self.url, self.is_up = share.url, True

    def _pid(self) -> int:
        _, pid = self._home.read_state()
        assert pid is not None
        return pid


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
