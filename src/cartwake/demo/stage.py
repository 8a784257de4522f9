"""The merchants, made through the operator's API before the story begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cartwake.demo.phone import Phones
from cartwake.demo.storefront import Api, Storefront
from cartwake.demo.traffic import MerchantAct, Organization, Shop, Traffic
from cartwake.kit.db import OPERATOR
from cartwake.kit.runtime import Runtime
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind


@dataclass(frozen=True)
class Stage:
    """Who is there, by name, and the keys that open their doors."""

    api: Api
    operator_key: str
    organization_ids: dict[str, str]
    organization_keys: dict[str, str]
    storefronts: dict[str, Storefront]

    async def perform(self, act: MerchantAct) -> None:
        """What a merchant does: buy or use up credits, or change a shop's settings."""
        if act.organization is not None:
            await _adjust(self.api, self.operator_key, self.organization_ids[act.organization], act.credits, act.story)
        if act.shop is not None:
            await self.api.call("PUT", "/v1/sms-config", self.storefronts[act.shop].key, act.settings)


async def set_stage(runtime: Runtime, api: Api, phones: Phones, traffic: Traffic) -> Stage:
    """Make every organization, shop and sender of the traffic, and tell the sandbox whom not to deliver to."""
    # What `cartwake key operator` does: the first key cannot come from an API that wants one.
    async with runtime.db.transaction(OPERATOR) as conn:
        operator_key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
    stage = Stage(api, operator_key, {}, {}, {})
    for organization in traffic.organization:
        await _make_organization(stage, traffic, organization)
    for shopper in traffic.shopper:
        if shopper.carrier and shopper.e164:
            await phones.script(shopper.e164, shopper.carrier.outcome, shopper.carrier.error_code)
    return stage


async def _make_organization(stage: Stage, traffic: Traffic, organization: Organization) -> None:
    form = {"name": organization.name, "plan": organization.plan}
    made = await stage.api.call("POST", "/v1/organizations", stage.operator_key, form)
    organization_id = str(made["organization_id"])
    stage.organization_ids[organization.name] = organization_id
    stage.organization_keys[organization.name] = made["api_key"]
    if organization.credits:
        note = "Bought before the story begins."
        await _adjust(stage.api, stage.operator_key, organization_id, organization.credits, note)
    for shop in organization.shop:
        key = await _make_shop(stage, organization_id, shop)
        stage.storefronts[shop.name] = Storefront(stage.api, traffic, key)


async def _make_shop(stage: Stage, organization_id: str, shop: Shop) -> str:
    form: dict[str, Any] = {
        "name": shop.name,
        "default_country": shop.country,
        "default_locale": shop.locale,
        "sms_config": {"enabled": True} | shop.settings,
    }
    shops = f"/v1/organizations/{organization_id}/shops"
    made = await stage.api.call("POST", shops, stage.operator_key, form)
    for address in shop.senders:
        await stage.api.call("POST", f"{shops}/{made['shop_id']}/senders", stage.operator_key, {"address": address})
    return str(made["secret_key"])


async def _adjust(api: Api, operator_key: str, organization_id: str, credits: int | None, note: str) -> None:
    path = f"/v1/organizations/{organization_id}/credit-adjustments"
    await api.call("POST", path, operator_key, {"credits": credits, "note": note})
