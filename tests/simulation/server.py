"""The real server, asked and held: who waits for whom, and stopping those who wait.

When a transaction ends, the server lets everybody who waited for it go on at once, and who is first from there
on is chance. So a server's process that waits for a lock is stopped (SIGSTOP) while it waits, and they are let
go on (SIGCONT) one after the other. Only processes that serve this very database are ever touched; where they
cannot be reached (another machine, another user), stories with such races may differ from run to run.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

TERMINATE_S = 30.0


class Server:
    """The side door: a superuser's connection to the story's database."""

    def __init__(self, url: str) -> None:
        self.conn: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(url, autocommit=True)
        self._database = self.conn.info.dbname
        self._stopped: set[int] = set()

    def close(self) -> None:
        """Let everybody go on, and leave."""
        for pid in list(self._stopped):
            self.go_on(pid)
        self.conn.close()

    def holders(self, pids: Iterable[int]) -> dict[int, frozenset[int]]:
        """Whom each of these waits for; nobody when it is not waiting for a lock."""
        asked = self.conn.execute("SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS s (pid)", [list(pids)])
        return {pid: frozenset(holders) for pid, holders in asked.fetchall()}

    def stop(self, pid: int) -> None:
        """Stop a process that waits for a lock."""
        if pid not in self._stopped and self._is_ours(pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
                self._stopped.add(pid)

    def go_on(self, pid: int) -> None:
        """Let it go on."""
        if pid in self._stopped:
            self._stopped.remove(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def terminate(self, pid: int) -> None:
        """End a session, and return when it is gone with all its locks."""
        self.conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        self.go_on(pid)
        # PostgreSQL's own way to wait for it takes 0.1 s each time, and a story does so a hundred times.
        deadline_s = time.monotonic() + TERMINATE_S
        while self.conn.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the session of process {pid} does not end")
            time.sleep(0.0005)

    def _is_ours(self, pid: int) -> bool:
        """Whether a process of this machine serves this database: PostgreSQL writes that on it."""
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return False
        return title.startswith("postgres:") and self._database in title
