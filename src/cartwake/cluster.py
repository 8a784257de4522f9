"""Cartwake's processes on one machine: started together, watched, and stopped together.

`cartwake up` and the demonstration use it. In production something else does this (systemd, containers):
nothing here is needed by any process.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import aiohttp
import psycopg

from cartwake.kit.clock import VirtualClock
from cartwake.kit.config import Settings
from cartwake.kit.embedded import EmbeddedPostgresError, embedded_postgres, home_of
from cartwake.kit.listen import CannotListenError, open_port
from cartwake.kit.runtime import vault_of
from cartwake.kit.schema import migrate
from cartwake.trial import fresh_database, write_environment

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
SANDBOX_PORT = 8090
READY_TIMEOUT_S = 60.0
READY_NAP_S = 0.05
# Longer than the web process gives requests under way; after it, SIGKILL.
STOP_PATIENCE_S = 25.0
LOG_TAIL_LINES = 15


class ClusterError(Exception):
    """A process could not be started, or died; the message says which, and the end of what it logged."""


@dataclass(frozen=True)
class Process:
    """One process of Cartwake: the words after `cartwake`, and where it answers once it is up."""

    name: str
    arguments: tuple[str, ...]
    ready_url: str | None = None  # 200: it can be used
    environment: Mapping[str, str] = field(default_factory=dict)  # its own, beside what all of them share
    listener: socket.socket | None = None  # the port it is to serve, open already and handed on


@dataclass(frozen=True)
class _Running:
    process: Process
    child: asyncio.subprocess.Process
    log: Path


class Cluster:
    """Processes that share one environment. Leaving the `async with` block stops them all."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """`logs`: a folder for one file per process; `environment` is added to our own."""
        self._logs = logs
        # What is given here replaces a secret's file too: to have both is refused.
        inherited = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in environment}
        self._environment = {**inherited, **environment, "PYTHONUNBUFFERED": "1"}
        self._running: list[_Running] = []

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, processes: Sequence[Process]) -> None:
        """Start every process; `wait_until_ready` says when they can be used."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for process in processes:
            path = self._logs / f"{process.name}.log"
            with path.open("wb") as log:
                self._running.append(_Running(process, await self._spawn(process, log), path))
            if process.listener is not None:
                process.listener.close()  # the child's alone from here on

    async def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once every process answers that can. Raises `ClusterError` when one dies or takes too long."""
        waiting = [each.process for each in self._running if each.process.ready_url]
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
            while waiting:
                self.check()
                waiting = [process for process in waiting if not await _answers(http, process)]
                if waiting and asyncio.get_running_loop().time() > deadline:
                    log = next(each.log for each in self._running if each.process is waiting[0])
                    raise ClusterError(f"{waiting[0].name} did not answer within {timeout_s:.0f} s. {_tail(log)}")
                await asyncio.sleep(READY_NAP_S)

    def check(self) -> None:
        """Raise `ClusterError` when a process has died."""
        for each in self._running:
            if each.child.returncode is not None:
                raise ClusterError(
                    f"The {each.process.name} process ended with status {each.child.returncode}. {_tail(each.log)}"
                )

    async def died(self) -> None:
        """Wait until a process dies, which none should, and raise `ClusterError` about it."""
        waits = [asyncio.create_task(each.child.wait()) for each in self._running]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self.check()

    async def stop(self) -> None:
        """Ask every process to end, wait for it, and kill those that do not. Harmless to repeat."""
        for each in self._running:
            _signal(each.child, signal.SIGTERM)
        ends = [asyncio.create_task(each.child.wait()) for each in self._running]
        if ends:
            _, late = await asyncio.wait(ends, timeout=STOP_PATIENCE_S)
            for each in self._running if late else ():
                _signal(each.child, signal.SIGKILL)
            await asyncio.gather(*ends)
        self._running.clear()

    async def _spawn(self, process: Process, log: IO[bytes]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cartwake",
            *process.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**self._environment, **process.environment},
            pass_fds=() if process.listener is None else (process.listener.fileno(),),
            start_new_session=True,  # Ctrl-C in the terminal is for us, who stop them in good order
        )


async def _answers(http: aiohttp.ClientSession, process: Process) -> bool:
    assert process.ready_url is not None
    try:
        async with http.get(process.ready_url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _signal(child: asyncio.subprocess.Process, which: signal.Signals) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(which)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return f"The end of {log}:\n" + "\n".join(lines)


# --- what the processes need ------------------------------------------------------------------------


@contextlib.contextmanager
def database_server(settings: Settings) -> Iterator[str]:
    """Address of the configured database, or of the embedded server's while it is needed.

    Raises `ClusterError` when the embedded one cannot be used.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    try:
        with embedded_postgres(settings.data_dir) as server:
            yield server.url
    except EmbeddedPostgresError as error:
        raise ClusterError(str(error)) from error


