"""Commands that run something until it is told to stop."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from cartwake.cli.plumbing import (
    PATIENCE_S,
    carrier_of,
    database,
    ready_database,
    run_until_signal,
    say_what_ails_the_queue,
    settings_and_logs,
)
from cartwake.kit.runtime import Runtime, vault_of

app = typer.Typer()


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="Play every story to its end, check it, and exit.")] = False,
) -> None:
    """Play a week of cross-border traffic on a virtual clock, with everything running on this machine."""
    from cartwake.demo.director import run_demo

    raise typer.Exit(run_demo(settings_and_logs(), once=once))


@app.command()
def up(
    speed: Annotated[
        float | None,
        typer.Option(min=1, max=300, help="For trying things: a clock so many times as fast, from a Tuesday at ten."),
    ] = None,
) -> None:
    """Start database, web, worker, scheduler and sandbox carrier on this machine, until Ctrl-C."""
    from cartwake.cluster import run_up

    raise typer.Exit(run_up(settings_and_logs(), speed))


@app.command()
def serve() -> None:
    """Run a web process: API, webhooks, short links."""
    from cartwake.web.server import run as run_web

    settings = settings_and_logs()
    with ready_database(settings, PATIENCE_S) as url:
        run_web(settings, url)


@app.command()
def worker() -> None:
    """Run a worker process: sends what is due, works off what the carrier reports."""
    from cartwake.timekeeping import open_trigger
    from cartwake.worker import run_worker

    async def work(runtime: Runtime, stop: asyncio.Event) -> None:
        say_what_ails_the_queue(runtime.settings)
        async with carrier_of(runtime.settings) as carrier:
            trigger = open_trigger(runtime, stop)
            try:
                await run_worker(runtime, carrier, trigger, stop)
            finally:
                await trigger.close()

    run_until_signal(work)


@app.command()
def scheduler() -> None:
    """Run a scheduler process: the abandonment scan and everything else that is periodic."""
    from cartwake.scheduler import run_scheduler

    async def schedule(runtime: Runtime, stop: asyncio.Event) -> None:
        say_what_ails_the_queue(runtime.settings)
        async with carrier_of(runtime.settings) as carrier:
            if runtime.settings.queue_url is None:
                await run_scheduler(runtime, carrier, stop)
            else:
                from cartwake.maintenance import run_queued_scheduler

                await run_queued_scheduler(runtime, carrier, stop)

    run_until_signal(schedule)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def sandbox(context: typer.Context) -> None:
    """Run the sandbox: a Twilio-compatible carrier in memory (`cartwake sandbox --help`)."""
    from cartwake.carriers.sandbox.__main__ import main as run_sandbox

    settings_and_logs()
    sys.argv = ["cartwake sandbox", *context.args]
    run_sandbox()


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema, and set the passwords of its logins."""
    from cartwake.kit.schema import expected_revision
    from cartwake.kit.schema import migrate as run_migrations

    settings = settings_and_logs()
    with database(settings) as url:
        run_migrations(url, vault_of(settings))
        typer.echo(f"The database is at revision {expected_revision()}.")
