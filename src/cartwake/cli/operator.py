"""The operator's hand: organizations, shops, keys, senders, credits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from cartwake.cli.plumbing import as_operator, fail, require_shop, shown
from cartwake.kit.db import Connection
from cartwake.kit.errors import NotKnown
from cartwake.kit.runtime import Runtime

org_app = typer.Typer(help="Organizations.", no_args_is_help=True)
shop_app = typer.Typer(help="Shops.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
number_app = typer.Typer(help="Senders.", no_args_is_help=True)
credits_app = typer.Typer(help="Credits.", no_args_is_help=True)

Uuid = Annotated[UUID, typer.Argument()]

# Rows that a list reads at a time.
PAGE = 100


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
        if coming := PLANS[plan].monthly_credits:
            typer.echo(
                f"It has 0 credits until the month's {coming} come, within an hour of a running scheduler; "
                "`cartwake credits adjust` adds some now.",
                err=True,
            )

    as_operator(create)


@org_app.command("list")
def list_orgs() -> None:
    """List organizations, newest first: id, plan, since when, credits that can be spent, shops, and the name."""
    from cartwake.credits.balance import read_available
    from cartwake.tenants.organizations import list_organizations

    async def show(_runtime: Runtime, conn: Connection) -> None:
        before = None
        while page := await list_organizations(conn, before=before, limit=PAGE):
            credits = await read_available(conn, [each.organization_id for each in page])
            for each in page:
                paused = f" ({each.paused_shops} paused)" if each.paused_shops else ""
                typer.echo(
                    f"{each.organization_id}  {each.plan:<5}  created {_minute(each.created_at)}  "
                    f"{credits.get(each.organization_id, 0)} credits  {each.shops} shops{paused}  {shown(each.name)}"
                )
            before = page[-1].organization_id

    as_operator(show)


@shop_app.command("list")
def list_shops_(organization_id: Uuid) -> None:
    """List an organization's shops, newest first: id, country, language, since when, whether it texts, and the name."""
    from cartwake.tenants.organizations import list_shop_summaries

    async def show(_runtime: Runtime, conn: Connection) -> None:
        before = None
        while page := await list_shop_summaries(conn, organization_id, before=before, limit=PAGE):
            for shop in page:
                texts = f"texts {'on' if shop.enabled else 'off'}"
                if shop.paused_at:
                    texts += f", paused since {_minute(shop.paused_at)}"
                typer.echo(
                    f"{shop.shop_id}  {shop.default_country}  {shop.default_locale}  "
                    f"created {_minute(shop.created_at)}  {texts}  {shown(shop.name)}"
                )
            before = page[-1].shop_id

    as_operator(show)


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


@key_app.command("create")
def create_key_(
    organization_id: Uuid,
    shop_id: Annotated[UUID | None, typer.Option(help="Make the key for this shop.")] = None,
    publishable: Annotated[bool, typer.Option(help="For the shop's pages instead of its server.")] = False,
) -> None:
    """Make another key of an organization, or of one of its shops; it is shown once."""
    from cartwake.tenants.keys import issue_key
    from cartwake.tenants.model import KeyKind, Scope, ShopScope
    from cartwake.tenants.organizations import read_organization, read_shop

    if publishable and shop_id is None:
        fail("Only a shop has publishable keys: say which with --shop-id.", 2)
    shop_kind = KeyKind.SHOP_PUBLISHABLE if publishable else KeyKind.SHOP_SECRET

    async def create(runtime: Runtime, conn: Connection) -> None:
        await read_organization(conn, organization_id)
        if shop_id is not None:
            await read_shop(conn, ShopScope(organization_id, shop_id))
        kind = KeyKind.ORGANIZATION if shop_id is None else shop_kind
        made = await issue_key(conn, runtime.moment(), kind, Scope(organization_id, shop_id))
        typer.echo(f"key_id {made.key.key_id}\n{kind} {made.secret}")

    as_operator(create)


