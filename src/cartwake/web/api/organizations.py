"""What the operator does for merchants: organizations, plans, shops, credits, senders."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cartwake.carts.abandonment import ask_again
from cartwake.carts.model import Refusal
from cartwake.credits.balance import adjust, open_account, read_available
from cartwake.messages.queue import open_queue
from cartwake.numbers.model import SenderKind
from cartwake.numbers.senders import add_sender
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind, Scope, ShopScope
from cartwake.tenants.organizations import (
    change_plan,
    create_organization,
    create_shop,
    list_organizations,
    list_shop_summaries,
    read_organization,
    read_shop,
)
from cartwake.web.api.fields import CREDITS_MAX, Body, Country, LocaleTag, LongText, ShortText, UtcTime, example
from cartwake.web.api.merchants import ShopView
from cartwake.web.api.pages import Before, Limit, cut
from cartwake.web.api.sms_configs import SmsConfigForm, SmsConfigView, config_view, merged
from cartwake.web.auth import AtOperator
from cartwake.web.openapi import CONFLICT

router = APIRouter(prefix="/v1/organizations", tags=["operator"])

PlanName = Literal["FREE", "PRO", "ULTRA"]


class OrganizationForm(Body):
    """A new merchant."""

    model_config = example(name="Lino Namai", plan="PRO")

    name: ShortText
    plan: PlanName


class PlanForm(Body):
    """The plan that an organization is put on."""

    model_config = example(plan="ULTRA")

    plan: PlanName


class ShopForm(Body):
    """A new shop of an organization."""

    model_config = example(name="Lino Namai", default_country="LT", default_locale="lt", sms_config={"enabled": True})

    name: ShortText
    default_country: Country = Field(description="Reads national phone numbers; its law bounds the send window.")
    default_locale: LocaleTag = Field(description="For shoppers whose own language we do not speak.")
    sms_config: SmsConfigForm = SmsConfigForm()


class AdjustmentForm(Body):
    """A correction of an organization's credits."""

    model_config = example(credits=50, reference="welcome-2026-11", note="welcome")

    credits: int = Field(ge=-CREDITS_MAX, le=CREDITS_MAX, description="Added, or taken when negative.")
    reference: ShortText | None = Field(None, description="Makes it happen once: sent again, it changes nothing.")
    note: LongText


class SenderForm(Body):
    """A sender that a shop texts from."""

    model_config = example(address="+37061000001")

    address: ShortText = Field(description="A number in international format, or an alphanumeric sender id.")
    kind: Literal["long_code", "toll_free", "alphanumeric"] | None = Field(None, description="Told from the address.")
    country: Country | None = Field(None, description="Told from the number.")
    segments_per_s: float | None = Field(None, gt=0, le=1000, description="Pace; the carrier's default, unless given.")


class OrganizationView(BaseModel):
    """A merchant."""

    organization_id: UUID
    name: str
    plan: str
    created_at: UtcTime


class NewOrganization(OrganizationView):
    """A merchant that was just made."""

    api_key: str = Field(description="The organization's key. It is shown this once.")


class OrganizationSummaryView(OrganizationView):
    """A merchant among others."""

    available_credits: int = Field(description="What it may spend: 0 until credits are added or the month's come.")
    shops: int
    paused_shops: int = Field(description="Of them, those whose kill switch is thrown.")


class OrganizationPage(BaseModel):
    """Every merchant of the deployment, newest first."""

    data: list[OrganizationSummaryView]
    next: UUID | None = Field(description="`before` of the next page; null on the last one.")


class ShopSummaryView(ShopView):
    """A shop among others of its organization."""

    enabled: bool = Field(description="Its texts are switched on.")
    paused_at: UtcTime | None = Field(description="Since when its kill switch is thrown; null when it is not.")


class ShopSummaryPage(BaseModel):
    """An organization's shops, newest first."""

    data: list[ShopSummaryView]
    next: UUID | None = Field(description="`before` of the next page; null on the last one.")


class NewShop(BaseModel):
    """A shop that was just made."""

    organization_id: UUID
    shop_id: UUID
    name: str
    default_country: str
    default_locale: str
    created_at: UtcTime
    sms_config: SmsConfigView
    secret_key: str = Field(description="For the storefront's server. It is shown this once.")
    publishable_key: str = Field(description="For the storefront's pages. It is shown this once.")


class BalanceView(BaseModel):
    """Credits that can be spent, and credits set aside for texts on their way."""

    available_credits: int
    reserved_credits: int


class SenderView(BaseModel):
    """A sender of a shop."""

    sender_id: UUID
    address: str
    kind: str
    country: str | None
    segments_per_s: float


