"""Receipts and replies that could not be applied: looking at them, trying again, letting go."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from cartwake.cli.plumbing import as_engine, shown
from cartwake.kit.db import Connection
from cartwake.kit.runtime import Runtime

events_app = typer.Typer(help="Receipts and replies that could not be applied.", no_args_is_help=True)

PAGE = 100


@events_app.command("list")
def list_events() -> None:
    """List receipts and replies that were set aside, newest first: what each says, since when, and what went wrong."""
    from cartwake.messages.aside import list_set_aside

    async def show(runtime: Runtime, conn: Connection) -> None:
        before, count, stops = None, 0, 0
        while page := await list_set_aside(conn, runtime.vault, before=before, limit=PAGE):
            for each in page:
                typer.echo(
                    f"{each.event_id}  {each.received_at:%Y-%m-%d %H:%M:%S} UTC  {each.outcome:<10} "
                    f"{each.error or '':<16} {shown(each.about)}"
                )
            count, stops, before = count + len(page), stops + sum(each.is_stop for each in page), page[-1].event_id
        typer.echo(f"{count} set aside, {stops} of them a STOP that is not heard yet.")
        if count:
            typer.echo(
                "The worker's log has the place of each error (worker.event_set_aside). Mend it, then\n"
                "`cartwake events retry`; one that nobody needs any more goes with `cartwake events dismiss EVENT`."
            )

    as_engine(show)


@events_app.command("retry")
def retry(
    event_id: Annotated[UUID | None, typer.Argument(help="This one alone; all of them unless given.")] = None,
) -> None:
    """Let a worker try again what was set aside. What fails again is set aside again."""
    from cartwake.messages.aside import put_back

    async def act(_runtime: Runtime, conn: Connection) -> None:
        count = await put_back(conn, event_id)
        typer.echo(f"{count} will be tried again; look with `cartwake events list`.")

    as_engine(act)


@events_app.command("dismiss")
def dismiss_event(event_id: Annotated[UUID, typer.Argument()]) -> None:
    """Give up one that was set aside: it is kept, and never applied. A STOP: withdraw the consent by API instead."""
    from cartwake.messages.aside import dismiss

    async def act(runtime: Runtime, conn: Connection) -> None:
        await dismiss(conn, runtime.clock.now(), event_id)
        typer.echo("Dismissed.")

    as_engine(act)
