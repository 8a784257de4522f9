"""Commands that look, and change nothing."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from cartwake import __version__
from cartwake.cli.plumbing import run_with, settings_and_logs
from cartwake.kit.config import Settings
from cartwake.kit.db import ENGINE, OPERATOR
from cartwake.kit.rates import Rate
from cartwake.kit.runtime import Runtime

app = typer.Typer()
Uuid = Annotated[UUID, typer.Argument()]


@app.command()
def audit() -> None:
    """Check every invariant; exit 1 and show the rows when one does not hold."""
    from cartwake.invariants import INVARIANTS, broken_invariants

    async def look(runtime: Runtime) -> int:
        async with runtime.db.transaction(ENGINE) as conn:
            broken = await broken_invariants(conn, runtime.clock.now())
        for each in broken:
            typer.echo(f"BROKEN {each.name} ({each.guarantee}): {len(each.rows)} rows, of which")
            for row in each.rows[:5]:
                typer.echo("  " + ", ".join(f"{name}={value}" for name, value in row.items()))
        typer.echo(f"{len(INVARIANTS)} invariants checked, {len(broken)} broken.")
        return 1 if broken else 0

    raise typer.Exit(run_with(look))


@app.command()
def explain(organization_id: Uuid, shop_id: Uuid, external_id: str) -> None:
    """Why was this cart (not) texted? EXTERNAL_ID is the storefront's id of the checkout."""
    from cartwake.explain import explain_session
    from cartwake.tenants.model import ShopScope
    from cartwake.tenants.scope import tenant_transaction

    async def look(runtime: Runtime) -> int:
        scope = ShopScope(organization_id, shop_id)
        async with tenant_transaction(runtime.db, scope) as conn:
            found = await explain_session(conn, runtime.vault, scope, external_id)
        typer.echo(found.verdict)
        for line in found.decisions:
            until = f" until {line.until:%Y-%m-%d %H:%M} UTC" if line.until else ""
            typer.echo(f"  {line.at:%Y-%m-%d %H:%M:%S}  {line.gate:<12} {line.outcome:<9} {line.reason}{until}")
        return 0

    raise typer.Exit(run_with(look))


@app.command()
def doubts(limit: Annotated[int, typer.Option(help="At most so many, newest first.")] = 100) -> None:
    """List texts that may or may not have reached the carrier, with what to do about each."""
    from cartwake.messages.doubts import list_doubts

    async def look(runtime: Runtime) -> int:
        async with runtime.db.transaction(OPERATOR) as conn:
            found = await list_doubts(conn, limit=limit)
        for each in found:
            typer.echo(
                f"{each.state:<10} message {each.message_id}  attempt {each.attempt_id}  "
                f"{each.attempted_at:%Y-%m-%d %H:%M:%S} UTC  {each.phone_country}  {each.credits} credits\n"
                f"           {each.advice}"
            )
        typer.echo(f"{len(found)} texts in doubt.")
        return 0

    raise typer.Exit(run_with(look))


@app.command()
def config() -> None:
    """List every setting: its name, what it means, its default, and whether it is set."""
    settings = settings_and_logs()
    for name, field in Settings.model_fields.items():
        value = "(set)" if name in settings.model_fields_set else f"default: {_shown(field.default)}"
        typer.echo(f"CARTWAKE_{name.upper()}  [{value}]\n    {field.description}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _shown(default: Any) -> str:
    if isinstance(default, Rate):
        return str(default)
    return "(development secret)" if "SecretStr" in repr(default) else repr(default)