@key_app.command("list")
def list_keys_(
    organization_id: Annotated[UUID | None, typer.Argument(help="Whose; the operator's own unless given.")] = None,
) -> None:
    """List keys, newest first: what they open, since when, until when, and when they were last used (to the hour)."""
    from cartwake.tenants.keys import list_keys
    from cartwake.tenants.organizations import read_organization

    async def show(_runtime: Runtime, conn: Connection) -> None:
        if organization_id is not None:
            await read_organization(conn, organization_id)
        before = None
        while page := await list_keys(conn, organization_id, before=before, limit=PAGE):
            for key in page:
                times = {
                    "created": key.created_at,
                    "last used": key.last_used_at,
                    "expires": key.expires_at,
                    "revoked": key.revoked_at,
                }
                told = "  ".join(f"{word} {_minute(at)}" for word, at in times.items() if at)
                typer.echo(f"{key.key_id}  {key.kind}  {f'shop {key.shop_id}  ' if key.shop_id else ''}{told}")
            before = page[-1].key_id

    as_operator(show)


@key_app.command("rotate")
def rotate(
    key_id: Uuid,
    organization_id: Annotated[UUID | None, typer.Argument(help="Whose; the operator's own unless given.")] = None,
    overlap_h: Annotated[float, typer.Option(min=0, max=720, help="How long the old key stays good, in hours.")] = 24,
) -> None:
    """Replace a key: prints the new one, good at once; the old one expires after the overlap."""
    from cartwake.tenants.keys import rotate_key

    async def act(runtime: Runtime, conn: Connection) -> None:
        moment = runtime.moment()
        try:
            made = await rotate_key(conn, moment, key_id, timedelta(hours=overlap_h), organization_id)
        except NotKnown as error:
            hint = "" if organization_id else " A merchant's comes with its organization: KEY_ID ORGANIZATION_ID."
            raise NotKnown(error.detail + hint) from None
        typer.echo(f"key_id {made.key.key_id}\n{made.key.kind} {made.secret}")

    as_operator(act)


@key_app.command("revoke")
def revoke(
    key_id: Uuid,
    organization_id: Annotated[UUID | None, typer.Argument(help="Whose; any organization's unless given.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="It is one of the operator's own.")] = False,
) -> None:
    """Revoke a key; it opens nothing from the next request on."""
    from cartwake.tenants.keys import revoke_key, revoke_operator_key

    if operator and organization_id is not None:
        fail("A key is the operator's own or an organization's, not both.", 2)

    async def act(runtime: Runtime, conn: Connection) -> None:
        if operator:
            await revoke_operator_key(conn, runtime.clock.now(), key_id)
            return
        try:
            await revoke_key(conn, runtime.clock.now(), key_id, organization_id)
        except NotKnown as error:
            raise NotKnown(f"{error.detail} One of the operator's own takes --operator.") from None

    as_operator(act)


@number_app.command("list")
def list_numbers(organization_id: Uuid, shop_id: Uuid) -> None:
    """List a shop's active senders: id, address, kind, country, and how fast the carrier takes segments from each."""
    from cartwake.numbers.senders import read_active_senders
    from cartwake.tenants.model import ShopScope

    async def show(_runtime: Runtime, conn: Connection) -> None:
        await require_shop(conn, organization_id, shop_id)
        scope = ShopScope(organization_id, shop_id)
        for each in (await read_active_senders(conn, [scope]))[scope]:
            pace = f"{each.segments_per_s:g} segments/s"
            typer.echo(f"{each.sender_id}  {each.address}  {each.kind}  {each.country or '--'}  {pace}")

    as_operator(show)


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


@credits_app.command("show")
def show_credits(organization_id: Uuid) -> None:
    """What an organization may spend, and what is set aside for texts on their way."""
    from cartwake.credits.balance import read_balance
    from cartwake.tenants.organizations import read_organization

    async def show(_runtime: Runtime, conn: Connection) -> None:
        await read_organization(conn, organization_id)
        balance = await read_balance(conn, organization_id)
        typer.echo(f"available_credits {balance.available_credits}\nreserved_credits {balance.reserved_credits}")

    as_operator(show)


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


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%MZ}"
