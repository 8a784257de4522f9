"""Commands that look, and change nothing."""

from __future__ import annotations

import os
from typing import Annotated
from uuid import UUID

import typer

from cartwake import __version__
from cartwake.cli.plumbing import LOOK, require_shop, run_with
from cartwake.kit.config import load_settings
from cartwake.kit.config_listing import list_settings, origin, unknown_variables
from cartwake.kit.db import ENGINE, OPERATOR
from cartwake.kit.runtime import Runtime

app = typer.Typer()
Uuid = Annotated[UUID, typer.Argument()]


@app.command(rich_help_panel=LOOK)
def audit() -> None:
    """Check every invariant, the consent chains from end to end; exit 1 and show the rows when one does not hold."""
    from cartwake.invariants import INVARIANTS, PROOFS, broken_invariants, broken_proofs

    async def look(runtime: Runtime) -> int:
        async with runtime.db.transaction(ENGINE) as conn:
            broken = await broken_invariants(conn, runtime.clock.now())
            broken += await broken_proofs(conn, runtime.vault)
        for each in broken:
            typer.echo(f"BROKEN {each.name} ({each.guarantee}): {len(each.rows)} rows, of which")
            for row in each.rows[:5]:
                typer.echo("  " + ", ".join(f"{name}={value}" for name, value in row.items()))
        typer.echo(f"{len(INVARIANTS) + len(PROOFS)} invariants checked, {len(broken)} broken.")
        return 1 if broken else 0

    raise typer.Exit(run_with(look))


@app.command(rich_help_panel=LOOK)
def explain(organization_id: Uuid, shop_id: Uuid, external_id: str) -> None:
    """Why was this cart (not) texted? EXTERNAL_ID is the storefront's id of the checkout."""
    from cartwake.explain import explain_session
    from cartwake.tenants.model import ShopScope
    from cartwake.tenants.scope import tenant_transaction

    async def look(runtime: Runtime) -> int:
        scope = ShopScope(organization_id, shop_id)
        async with runtime.db.transaction(OPERATOR) as conn:
            await require_shop(conn, organization_id, shop_id)
        async with tenant_transaction(runtime.db, scope) as conn:
            found = await explain_session(conn, runtime.vault, scope, external_id)
        typer.echo(found.verdict)
        if found.advice:
            typer.echo(f"  -> {found.advice}")
        for line in found.story:
            typer.echo(f"  {line.at:%Y-%m-%d %H:%M:%S}  {line.what:<12} {line.outcome:<12} {line.why}")
        return 0

    raise typer.Exit(run_with(look))


@app.command(rich_help_panel=LOOK)
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


@app.command(rich_help_panel=LOOK)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Is this deployment well, and if not, what mends it? Exit 1 when a check fails."""
    from cartwake.doctor.examine import examine_here
    from cartwake.doctor.model import Verdict
    from cartwake.doctor.report import for_machines, for_people, worst

    examined = examine_here()
    typer.echo(for_machines(examined) if as_json else for_people(examined))
    raise typer.Exit(1 if worst(examined) is Verdict.FAIL else 0)


@app.command(rich_help_panel=LOOK)
def config(
    check: Annotated[bool, typer.Option("--check", help="Say only what is wrong.")] = False,
) -> None:
    """List every setting: what it means, what it takes, and where its value is from. Exit 2 when one is wrong."""
    if not check:
        for each in list_settings():
            typer.echo(f"{each.variable}  [{origin(each, os.environ)}]\n    {each.takes}. {each.meaning}")
        typer.echo("A secret may come from a file instead: CARTWAKE_<NAME>_FILE names it.\n")
    for name, advice in unknown_variables(os.environ).items():
        typer.echo(f"{name} is no setting: {advice}")
    load_settings()
    typer.echo("The settings are right.")


@app.command(rich_help_panel=LOOK)
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
