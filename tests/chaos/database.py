"""A durable PostgreSQL that may be killed: Cartwake's own embedded one, started again by whoever killed it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import psycopg

from cartwake.kit.embedded import EmbeddedServer, start_embedded
from cartwake.kit.embedded_home import Home

SEEN_WITHIN_S = 5.0  # how long a main process takes at the most to notice that another has died
NAP_S = 0.02


class Database:
    """One server on one port, for as long as the `with` block lasts."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self._home = Home(folder)
        self._home.make()
        self._log = self._home.log_path
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

    async def kill(self) -> bool:
        """`kill -9` its main process, with which all others go; then start it again, on what the crash left.

        Whether it was there to be hit.
        """
        self.is_up = False
        is_hit = strike(self._pid())
        await asyncio.to_thread(self._start)
        return is_hit

    async def kill_backend(self, rng: Random) -> bool:
        """`kill -9` one of its other processes: it throws everybody out, recovers, and starts them again itself.

        Whether that is what it died of, as its main process saw it and wrote down: it may have ended by itself, or with
        all the others, in this very moment.
        """
        written = self._log.stat().st_size
        children = _children(self._pid())
        if not children or not strike(victim := rng.choice(children)):
            return False
        died = f"(PID {victim}) was terminated by signal {signal.SIGKILL.value}"
        deadline_s = time.monotonic() + SEEN_WITHIN_S
        while time.monotonic() < deadline_s:
            with self._log.open("rb") as log:
                log.seek(written)
                if died in log.read().decode(errors="replace"):
                    return True
            await asyncio.sleep(NAP_S)
        return False

    def settings(self) -> str:
        """What makes it durable, as the server says."""
        names = ["server_version", "fsync", "synchronous_commit", "full_page_writes"]
        with psycopg.connect(self.url) as conn:
            found = conn.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [names])
            return ", ".join(f"{name} {setting}" for name, setting in found)

    def _start(self) -> None:
        share = start_embedded(self.folder)
        if self.url and share.url != self.url:
            raise RuntimeError("PostgreSQL came back at another address")
        self._shares.append(share)
        self.url, self.is_up = share.url, True

    def _pid(self) -> int:
        _, pid = self._home.read_state()
        assert pid is not None
        return pid


def strike(pid: int) -> bool:
    """`kill -9`. Whether there was somebody to hit: what has ended and was not collected yet feels nothing."""
    with suppress(FileNotFoundError, ProcessLookupError):
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        os.kill(pid, signal.SIGKILL)
        return state not in ("Z", "X")
    return False


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
