"""The operator's hand: organizations, shops, keys, senders, credits."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from cartwake.cli.plumbing import as_operator, fail, require_shop
from cartwake.kit.db import Connection
from cartwake.kit.runtime import Runtime

org_app = typer.Typer(help="Organizations.", no_args_is_help=True)
shop_app = typer.Typer(help="Shops.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
number_app = typer.Typer(help="Senders.", no_args_is_help=True)
credits_app = typer.Typer(help="Credits.", no_args_is_help=True)

Uuid = Annotated[UUID, typer.Argument()]


@org_app.command("create")
def create_org(name: str, plan: Annotated[str, typer.Option(help="FREE, PRO or ULTRA.")] = "PRO") -> None:
    """Make an organization; prints its id and its API key."""
    from cartwake.credits.balance import open_account
    from cartwake.credits.model import PLANS
    from cartwake.tenants.keys import create_key
    from cartwake.tenants.model import KeyKind, Scope
    from cartwake.tenants.organizations import create_organization

    if plan not in PLANS:
        fail(f"The plan must be one of {', '.join(PLANS)}.", 2)

    async def create(runtime: Runtime, conn: Connection) -> None:
        moment = runtime.moment()
        organization_id = await create_organization(conn, moment, name=name, plan=plan)
        await open_account(conn, moment.now, organization_id)
        key = await create_key(conn, moment, KeyKind.ORGANIZATION, Scope(organization_id))
        typer.echo(f"organization_id {organization_id}\napi_key {key}")

    as_operator(create)


@shop_app.command("create")
def create_shop_(
    organization_id: Uuid,
    name: str,
    country: Annotated[str, typer.Option(help="ISO 3166 alpha-2; reads national phone numbers.")],
    locale: Annotated[
        str, typer.Option(help="For shoppers whose own language we do not speak: en, lt, de, fr, es, pl or ru.")
    ] = "en",
    enable: Annotated[bool, typer.Option(help="Switch texts on at once.")] = True,
) -> None:
    """Make a shop; prints its id and its two keys."""
    from cartwake.messages.queue import open_queue
    from cartwake.tenants.keys import create_key
    from cartwake.tenants.model import KeyKind, Scope, ShopScope, SmsConfig
    from cartwake.tenants.organizations import create_shop

    async def create(runtime: Runtime, conn: Connection) -> None:
        moment = runtime.moment()
        shop = await create_shop(
            conn,
            moment,
            organization_id,
            name=name,
            default_country=country,
            default_locale=locale,
            config=SmsConfig(enabled=enable),
        )
        scope = Scope(organization_id, shop.shop_id)
        await open_queue(conn, moment, ShopScope(organization_id, shop.shop_id))
        typer.echo(f"shop_id {shop.shop_id}")
        for kind in (KeyKind.SHOP_SECRET, KeyKind.SHOP_PUBLISHABLE):
            typer.echo(f"{kind} {await create_key(conn, moment, kind, scope)}")

    as_operator(create)


@key_app.command("operator")
def create_operator_key() -> None:
    """Make an operator key; it is shown once."""
    from cartwake.tenants.keys import create_key
    from cartwake.tenants.model import KeyKind

    async def create(runtime: Runtime, conn: Connection) -> None:
        typer.echo(await create_key(conn, runtime.moment(), KeyKind.OPERATOR))

    as_operator(create)


@key_app.command("revoke")
def revoke(key_id: Uuid) -> None:
    """Revoke an organization's or shop's key; it opens nothing from the next request on."""
    from cartwake.tenants.keys import revoke_key

    async def act(runtime: Runtime, conn: Connection) -> None:
        await revoke_key(conn, runtime.clock.now(), key_id)

    as_operator(act)


@number_app.command("add")
def add_number(
    organization_id: Uuid,
    shop_id: Uuid,
    address: Annotated[str, typer.Argument(help="A number like +37060000001, or an alphanumeric sender id.")],
    segments_per_s: Annotated[float | None, typer.Option(help="How fast the carrier takes segments from it.")] = None,
) -> None:
    """Give a shop a sender that you already have at the carrier."""
    from cartwake.numbers.senders import add_sender
    from cartwake.tenants.model import ShopScope

    async def add(runtime: Runtime, conn: Connection) -> None:
        scope = ShopScope(organization_id, shop_id)
        await require_shop(conn, organization_id, shop_id)
        sender = await add_sender(conn, runtime.moment(), scope, address=address, segments_per_s=segments_per_s)
        typer.echo(f"sender_id {sender.sender_id}\nkind {sender.kind}\nsegments_per_s {sender.segments_per_s}")

    as_operator(add)


# Unknown options are arguments here: -20 is a number.
@credits_app.command("adjust", context_settings={"ignore_unknown_options": True})
def adjust_credits(
    organization_id: Uuid,
    credits: Annotated[int, typer.Argument(help="How many to add; -20 takes twenty away.")],
    note: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    reference: Annotated[str | None, typer.Option(help="Given twice, it counts once.")] = None,
) -> None:
    """Add credits to an organization, or take some away: `cartwake credits adjust ORG -20 --note "sent by hand"`."""
    from cartwake.carts.abandonment import ask_again
    from cartwake.carts.model import Refusal
    from cartwake.credits.balance import adjust

    async def act(runtime: Runtime, conn: Connection) -> None:
        now = runtime.clock.now()
        if credits > 0:
            # Before the balance, because a claim too locks carts first and balances after them.
            await ask_again(conn, now, organization_id, [Refusal.INSUFFICIENT_CREDITS])
        balance = await adjust(conn, now, organization_id, credits, reference=reference, note=note)
        typer.echo(f"available_credits {balance.available_credits}")

    as_operator(act)
