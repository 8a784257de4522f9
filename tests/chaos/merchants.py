"""The organizations of the plan, made through the operator's API, and credits added by it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from cartwake.kit.db import OPERATOR
from cartwake.kit.runtime import Runtime
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind, ShopScope
from chaos.plan import IDLE, SHOPS_PER_ORGANIZATION, TEXT_DELAY, Cart, Organization, Plan
from chaos.storefronts import Diary, Doors


@dataclass(frozen=True)
class Shop:
    """A shop, and what its server and its shoppers need to know."""

    scope: ShopScope
    key: str
    number: str


@dataclass(frozen=True)
class Merchants:
    """Everybody who sells something, in the plan's order."""

    doors: Doors
    diary: Diary
    operator_key: str
    ids: list[UUID]
    shops: list[list[Shop]]

    def shop_of(self, cart: Cart) -> Shop:
        """Where the cart was left."""
        return self.shops[cart.organization][cart.shop]

    async def add_credits(self, organization: int, credits: int, reference: str) -> None:
        """Asked as often as it takes; the reference sees to it that it happens once."""
        path = f"/v1/organizations/{self.ids[organization]}/credit-adjustments"
        form = {"credits": credits, "reference": reference, "note": "chaos"}
        await self.doors.api("POST", path, self.operator_key, form)
        self.diary.put_in[organization] += credits
        self.diary.top_ups += 1


async def make_merchants(runtime: Runtime, plan: Plan, doors: Doors, diary: Diary) -> Merchants:
    """Everybody of the plan, with their first credits. Nobody is killed yet."""
    async with runtime.db.transaction(OPERATOR) as conn:
        key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
    merchants = Merchants(doors, diary, key, [], [])
    for organization in plan.organizations:
        await _make(merchants, organization)
    return merchants


async def _make(merchants: Merchants, organization: Organization) -> None:
    form = {"name": f"Merchant {organization.number}", "plan": "PRO"}
    made = await merchants.doors.api("POST", "/v1/organizations", merchants.operator_key, form)
    merchants.ids.append(UUID(made["organization_id"]))
    numbers = [_number(organization, n) for n in range(SHOPS_PER_ORGANIZATION)]
    shops = await asyncio.gather(*(_make_shop(merchants, organization, number) for number in numbers))
    merchants.shops.append(list(shops))
    await merchants.add_credits(organization.number, organization.credits, "first")


async def _make_shop(merchants: Merchants, organization: Organization, number: str) -> Shop:
    base = f"/v1/organizations/{merchants.ids[organization.number]}/shops"
    timing = {"idle_s": int(IDLE.total_seconds()), "text_delay_s": int(TEXT_DELAY.total_seconds())}
    form = {
        "name": f"Shop {number[-4:]}",
        "default_country": "LT",
        "default_locale": "lt",
        "sms_config": {"enabled": True} | timing,
    }
    made = await merchants.doors.api("POST", base, merchants.operator_key, form)
    await merchants.doors.api(
        "POST", f"{base}/{made['shop_id']}/senders", merchants.operator_key, {"address": number, "segments_per_s": 100}
    )
    return Shop(ShopScope(UUID(made["organization_id"]), UUID(made["shop_id"])), made["secret_key"], number)


def _number(organization: Organization, shop: int) -> str:
    """A sender's number, far behind those of any shopper."""
    return f"+370699{organization.number * SHOPS_PER_ORGANIZATION + shop:05d}"
