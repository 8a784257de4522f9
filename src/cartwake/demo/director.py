"""All of the demonstration together: a fresh database, real processes, the story, the summary, the verdict."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aiohttp
import psycopg
from rich.console import Console
from rich.text import Text

from cartwake import cluster
from cartwake.demo.ending import collect_report
from cartwake.demo.pace import Steering
from cartwake.demo.performance import Performance
from cartwake.demo.phone import PhoneError, Phones
from cartwake.demo.stage import Stage, set_stage
from cartwake.demo.storefront import Api, ApiRefused
from cartwake.demo.stories import Player
from cartwake.demo.summary import Report, print_summary
from cartwake.demo.traffic import Traffic, load_traffic
from cartwake.demo.view import View
from cartwake.kit.clock import VirtualClock
from cartwake.kit.config import Settings
from cartwake.kit.embedded import home_of
from cartwake.kit.logs import configure_logs
from cartwake.kit.runtime import Runtime, open_runtime, vault_of
from cartwake.trial import fresh_database

PACE = 240.0  # virtual seconds per real second while something happens
SETTING_UP_PACE = 1.0
AFTERWARDS_PACE = 60.0


@dataclass(frozen=True)
class Machine:
    """Everything that runs."""

    cluster: cluster.Cluster
    runtime: Runtime
    clock: VirtualClock
    api: Api
    phones: Phones
    logs: Path


@dataclass(frozen=True)
class Played:
    """A story that was played to its end."""

    stage: Stage
    report: Report
    first_text_s: float | None  # when the first text was accepted, by the machine's stopwatch


def run_demo(settings: Settings, *, once: bool, speed: float = PACE) -> int:
    """Play the traffic and show it; the exit code.

    `once`: end with the story, with 0 only if every story ended as written and no invariant is broken. Else
    everything keeps running until Ctrl-C, which ends it with 0 at any time. `speed`: how many times real time.
    """
    settings = settings.model_copy(update={"log_level": "warning"})  # the picture has the terminal to itself
    configure_logs(settings)
    console = Console(highlight=False)
    started_s = time.monotonic()
    try:
        console.print("Starting PostgreSQL, with a fresh database ...", style="dim")
        with cluster.database_server(settings) as server_url:
            url = fresh_database(server_url, vault_of(settings), "demo")
            return asyncio.run(_demo(settings, url, console, once=once, pace=speed, started_s=started_s))
    except (cluster.ClusterError, psycopg.Error) as error:
        console.print(Text(str(error), style="red"))
        return 1
    except KeyboardInterrupt:  # while the database was starting
        return 0


async def _demo(settings: Settings, url: str, console: Console, *, once: bool, pace: float, started_s: float) -> int:
    traffic = load_traffic()
    async with cluster.told_to_stop() as stop, _machine(settings, url, traffic.starts_at) as machine:
        console.print("Starting web, worker, scheduler and the sandbox carrier ...", style="dim")
        played = await cluster.unless(stop, _play(machine, traffic, console, pace))
        if played is None:
            return 0
        print_summary(console, played.report)
        _print_times(console, started_s, played.first_text_s)
        if once:
            return 0 if played.report.is_good else 1
        _print_addresses(console, machine, played.stage)
        await cluster.unless(stop, machine.cluster.died())
    return 0


async def _play(machine: Machine, traffic: Traffic, console: Console, pace: float) -> Played:
    """The story from the empty stage to its report."""
    await machine.cluster.wait_until_ready()
    stage = await set_stage(machine.runtime, machine.api, machine.phones, traffic)
    view = View(console, traffic, machine.clock, (_description(machine), _texts(machine)))
    player = Player(traffic, stage, machine.phones, machine.clock, view.tell)
    steering = Steering(machine.clock, pace)
    performance = Performance(machine.runtime, machine.cluster, traffic, player, steering, view)
    await performance.run()
    machine.clock.set_speed(AFTERWARDS_PACE)
    stories = list(player.stories.values())
    report = await collect_report(machine.runtime, traffic, stage, machine.phones, stories)
    return Played(stage, report, performance.first_text_s)


@asynccontextmanager
async def _machine(settings: Settings, url: str, starts_at: datetime) -> AsyncIterator[Machine]:
    """Every process, started but not yet ready, on a clock of the demonstration's own."""
    home = home_of(settings)
    clock_file = home / f"demo-{os.getpid()}.clock"
    clock = VirtualClock.create(clock_file, starts_at, SETTING_UP_PACE)
    web_port = cluster.free_port(settings.port)
    sandbox = cluster.sandbox_listener()
    web_url, sandbox_url = (f"http://{cluster.LOOPBACK}:{port}" for port in (web_port, cluster.port_of(sandbox)))
    environment = {
        "CARTWAKE_ENVIRONMENT": "development",
        "CARTWAKE_DATABASE_URL": url,
        "CARTWAKE_CLOCK": f"virtual:{clock_file}",
        "CARTWAKE_HOST": cluster.LOOPBACK,
        "CARTWAKE_PORT": str(web_port),
        "CARTWAKE_PUBLIC_URL": web_url,
        "CARTWAKE_TWILIO_API_BASE": sandbox_url,
        "CARTWAKE_REFUND_ON": "undelivered,failed",
    }
    processes = [
        cluster.sandbox_process(sandbox),
        *cluster.up_processes(web_port),
    ]
    logs = home / "logs" / "demo"
    try:
        async with (
            cluster.Cluster(logs, environment) as running,
            open_runtime(settings, url, clock=clock) as runtime,
            aiohttp.ClientSession() as http,
        ):
            await running.start(processes)
            async with _broken_off(running):
                yield Machine(running, runtime, clock, Api(web_url, http), Phones(sandbox_url, http), logs)
    finally:
        clock_file.unlink(missing_ok=True)