def free_port(wish: int) -> int:
    """`wish` if nobody listens there, else any free port of the loopback address."""
    for port in (wish, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As servers do: a port whose last connections linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port_of(probe)
    raise ClusterError("No port of 127.0.0.1 is free.")


def web_process(port: int, metrics_port: int = 0) -> Process:
    return Process("web", ("serve",), f"http://{LOOPBACK}:{port}/readyz", _serving_metrics(metrics_port))


def sandbox_listener() -> socket.socket:
    """The sandbox's port, open: its usual one, or a free one where another deployment has that."""
    try:
        return open_port(LOOPBACK, SANDBOX_PORT, "")
    except CannotListenError:
        return open_port(LOOPBACK, 0, "")


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def sandbox_process(listener: socket.socket) -> Process:
    words = ("sandbox", "--listener-fd", str(listener.fileno()))
    return Process("sandbox", words, f"http://{LOOPBACK}:{port_of(listener)}/sandbox/counts", listener=listener)


def engine_processes(metrics_port: int = 0) -> list[Process]:
    """Worker and scheduler. `metrics_port`: the worker's; the scheduler takes the next one. 0: none."""
    return [
        Process(name, (name,), environment=_serving_metrics(metrics_port and metrics_port + number))
        for number, name in enumerate(("worker", "scheduler"))
    ]


def _serving_metrics(port: int) -> dict[str, str]:
    return {"CARTWAKE_METRICS_PORT": str(port)}


@contextlib.asynccontextmanager
async def told_to_stop() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C, SIGTERM or a closed terminal sets, instead of ending this process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for which in signals:
        loop.add_signal_handler(which, stop.set)
    try:
        yield stop
    finally:
        for which in signals:
            loop.remove_signal_handler(which)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; None when `stop` is set first, which breaks it off. Raises what `work` raises."""
    task, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        task.cancel()  # which does nothing to one that is done
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


# --- cartwake up ------------------------------------------------------------------------------------


# Where the clock of `cartwake up --speed` begins: a Tuesday, 10:00 in Helsinki and Vilnius.
TUESDAY_AT_TEN = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Raise `ClusterError` when `cartwake up` already runs on this data folder: its clock and logs are there."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock_file = (home / "up.lock").open("w")
    except OSError as error:
        raise ClusterError(
            f"{home} cannot be written to: {os.strerror(error.errno or 0)}. Set CARTWAKE_DATA_DIR to a folder of yours."
        ) from None
    with lock_file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"`cartwake up` already runs on {home}. Stop it, or set CARTWAKE_DATA_DIR and CARTWAKE_PORT to others."
            ) from None
        yield


def run_up(settings: Settings, speed: float | None = None) -> int:
    """Run everything on this machine until told to stop; the exit code.

    `speed`: for trying things, so many times as fast as the real clock, on a clock and a database that are
    made anew each time. `trial.env` in the data folder lets commands in another terminal join a run with the sandbox.
    """
    try:
        with alone(home_of(settings)):
            _require_ports(settings)
            with database_server(settings) as server_url:
                settings, environment, sandbox = _prepared(settings, server_url, speed)
                names = asyncio.run(_up(settings, environment, sandbox))
    except (CannotListenError, ClusterError, psycopg.Error) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while the database was starting
        names = []
    if settings.database_url is None:
        names.append("the embedded database")
    print(f"Stopped: {', '.join(names) or 'nothing had started'}.")
    return 0


def _require_ports(settings: Settings) -> None:
    """Raise `CannotListenError` for a port that somebody else has, before anything is made."""
    open_port(settings.host, settings.port, "CARTWAKE_PORT", "CARTWAKE_HOST").close()
    for number in range(3 if settings.metrics_port else 0):  # worker, scheduler, web
        port = settings.metrics_port + number
        open_port(settings.metrics_host, port, "CARTWAKE_METRICS_PORT (it and the next two)").close()


def _prepared(
    settings: Settings, server_url: str, speed: float | None
) -> tuple[Settings, dict[str, str], socket.socket | None]:
    """A migrated database; the settings and environment that lead to it; and the sandbox's port if it is to run.

    With `speed`: a clock and a database made anew.
    """
    home, url = home_of(settings), server_url
    if speed is None:
        migrate(url, vault_of(settings))
    else:
        VirtualClock.create(home / "clock", TUESDAY_AT_TEN, speed)
        settings = settings.model_copy(update={"clock": f"virtual:{home / 'clock'}"})
        url = fresh_database(server_url, vault_of(settings), "trial")
    # An operator who names a carrier has one; everybody else gets the sandbox.
    sandbox = None if "twilio_api_base" in settings.model_fields_set else sandbox_listener()
    environment = _environment(settings, url, port_of(sandbox) if sandbox else None)
    if sandbox is not None or speed is not None:  # nobody knows these addresses from settings of their own
        write_environment(home / "trial.env", environment)
    return settings, environment, sandbox


def _environment(settings: Settings, url: str, sandbox_port: int | None) -> dict[str, str]:
    """What all processes share, and what a command needs that joins them."""
    environment = {"CARTWAKE_DATABASE_URL": url, "CARTWAKE_CLOCK": settings.clock}
    if "public_url" not in settings.model_fields_set:
        environment["CARTWAKE_PUBLIC_URL"] = f"http://{LOOPBACK}:{settings.port}"
    if sandbox_port is not None:
        environment["CARTWAKE_TWILIO_API_BASE"] = f"http://{LOOPBACK}:{sandbox_port}"
    return environment


def up_processes(port: int, metrics_port: int = 0) -> list[Process]:
    """Web, worker and scheduler. `metrics_port`: the worker's; the scheduler and the web take the next two. 0: none."""
    return [web_process(port, metrics_port and metrics_port + 2), *engine_processes(metrics_port)]


async def _up(settings: Settings, environment: Mapping[str, str], sandbox: socket.socket | None) -> list[str]:
    """Run every process until told to stop; their names."""
    public_url = environment.get("CARTWAKE_PUBLIC_URL", settings.public_url)
    processes = up_processes(settings.port, settings.metrics_port)
    sandbox_port = port_of(sandbox) if sandbox else None
    if sandbox is not None:
        processes.insert(0, sandbox_process(sandbox))
    async with told_to_stop() as stop, Cluster(home_of(settings) / "logs", environment) as cluster:
        await cluster.start(processes)
        await unless(stop, cluster.wait_until_ready())
        if not stop.is_set():
            _print_addresses(settings, public_url, sandbox_port)
            await unless(stop, cluster.died())
        print("\nStopping ...", flush=True)
    return [process.name for process in processes]


def _print_addresses(settings: Settings, public_url: str, sandbox_port: int | None) -> None:
    home = home_of(settings)
    print(f"Cartwake is up.\n  API       {public_url}/docs\n  health    {public_url}/readyz")
    if sandbox_port is not None:
        elsewhere = "" if sandbox_port == SANDBOX_PORT else f" (port {SANDBOX_PORT} is in use)"
        print(f"  sandbox   http://{LOOPBACK}:{sandbox_port}/sandbox/messages{elsewhere}")
    if port := settings.metrics_port:
        print(f"  metrics   http://{LOOPBACK}:{port}/metrics of the worker, {port + 1} scheduler, {port + 2} web")
    print(f"  logs      {home / 'logs'}")
    if (home / "trial.env").exists():
        print(f"In another terminal: source {shlex.quote(str(home / 'trial.env'))}")
    print("Make an operator key with `cartwake key operator`. Ctrl-C stops everything.")
    sys.stdout.flush()
