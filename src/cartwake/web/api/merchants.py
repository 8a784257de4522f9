"""What a merchant sees across its shops: credits and the shops themselves."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cartwake.credits.balance import read_balance, read_ledger
from cartwake.credits.model import EntryType
from cartwake.tenants.organizations import list_shops, warn_from_credits
from cartwake.web.api.fields import BIGINT_MAX, UtcTime
from cartwake.web.api.pages import BEFORE, Before, Limit, cut
from cartwake.web.auth import AtOrganization

router = APIRouter(prefix="/v1", tags=["merchant"])


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


class ShopPage(BaseModel):
    """An organization's shops, newest first."""

    data: list[ShopView]
    next: UUID | None = Field(description="`before` of the next page; null on the last one.")


@router.get("/credits")
async def get_credits(door: AtOrganization) -> CreditsView:
    """The balance, and whether it is time to buy credits."""
    async with door.open() as conn:
        balance = await read_balance(conn, door.scope.organization_id)
        warn_from = await warn_from_credits(conn, door.scope.organization_id)
    low = warn_from is not None and balance.available_credits <= warn_from
    return CreditsView(**vars(balance), low=low)


@router.get("/credits/ledger")
async def get_ledger(
    door: AtOrganization,
    before: Annotated[int | None, Query(ge=1, le=BIGINT_MAX, description=BEFORE)] = None,
    limit: Limit = 50,
) -> LedgerPage:
    """Every change of the balance, newest first."""
    async with door.open() as conn:
        entries = await read_ledger(conn, door.scope.organization_id, before=before, limit=limit + 1)
    page, following = cut(entries, limit, lambda entry: entry.entry_no)
    return LedgerPage(data=[LedgerEntry.model_validate(each, from_attributes=True) for each in page], next=following)


@router.get("/shops")
async def get_shops(door: AtOrganization, before: Before = None, limit: Limit = 50) -> ShopPage:
    """The organization's shops, newest first."""
    async with door.open() as conn:
        shops = await list_shops(conn, door.scope.organization_id, before=before, limit=limit + 1)
    page, following = cut(shops, limit, lambda shop: shop.shop_id)
    return ShopPage(data=[ShopView.model_validate(shop, from_attributes=True) for shop in page], next=following)
