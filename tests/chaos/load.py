"""Feeds the carts of the plan, and plays what their shoppers do next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from cartwake.kit.runtime import Runtime
from chaos.bulk import write_carts
from chaos.merchants import Merchants
from chaos.plan import IDLE, NOES, Act, Cart, Plan, Way
from chaos.storefronts import Diary, Doors, Refused

BULK_EVERY_S = 1.0
PAYMENT_TAKES = timedelta(minutes=3)
CONSENT = {
    "granted": True,
    "wording": "Text me about my cart, at most once. Reply STOP at any time.",
    "wording_version": "2026-11",
    "locale": "en",
    "page_url": "https://shop.example/checkout",
    "form_field": "sms_opt_in",
    "ip": "192.0.2.7",
    "actor": "shopper",
}


class Load:
    """All that comes in during one run."""

    def __init__(self, runtime: Runtime, url: str, plan: Plan, merchants: Merchants, doors: Doors) -> None:
        self._runtime = runtime
        self._url = url
        self._plan = plan
        self._merchants = merchants
        self._doors = doors
        self.diary: Diary = merchants.diary

    async def run(self) -> None:
        """Feed everything. Returns once all of it is answered; what cannot be is in the diary."""
        started_s = time.monotonic()
        async with asyncio.TaskGroup() as shoppers:
            for cart in self._plan.carts:
                if cart.way is Way.API:
                    shoppers.create_task(self._shop(cart, started_s))
            shoppers.create_task(self._import(shoppers, started_s))
            shoppers.create_task(self._top_up(started_s))

    async def _shop(self, cart: Cart, started_s: float) -> None:
        """A checkout that is told about while it happens, and then left."""
        await _sleep_until(started_s + cart.at_s)
        left_at = self._runtime.clock.now()
        news = {
            "phone": cart.phone,
            "country": cart.country,
            "locale": cart.locale,
            "cart_value_minor": 5990,
            "currency": "EUR",
            "checkout_url": f"https://shop.example/checkout?c={cart.number}",
            "occurred_at": left_at.isoformat(),
            "consent": CONSENT,
        }
        if await self._tell(cart, "PUT", "", news):
            self.diary.carts_api.add(cart.number)
            await self._act(cart, left_at)

    async def _import(self, shoppers: asyncio.TaskGroup, started_s: float) -> None:
        """Carts that were left a while ago, a batch each second."""
        waiting = sorted((cart for cart in self._plan.carts if cart.way is Way.BULK), key=lambda cart: cart.at_s)
        while waiting:
            await asyncio.sleep(BULK_EVERY_S)
            gone_s = time.monotonic() - started_s
            batch = [cart for cart in waiting if cart.at_s <= gone_s]
            waiting = waiting[len(batch) :]
            if batch:
                await self._write(batch, shoppers)

    async def _write(self, batch: Sequence[Cart], shoppers: asyncio.TaskGroup) -> None:
        moment = self._runtime.moment()
        scopes = [self._merchants.shop_of(cart).scope for cart in batch]
        await write_carts(self._url, moment, scopes, batch)
        self.diary.carts_bulk.update(cart.number for cart in batch)
        for cart in batch:
            if cart.act is not None:
                shoppers.create_task(self._act(cart, moment.now - IDLE))

    async def _top_up(self, started_s: float) -> None:
        """Credits are added to some, again and again."""
        steps = max(len(organization.top_ups) for organization in self._plan.organizations)
        for step in range(steps):
            await _sleep_until(started_s + self._plan.size.load_s * (step + 1) / steps)
            for organization in self._plan.organizations:
                if organization.top_ups:
                    await self._merchants.add_credits(organization.number, organization.top_ups[step], f"top-up-{step}")

    async def _act(self, cart: Cart, left_at: datetime) -> None:
        """What the shopper does next, at its time."""
        if cart.act is None:
            return
        await self._runtime.clock.sleep_until(left_at + cart.act_after)
        if await _PLAYS[cart.act](self, cart):
            self.diary.acts[cart.act].add(cart.number)
            if cart.act in NOES:
                self.diary.said_no[cart.number] = self._runtime.clock.now()

    async def _buy(self, cart: Cart) -> bool:
        order = {"order_id": f"order-{cart.number}", "value_minor": 5990, "currency": "EUR"}
        return await self._tell(cart, "PUT", "/completion", order)

    async def _withdraw(self, cart: Cart) -> bool:
        key = self._merchants.shop_of(cart).key
        form = {"phone": cart.phone, "actor": "shopper"}
        return await _answered(self._doors.api("POST", "/v1/consent-withdrawals", key, form))

    async def _stop(self, cart: Cart) -> bool:
        """A text to the shop's number, sent again until our web has taken it."""
        reply = {"from": cart.phone, "to": self._merchants.shop_of(cart).number, "body": "STOP"}
        while True:
            answer = await self._doors.sandbox("POST", "/sandbox/replies", reply)
            if answer["webhook"]["http_status"] == 200:
                return True
            await asyncio.sleep(1)

    async def _fail_to_pay(self, cart: Cart) -> bool:
        if not await self._tell(cart, "PUT", "/payment", {"status": "pending"}):
            return False
        await self._runtime.clock.sleep_until(self._runtime.clock.now() + PAYMENT_TAKES)
        return await self._tell(cart, "PUT", "/payment", {"status": "failed"})

    async def _come_back(self, cart: Cart) -> bool:
        return await self._tell(cart, "PUT", "", {"occurred_at": self._runtime.clock.now().isoformat()})

    async def _tell(self, cart: Cart, method: str, part: str, news: dict[str, Any]) -> bool:
        path = f"/v1/checkout-sessions/{cart.external_id}{part}"
        return await _answered(self._doors.api(method, path, self._merchants.shop_of(cart).key, news))


_PLAYS = {
    Act.BUY: Load._buy,
    Act.WITHDRAW: Load._withdraw,
    Act.STOP: Load._stop,
    Act.FAIL_TO_PAY: Load._fail_to_pay,
    Act.COME_BACK: Load._come_back,
}


async def _answered(asking: Any) -> bool:
    """Whether the answer was 2xx; a refusal is in the diary."""
    try:
        await asking
    except Refused:
        return False
    return True


async def _sleep_until(at_s: float) -> None:
    await asyncio.sleep(max(at_s - time.monotonic(), 0))