@router.post("", status_code=201)
async def post_organization(door: AtOperator, form: OrganizationForm) -> NewOrganization:
    """Make an organization and its key. It has 0 credits until its plan's first ones come, within an hour."""
    moment = door.moment
    async with door.open() as conn:
        organization_id = await create_organization(conn, moment, name=form.name, plan=form.plan)
        await open_account(conn, moment.now, organization_id)
        api_key = await create_key(conn, moment, KeyKind.ORGANIZATION, Scope(organization_id))
    return NewOrganization(
        organization_id=organization_id, name=form.name, plan=form.plan, created_at=moment.now, api_key=api_key
    )


@router.get("")
async def get_organizations(door: AtOperator, before: Before = None, limit: Limit = 50) -> OrganizationPage:
    """Every organization, newest first, with what it may spend and how many shops it has."""
    async with door.open() as conn:
        found = await list_organizations(conn, before=before, limit=limit + 1)
        credits = await read_available(conn, [each.organization_id for each in found])
    page, following = cut(found, limit, lambda each: each.organization_id)
    views = [
        OrganizationSummaryView(**vars(each), available_credits=credits.get(each.organization_id, 0)) for each in page
    ]
    return OrganizationPage(data=views, next=following)


@router.get("/{organization_id}")
async def get_organization(door: AtOperator, organization_id: UUID) -> OrganizationView:
    """An organization."""
    async with door.open() as conn:
        return OrganizationView(**vars(await read_organization(conn, organization_id)))


@router.put("/{organization_id}/plan")
async def put_plan(door: AtOperator, organization_id: UUID, form: PlanForm) -> OrganizationView:
    """Put an organization on another plan. Carts that the old plan kept from a text are asked about again."""
    async with door.open() as conn:
        await change_plan(conn, organization_id, form.plan)
        await ask_again(conn, door.moment.now, organization_id, [Refusal.PLAN])
        organization = await read_organization(conn, organization_id)
    return OrganizationView(**vars(organization))


@router.get("/{organization_id}/shops")
async def get_organization_shops(
    door: AtOperator, organization_id: UUID, before: Before = None, limit: Limit = 50
) -> ShopSummaryPage:
    """An organization's shops, newest first, and which of them text."""
    async with door.open() as conn:
        shops = await list_shop_summaries(conn, organization_id, before=before, limit=limit + 1)
    page, following = cut(shops, limit, lambda shop: shop.shop_id)
    views = [ShopSummaryView.model_validate(shop, from_attributes=True) for shop in page]
    return ShopSummaryPage(data=views, next=following)


@router.post("/{organization_id}/shops", status_code=201)
async def post_shop(door: AtOperator, organization_id: UUID, form: ShopForm) -> NewShop:
    """Make a shop with its two keys. Its texts are switched off unless `sms_config` says otherwise."""
    moment = door.moment
    config = merged(form.sms_config, None, form.default_country)
    async with door.open() as conn:
        shop = await create_shop(
            conn,
            moment,
            organization_id,
            name=form.name,
            default_country=form.default_country,
            default_locale=form.default_locale,
            config=config,
        )
        scope = Scope(organization_id, shop.shop_id)
        secret_key = await create_key(conn, moment, KeyKind.SHOP_SECRET, scope)
        publishable_key = await create_key(conn, moment, KeyKind.SHOP_PUBLISHABLE, scope)
        await open_queue(conn, moment, ShopScope(organization_id, shop.shop_id))
    return NewShop(
        **vars(shop), sms_config=config_view(config, None), secret_key=secret_key, publishable_key=publishable_key
    )


@router.post("/{organization_id}/credit-adjustments", status_code=201, responses=CONFLICT)
async def post_credit_adjustment(door: AtOperator, organization_id: UUID, form: AdjustmentForm) -> BalanceView:
    """Add or take credits. Carts that wanted for credits are asked about again."""
    now = door.moment.now
    async with door.open() as conn:
        if form.credits > 0:
            # Before the balance, because a claim too locks carts first and balances after them.
            await ask_again(conn, now, organization_id, [Refusal.INSUFFICIENT_CREDITS])
        balance = await adjust(conn, now, organization_id, form.credits, reference=form.reference, note=form.note)
    return BalanceView(**vars(balance))


@router.post("/{organization_id}/shops/{shop_id}/senders", status_code=201, responses=CONFLICT)
async def post_sender(door: AtOperator, organization_id: UUID, shop_id: UUID, form: SenderForm) -> SenderView:
    """Give a shop a sender that is active at once."""
    scope = ShopScope(organization_id, shop_id)
    kind = SenderKind(form.kind) if form.kind else None
    async with door.open() as conn:
        await read_shop(conn, scope)
        sender = await add_sender(
            conn, door.moment, scope, address=form.address, kind=kind, segments_per_s=form.segments_per_s
        )
    return SenderView.model_validate(sender, from_attributes=True)
