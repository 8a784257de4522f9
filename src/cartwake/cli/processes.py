"""Commands that run something until it is told to stop."""

from __future__ import annotations

import asyncio
import runpy
import sys
from pathlib import Path
from typing import Annotated

import psycopg
import structlog
import typer

from cartwake.cli.plumbing import (
    PATIENCE_S,
    RUN,
    TRY,
    carrier_of,
    database,
    fail,
    ready_database,
    run_until_signal,
    say_what_ails_the_queue,
    settings_and_logs,
)
from cartwake.kit.db import ailment
from cartwake.kit.runtime import Runtime, vault_of
from cartwake.kit.tracing import tracing

app = typer.Typer()
log = structlog.get_logger()


@app.command(rich_help_panel=TRY)
def demo(
    once: Annotated[bool, typer.Option(help="Play every story to its end, check it, and exit.")] = False,
) -> None:
    """Play a week of cross-border traffic on a virtual clock, with everything running on this machine."""
    from cartwake.demo.director import run_demo

    raise typer.Exit(run_demo(settings_and_logs(), once=once))


@app.command(rich_help_panel=TRY)
def up(
    speed: Annotated[
        float | None,
        typer.Option(min=1, max=300, help="For trying things: a clock so many times as fast, from a Tuesday at ten."),
    ] = None,
) -> None:
    """Start database, web, worker, scheduler and sandbox carrier on this machine, until Ctrl-C."""
    from cartwake.cluster import run_up

    raise typer.Exit(run_up(settings_and_logs(), speed))


@app.command(rich_help_panel=RUN)
def serve() -> None:
    """Run a web process: API, webhooks, short links."""
    from cartwake.web.server import run as run_web

    settings = settings_and_logs()
    with ready_database(settings, PATIENCE_S) as url:
        run_web(settings, url)


@app.command(rich_help_panel=RUN)
def worker() -> None:
    """Run a worker process: sends what is due, works off what the carrier reports."""
    from cartwake.observe.carrier import ObservedCarrier
    from cartwake.observe.exporter import exporting
    from cartwake.timekeeping import open_trigger
    from cartwake.worker import living, run_worker

    async def work(runtime: Runtime, stop: asyncio.Event) -> None:
        await say_what_ails_the_queue(runtime.settings)
        with tracing(runtime.settings, "worker"):
            async with (
                exporting(runtime, "worker"),
                carrier_of(runtime.settings) as carrier,
                living(runtime),
            ):
                log.info("process.started", process="worker")
                trigger = open_trigger(runtime, stop)
                try:
                    await run_worker(runtime, ObservedCarrier(carrier), trigger, stop)
                finally:
                    await trigger.close()

    run_until_signal(work)


@app.command(rich_help_panel=RUN)
def scheduler() -> None:
    """Run a scheduler process: the abandonment scan and everything else that is periodic."""
    from cartwake.observe.carrier import ObservedCarrier
    from cartwake.observe.exporter import DatabaseGauges, exporting
    from cartwake.scheduler import run_scheduler

    async def schedule(runtime: Runtime, stop: asyncio.Event) -> None:
        await say_what_ails_the_queue(runtime.settings)
        gauges = DatabaseGauges(runtime)
        with tracing(runtime.settings, "scheduler"):
            async with exporting(runtime, "scheduler", gauges.read), carrier_of(runtime.settings) as carrier:
                log.info("process.started", process="scheduler")
                if runtime.settings.queue_url is None:
                    await run_scheduler(runtime, ObservedCarrier(carrier), stop)
                else:
                    from cartwake.maintenance import run_queued_scheduler

                    await run_queued_scheduler(runtime, ObservedCarrier(carrier), stop)

    run_until_signal(schedule)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
    rich_help_panel=TRY,
)
def sandbox(context: typer.Context) -> None:
    """Run the sandbox: a Twilio-compatible carrier in memory (`cartwake sandbox --help`)."""
    from cartwake.carriers.sandbox.__main__ import main as run_sandbox

    settings_and_logs()
    sys.argv = ["cartwake sandbox", *context.args]
    run_sandbox()


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
    rich_help_panel=TRY,
)
def bench(context: typer.Context) -> None:
    """Measure on this machine, against a reference in the same run (`cartwake bench`, or `cartwake bench NAME`).

    The measurements come with the source, not with the installed package.
    """
    source = Path(__file__).parents[3]
    if not (source / "benchmarks" / "__main__.py").is_file():
        fail("The benchmarks come with Cartwake's source: get it, and run `make bench` there.")
    sys.path.insert(0, str(source))
    sys.argv = ["cartwake bench", *context.args]
    runpy.run_module("benchmarks", run_name="__main__")


@app.command(rich_help_panel=RUN)
def migrate() -> None:
    """Bring the database to this version's schema, and set the passwords of its logins."""
    from sqlalchemy.exc import DBAPIError

    from cartwake.kit.schema import expected_revision
    from cartwake.kit.schema import migrate as run_migrations

    settings = settings_and_logs()
    with database(settings, create=True) as url:
        try:
            revision = run_migrations(url, vault_of(settings))
        except psycopg.OperationalError as error:
            advice = ailment(error) or _owner_advice(str(error))
            fail(f"The database cannot be used: {str(error).strip()}\n{advice}")
        except (psycopg.errors.InsufficientPrivilege, DBAPIError) as error:
            said = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
            fail(
                f"The login of CARTWAKE_DATABASE_URL may not do this: {said}\n"
                "It must own the database and be allowed to create roles (ALTER ROLE … CREATEROLE)."
            )
        newer = revision != expected_revision()
        more = ", newer than this version of Cartwake knows; nothing was to be done" if newer else ""
        typer.echo(f"The database is at revision {revision}{more}.")


def _owner_advice(said: str) -> str:
    """What to do when the owner's address does not lead to a database."""
    if "no password supplied" in said:
        return "Migrating needs the owner's login: its user and password in CARTWAKE_DATABASE_URL (or _FILE)."
    if "authentication failed" in said:
        return "Correct the user or the password in CARTWAKE_DATABASE_URL (or _FILE)."
    if "does not exist" in said:
        return "Make it (createdb --owner=LOGIN NAME), or correct the name in CARTWAKE_DATABASE_URL (or _FILE)."
    return "Start it, or correct CARTWAKE_DATABASE_URL (or _FILE)."
