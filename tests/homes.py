"""Homes of embedded servers for tests, other processes that use them, and what to look at.

pytest keeps `tmp_path` below a folder that only we may enter, so as root these tests run in a home that
the server's own user cannot reach; `open_folder` is where it can.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import psycopg
import pytest

from cartwake.kit import embedded_home
from cartwake.kit.embedded import embedded_postgres

IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="only root has to switch users")

# Uses the server of a home until it is told to leave, and then just ends.
CLIENT = """
import os, sys
from pathlib import Path
from cartwake.kit.embedded import start_embedded
server = start_embedded(Path(sys.argv[1]), durable=False)
if os.fork() == 0:
    sys.exit()  # a fork that ends takes nothing from its parent
os.wait()
print(server.url, flush=True)
sys.stdin.readline()
"""


class Client:
    """Another process that uses the server of `home`; leaves in peace at the end of a `with` block."""

    def __init__(self, home: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-c", CLIENT, str(home)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.leave()

    def url(self) -> str:
        assert self.process.stdout is not None
        return next(line.strip() for line in self.process.stdout if line.startswith("postgresql://"))

    def leave(self) -> None:
        self.process.communicate("\n", timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def stopped_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded") / "home"
    with embedded_postgres(folder, durable=False):
        return folder


@pytest.fixture
def home(tmp_path: Path, stopped_home: Path) -> Path:
    """A home of its own for the test, whose server has run before: a copy takes a fraction of a first start."""
    subprocess.run(["cp", "-a", stopped_home, tmp_path / "home"], check=True)
    return tmp_path / "home"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cartwake-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def ask(url: str, query: str) -> object:
    """The first value that `query` gives, if it gives any."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def server_pid(home: Path) -> int:
    return int(json.loads((home / "server.json").read_text())["pid"])


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not condition():
        time.sleep(0.02)
    return condition()


def has_stopped(home: Path) -> bool:
    with closing(embedded_home.Home(home).lock("server.lock")) as lock:
        return lock.free()


def modes_above(path: Path) -> dict[Path, int]:
    return {parent: parent.stat().st_mode for parent in path.parents}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777