@asynccontextmanager
async def _broken_off(running: cluster.Cluster) -> AsyncIterator[None]:
    """Say why the story breaks off, when it does: mostly because a process died, which is noticed a little later."""
    try:
        yield
    except (aiohttp.ClientError, psycopg.Error, ApiRefused, PhoneError) as error:
        await asyncio.sleep(1)
        running.check()
        raise cluster.ClusterError(f"The story breaks off: {type(error).__name__}: {error}") from error


def _description(machine: Machine) -> str:
    return f"{machine.api.base_url}/docs"


def _texts(machine: Machine) -> str:
    return f"{machine.phones.sandbox_url}/sandbox/messages"


def _print_times(console: Console, started_s: float, first_text_s: float | None) -> None:
    took_s = time.monotonic() - started_s
    first = f"; the first text was accepted after {first_text_s - started_s:.0f} s" if first_text_s else ""
    console.print(Text(f"All of it took {took_s:.0f} s{first}.", style="dim"))


def _print_addresses(console: Console, machine: Machine, stage: Stage) -> None:
    shop = next(iter(stage.storefronts))
    lines = (
        ("the API", _description(machine)),
        ("texts, as the carrier has them", _texts(machine)),
        ("health", f"{machine.api.base_url}/readyz"),
        ("logs", str(machine.logs)),
        (f"a key of {shop}", stage.storefronts[shop].key),
        ("of the operator", stage.operator_key),
    )
    console.print(
        Text(f"\nEverything keeps running, at {AFTERWARDS_PACE:.0f} times real time. To look around:", style="bold")
    )
    for name, value in lines:
        console.print(Text.assemble((f"  {name:<32}", "dim"), value), soft_wrap=True)
    example = f"curl -H 'Authorization: Bearer {stage.storefronts[shop].key}' {machine.api.base_url}/v1/messages"
    console.print(Text.assemble(("  try\n", "dim"), f"    {example}"), soft_wrap=True)
    console.print(Text("Ctrl-C stops everything.", style="bold"))
