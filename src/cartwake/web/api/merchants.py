"""What a merchant sees across its shops: credits and the shops themselves."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cartwake.credits.balance import read_balance, read_ledger
from cartwake.credits.model import EntryType
from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import list_shops, read_sms_config
from cartwake.web.api.fields import BIGINT_MAX, UtcTime
from cartwake.web.auth import AtOrganization

router = APIRouter(prefix="/v1", tags=["merchant"])

Limit = Annotated[int, Query(ge=1, le=200, description="Entries on the page, at most.")]


class CreditsView(BaseModel):
    """What an organization may spend."""

    available_credits: int
    reserved_credits: int = Field(description="Set aside for texts on their way; not in `available_credits`.")
    low: bool = Field(description="A shop's `low_credits_at` is reached.")


class LedgerEntry(BaseModel):
    """One change of the balance."""

    entry_no: int
    entry_type: EntryType
    credits: int
    balance_after: int
    reservation_id: UUID | None
    reference: str | None
    note: str | None
    at: UtcTime


class LedgerPage(BaseModel):
    """Entries, newest first."""

    data: list[LedgerEntry]
    next: int | None = Field(description="`before` of the next page; null on the last one.")


class ShopView(BaseModel):
    """A shop."""

    shop_id: UUID
    name: str
    default_country: str
    default_locale: str
    created_at: UtcTime


class ShopList(BaseModel):
    """An organization's shops, oldest first."""

    data: list[ShopView]


@router.get("/credits")
async def get_credits(door: AtOrganization) -> CreditsView:
    """The balance, and whether it is time to buy credits."""
    organization_id = door.scope.organization_id
    async with door.open() as conn:
        balance = await read_balance(conn, organization_id)
        shops = await list_shops(conn, organization_id)
        configs = [(await read_sms_config(conn, ShopScope(organization_id, shop.shop_id)))[0] for shop in shops]
    low = any(balance.available_credits <= config.low_credits_at for config in configs)
    return CreditsView(**vars(balance), low=low)


@router.get("/credits/ledger")
async def get_ledger(
    door: AtOrganization, before: Annotated[int | None, Query(ge=1, le=BIGINT_MAX)] = None, limit: Limit = 50
) -> LedgerPage:
    """Every change of the balance, newest first."""
    async with door.open() as conn:
        entries = await read_ledger(conn, door.scope.organization_id, before=before, limit=limit + 1)
    page = entries[:limit]
    data = [LedgerEntry.model_validate(entry, from_attributes=True) for entry in page]
    return LedgerPage(data=data, next=page[-1].entry_no if len(entries) > limit else None)


@router.get("/shops")
async def get_shops(door: AtOrganization) -> ShopList:
    """The organization's shops."""
    async with door.open() as conn:
        shops = await list_shops(conn, door.scope.organization_id)
    return ShopList(data=[ShopView.model_validate(shop, from_attributes=True) for shop in shops])
