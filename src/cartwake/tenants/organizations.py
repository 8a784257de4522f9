"""Organizations and shops: made by the operator, configured by the merchant."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from cartwake.kit.codes import check_country, check_locale
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.errors import BadInput, NotKnown
from cartwake.kit.moment import Moment
from cartwake.tenants import store
from cartwake.tenants.model import Organization, OrganizationSummary, Shop, ShopScope, ShopSummary, SmsConfig

NAME_MAX_CHARACTERS = 200


async def create_organization(conn: Connection, moment: Moment, *, name: str, plan: str) -> UUID:
    """A new organization without shops or credits. Operator login."""
    _check_name(name)
    organization_id = moment.new_id()
    await conn.execute(store.INSERT_ORGANIZATION, [organization_id, name, plan, moment.now])
    return organization_id


async def create_shop(
    conn: Connection,
    moment: Moment,
    organization_id: UUID,
    *,
    name: str,
    default_country: str,
    default_locale: str,
    config: SmsConfig | None = None,
) -> Shop:
    """A new shop with its SMS settings (switched off unless `config` says otherwise). Operator login.

    Raises `NotKnown` when there is no such organization, `BadInput` for a country or locale that is none.
    """
    _check_name(name)
    _check_code("country", default_country, check_country)
    _check_code("locale", default_locale, check_locale)
    await read_organization(conn, organization_id)
    shop = Shop(organization_id, moment.new_id(), name, default_country, default_locale, moment.now)
    await conn.execute(store.INSERT_SHOP, vars(shop))
    await store.insert_config(conn, moment.now, organization_id, shop.shop_id, config or SmsConfig())
    return shop


async def read_organization(conn: Connection, organization_id: UUID) -> Organization:
    """Raises `NotKnown`."""
    found = await row(conn, store.SELECT_ORGANIZATION, [organization_id])
    if found is None:
        raise NotKnown("There is no such organization.")
    return Organization(**found)


async def read_shop(conn: Connection, scope: ShopScope) -> Shop:
    """Raises `NotKnown`."""
    found = await row(conn, store.SELECT_SHOP, [scope.organization_id, scope.shop_id])
    if found is None:
        raise NotKnown("There is no such shop.")
    return Shop(**found)


async def list_shops(conn: Connection, organization_id: UUID, *, before: UUID | None = None, limit: int) -> list[Shop]:
    """A page of the organization's shops, newest first; `before` is the last id of the page before."""
    asked = {"organization_id": organization_id, "before": before, "limit": limit}
    return [Shop(**found) for found in await rows(conn, store.SELECT_SHOPS, asked)]


async def list_organizations(conn: Connection, *, before: UUID | None = None, limit: int) -> list[OrganizationSummary]:
    """A page of all organizations, newest first; `before` is the last id of the page before. Operator login."""
    found = await rows(conn, store.SELECT_ORGANIZATIONS, {"before": before, "limit": limit})
    return [OrganizationSummary(**each) for each in found]


async def list_shop_summaries(
    conn: Connection, organization_id: UUID, *, before: UUID | None = None, limit: int
) -> list[ShopSummary]:
    """As `list_shops`, with which of them text. Operator login. Raises `NotKnown` for an organization that is none."""
    await read_organization(conn, organization_id)
    asked = {"organization_id": organization_id, "before": before, "limit": limit}
    return [ShopSummary(**found) for found in await rows(conn, store.SELECT_SHOP_SUMMARIES, asked)]


async def warn_from_credits(conn: Connection, organization_id: UUID) -> int | None:
    """From how many credits on some shop of the organization wants a warning; None without a shop."""
    found = await row(conn, store.SELECT_LOW_CREDITS_AT, [organization_id])
    return found["credits"] if found else None


async def change_plan(conn: Connection, organization_id: UUID, plan: str) -> None:
    """Put an organization on another plan. Operator login. Raises `NotKnown`."""
    if await row(conn, store.UPDATE_PLAN, [plan, organization_id]) is None:
        raise NotKnown("There is no such organization.")


async def read_sms_config(
    conn: Connection, scope: ShopScope, *, lock: bool = False
) -> tuple[SmsConfig, datetime | None]:
    """The shop's SMS settings, and since when the operator has paused it (None: not paused). Raises `NotKnown`.

    `lock`: until commit, for whoever changes some of them and keeps the rest.
    """
    found = await store.select_config(conn, scope.organization_id, scope.shop_id, lock=lock)
    if found is None:
        raise NotKnown("There is no such shop.")
    paused_at = found.pop("paused_at")
    return SmsConfig(**found), paused_at


async def save_sms_config(conn: Connection, now: datetime, scope: ShopScope, config: SmsConfig) -> None:
    """Replace the shop's SMS settings; the caller has checked them."""
    await store.update_config(conn, now, scope.organization_id, scope.shop_id, config)


async def plans_with_credits(conn: Connection) -> list[tuple[UUID, str]]:
    """Every organization whose plan brings monthly credits, with that plan."""
    return await store.select_plans(conn)


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_MAX_CHARACTERS:
        raise BadInput(f"The name must have 1 to {NAME_MAX_CHARACTERS} characters.", field="name")


def _check_code(what: str, code: str, check: Callable[[str], str]) -> None:
    try:
        check(code)
    except ValueError as error:
        raise BadInput(f"The {what} {error}.", field=f"default_{what}") from None
