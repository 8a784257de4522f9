"""After a restore: account for what the carrier took since the backup; then, and only then, go on sending."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from cartwake.carriers.protocol import CarrierError, KeepsRecord, ListedText
from cartwake.cli.plumbing import STOP, as_operator, carrier_of, fail, run_with
from cartwake.kit.db import ENGINE, Connection
from cartwake.kit.runtime import Runtime
from cartwake.kit.schema import settle_here
from cartwake.messages.recovery import Recovered, read_links, recover_replies
from cartwake.messages.recovery import recover as run_batch
from cartwake.tenants.switches import pause_deployment, resume_deployment

app = typer.Typer()

BATCH = 500


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise typer.BadParameter(f"{text!r} is no time with its offset; write it like 2026-11-24T10:00:00Z (UTC).")
    return instant.astimezone(UTC)


@app.command(rich_help_panel=STOP)
def recover(
    since: Annotated[
        datetime, typer.Argument(parser=_instant, metavar="TIME", help="When the backup began, like 2026-11-24T10:00Z.")
    ],
) -> None:
    """After a restore: ask the carrier what it took since the backup, so that nobody is texted twice. Repeatable."""

    async def act(runtime: Runtime) -> int:
        if since > runtime.clock.now():
            fail(f"{since:%Y-%m-%d %H:%M:%S} UTC is still to come; give the time at which the backup began.")
        async with carrier_of(runtime.settings) as carrier:
            try:
                found = await recover_from(runtime, carrier, since)
            except CarrierError as error:
                fail(f"The carrier could not be asked ({error}); nothing is lost, run it again.")
        again = " Add what was bought since and run this again." if found.unpaid_credits else ""
        typer.echo(
            f"{found.texts} texts went out that the backup does not know; {found.messages} messages marked as sent.\n"
            f"{found.credits} credits taken for them; {found.unpaid_credits} could not be, for want of them.{again}\n"
            f"{found.replies} replies will be worked off again.\n"
            "Check with `cartwake audit`, let a worker work off the replies, then run `cartwake resume`."
        )
        return 0

    raise typer.Exit(run_with(act))


async def recover_from(runtime: Runtime, carrier: KeepsRecord, since: datetime, batch_max: int = BATCH) -> Recovered:
    """Account for the carrier's whole record since then, in batches of transactions of their own.

    What shoppers wrote comes last and all together, or the order of a STOP and a START would be lost. It is held in
    memory: few answer.
    """
    async with runtime.db.transaction(ENGINE) as conn:
        links = await read_links(conn, runtime.vault)
    total, refund_on = Recovered(), runtime.settings.refund_on
    replies: list[ListedText] = []
    async for batch in _batches(carrier.history(since), batch_max):
        replies += [text for text in batch if text.inbound]
        sent = [text for text in batch if not text.inbound]
        async with runtime.db.transaction(ENGINE) as conn:
            total += await run_batch(conn, runtime.moment(), links, sent, refund_on)
    async with runtime.db.transaction(ENGINE) as conn:
        return total + await recover_replies(conn, runtime.moment(), replies)


async def _batches(texts: AsyncIterator[ListedText], batch_max: int) -> AsyncIterator[list[ListedText]]:
    batch: list[ListedText] = []
    async for text in texts:
        batch.append(text)
        if len(batch) == batch_max:
            yield batch
            batch = []
    if batch:
        yield batch


@app.command(rich_help_panel=STOP)
def pause() -> None:
    """Stop every shop's texts; what waits keeps waiting."""

    async def act(runtime: Runtime, conn: Connection) -> None:
        await pause_deployment(conn, runtime.clock.now())
        typer.echo("Sending is paused.")

    as_operator(act)


@app.command(rich_help_panel=STOP)
def resume() -> None:
    """Let texts go out again; after a restore, settle the deployment where it is now."""

    async def act(runtime: Runtime, conn: Connection) -> None:
        await settle_here(conn)
        await resume_deployment(conn)
        typer.echo("Sending goes on.")

    as_operator(act)
