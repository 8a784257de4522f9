"""Shoppers, merchants and the operator. Everything they do, they do through the API, the links and their phones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import phonenumbers

from cartwake.kit.errors import BadInput
from cartwake.kit.phones import Phone, parse_mobile
from simulation.acts import Act, Cart, Merchant, Shop
from simulation.process import ERRAND
from simulation.windows import AREA_CODES, ZONES
from simulation.witness import GRANTED, NOT_MINE, STARTED, SUPPRESSED, WITHDRAWN
from world import TICKED, UNTICKED, plain

if TYPE_CHECKING:
    from simulation.stage import Stage

TRIES = 6
CARTS_MAX = 12  # of one shopper: hours in which no web listens are not to be spent on carts that nobody hears of
CREDITS = (-90, -60, -30, -5, 3, 10, 30, 200)
# Without a state, a parcel to these may go to so many zones that there is no hour for a text.
SHIPPED_TO = sorted(ZONES.keys() - {"US", "CA", "AU"})
Plot = Callable[["Shopper", Cart], Awaitable[None]]
AMERICANS = 3  # phones of each country with area codes for one of any other, so that a story has several zones


@dataclass
class People:
    """All of them, and what they have in common: hurry, when a worker is at it, and closing time."""

    stage: Stage
    claiming: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: frozenset[object] = frozenset()  # the shops that the worker has at hand
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def plots(self) -> list[Plot]:
        """What shoppers may do with a cart in this story."""
        asked = self.stage.director.chaos.plan.plots
        return PLOTS if asked is None else [plot for plot in PLOTS if _name_of(plot) in asked]

    async def nap(self, seconds: float) -> None:
        """Do nothing for a while; at closing time nobody naps."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)

    async def until_claim(self, shop: Shop, seconds: float) -> None:
        """Wait for a worker to begin a claim of this shop's texts, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._claim_or_closing(shop)

    async def _claim_or_closing(self, shop: Shop) -> None:
        while not self.closing.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self.claiming, self.closing)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
            if shop.shop_id in self.claimed:
                return

    async def call(
        self, acts: list[Act], method: str, path: str, key: str, json: Any = None, *, stubborn: bool = False
    ) -> Any:
        """Ask until somebody answers, a few times at least; `stubborn`: for ever. The answer, if there was one."""
        attempt = 0
        while attempt < TRIES or stubborn:
            web = self.stage.some_web()
            options = {"headers": {"Authorization": f"Bearer {key}"}} | ({} if json is None else {"json": json})
            answer = await web.request(method, path, **options) if web else None
            if answer is not None and answer.is_success:
                self.stage.witness.answered(acts)
                return answer.json()
            if answer is not None and answer.status_code < 500:
                for act in acts:
                    act.refused = True
                return None
            await asyncio.sleep(0.4 * 2 ** min(attempt, 6))
            attempt += 1
        return None


@dataclass
class Shopper:
    """One life: a cart after the other, each with its own story."""

    people: People
    name: str
    phone: Phone
    dice: Random
    carts: int = 0

    async def live(self) -> None:
        ERRAND.set(self.name)
        await self.people.nap(self.dice.uniform(0, 300))
        while self.carts < CARTS_MAX and not self.people.closing.is_set():
            cart = self._new_cart()
            await self._leave(cart)
            plot = self.dice.choice(self.people.plots)
            self._tell(cart, f"will {_name_of(plot)}")
            await plot(self, cart)
            await self.people.nap(self.dice.choice([2.0, 60.0, 600.0, 4000.0]))

    # --- plots ----------------------------------------------------------------------------------------

    async def _walk_away(self, cart: Cart) -> None:
        await self.people.nap(self.dice.uniform(0, _due_s(cart)))

    async def _come_back(self, cart: Cart) -> None:
        await self._hurry(cart)
        await self._leave(cart, "back")

    async def _tick_again(self, cart: Cart) -> None:
        await self._hurry(cart)
        await self._leave(cart)

    async def _complete(self, cart: Cart) -> None:
        await self._hurry(cart)
        await self._order(cart)

    async def _pay(self, cart: Cart) -> None:
        await self._hurry(cart)
        await self._payment(cart, "paying", "pending")
        await self.people.nap(self.dice.choice([2.0, 60.0, _due_s(cart), 5000.0]))
        how = self.dice.choice(["fail", "complete", "forget", "again"])
        if how == "fail":
            await self._payment(cart, "payment failed", "failed")
        elif how == "complete":
            await self._order(cart)
        elif how == "again":
            await self._payment(cart, "paying", "pending")

    async def _withdraw(self, cart: Cart) -> None:
        await self._hurry(cart)
        acts = self._consents(cart)
        act = self.people.stage.witness.act(acts, WITHDRAWN)
        self._tell(cart, "withdraws")
        await self._api([act], "POST", "/v1/consent-withdrawals", cart, {"phone": self.phone.e164})

    async def _untick(self, cart: Cart) -> None:
        await self._hurry(cart)
        witness = self.people.stage.witness
        acts = [witness.act(cart.acts, "unticked"), witness.act(self._consents(cart), WITHDRAWN)]
        self._tell(cart, "unticks the box")
        await self._put(acts, cart, {"consent": UNTICKED})

    async def _text_stop(self, cart: Cart) -> None:
        await self._hurry(cart)
        await self._text(cart, self.dice.choice(["STOP", "stop please", "Unsubscribe", "Nebesiųskite"]))

    async def _stop_and_start(self, cart: Cart) -> None:
        await self._text_stop(cart)
        await self.people.nap(self.dice.choice([0.0, 20.0, 2000.0]))
        # It takes effect when it is worked off, and nobody is told when that was: for the witness, never for sure.
        self.people.stage.witness.act(self._consents(cart), STARTED)
        await self._text(cart, "START")

    async def _open_opt_out(self, cart: Cart) -> None:
        action = self.dice.choice(["stop", "stop", "not_my_number"])
        path = await self._link(cart, "/o/")
        if path is None:
            return
        kind = SUPPRESSED if action == "stop" else NOT_MINE
        act = self.people.stage.witness.act(self._consents(cart), kind)
        self._tell(cart, f"presses {action}")
        if await self._browse("POST", path, data={"action": action}):
            self.people.stage.witness.answered([act])

    async def _tap_and_buy(self, cart: Cart) -> None:
        path = await self._link(cart, "/r/")
        if path is not None and await self._browse("GET", path):
            await self._order(cart)

    # --- what plots are made of ---------------------------------------------------------------------------

    async def _hurry(self, cart: Cart) -> None:
        """Act at a moment that may matter: while a worker claims, about when the text is due, or at any time."""
        due_s = _due_s(cart)
        when = self.dice.choice(["claim", "claim", "due", "soon"])
        if when == "claim":
            await self.people.nap(due_s)
            await self.people.until_claim(cart.shop, due_s * 2 + 900)
        elif when == "due":
            await self.people.nap(due_s + self.dice.uniform(-20, 20))
        else:
            await self.people.nap(self.dice.uniform(0, due_s))

    def _new_cart(self) -> Cart:
        self.carts += 1
        shop = self.dice.choice(list(self.people.stage.witness.shops.values()))
        shipped_to = sorted(self.people.stage.director.chaos.plan.countries or SHIPPED_TO)
        country = self.dice.choice([None, None, self.dice.choice(shipped_to)])
        cart = Cart(shop, f"{self.name}-cart-{self.carts}", self.phone, country)
        self.people.stage.witness.carts[shop.shop_id, cart.external_id] = cart
        return cart

    async def _leave(self, cart: Cart, kind: str = "left") -> None:
        """Fill the cart and go away; "left" ticks the box."""
        witness = self.people.stage.witness
        acts = [witness.act(cart.acts, kind)]
        consent = None
        if kind == "left":
            acts.append(witness.act(self._consents(cart), GRANTED))
            consent = TICKED
        self._tell(cart, f"{kind} at shop {cart.shop.shop_id}")
        checkout = {"phone": self.phone.e164, "country": cart.country, "checkout_url": "https://shop.example/cart"}
        await self._put(acts, cart, checkout | {"consent": consent})

    async def _put(self, acts: list[Act], cart: Cart, news: dict[str, Any]) -> None:
        await self._api(acts, "PUT", f"/v1/checkout-sessions/{cart.external_id}", cart, plain(news))

    async def _order(self, cart: Cart) -> None:
        act = self.people.stage.witness.act(cart.acts, "completed")
        self._tell(cart, "completes")
        order = {"order_id": f"order-of-{cart.external_id}", "value_minor": 5990, "currency": "EUR"}
        await self._api([act], "PUT", f"/v1/checkout-sessions/{cart.external_id}/completion", cart, order)

    async def _payment(self, cart: Cart, kind: str, status: str) -> None:
        act = self.people.stage.witness.act(cart.acts, kind)
        self._tell(cart, kind)
        await self._api([act], "PUT", f"/v1/checkout-sessions/{cart.external_id}/payment", cart, {"status": status})

    async def _text(self, cart: Cart, body: str) -> bool:
        self._tell(cart, f"texts {body!r}")
        said = self.people.stage.witness.said
        mine = (cart, body, self.people.stage.director.step_number)
        said.append(mine)
        is_told = await self.people.stage.carrier.text_back(self.phone.e164, cart.shop.number, body)
        if not is_told:
            said.remove(mine)
        return is_told

    async def _link(self, cart: Cart, kind: str) -> str | None:
        """The path of a link in the text that this cart got, once it has come."""
        await self.people.nap(_due_s(cart) + self.dice.uniform(0, 900))
        stage = self.people.stage
        mine = [t for t in stage.carrier.texts.values() if stage.witness.cart_of_attempt(t.text.attempt_id) is cart]
        found = re.search(rf"{re.escape(stage.settings.public_url)}({kind}\S+)", mine[0].text.body) if mine else None
        return found[1].rstrip(".") if found else None

    async def _browse(self, method: str, path: str, **options: Any) -> bool:
        for attempt in range(TRIES):
            web = self.people.stage.some_web()
            answer = await web.request(method, path, **options) if web else None
            if answer is not None and answer.status_code < 400:
                return True
            await asyncio.sleep(0.4 * 2**attempt)
        return False

    def _consents(self, cart: Cart) -> list[Act]:
        return self.people.stage.witness.consent_acts(cart.shop, self.phone)

    async def _api(self, acts: list[Act], method: str, path: str, cart: Cart, json: Any) -> None:
        await self.people.call(acts, method, path, cart.shop.key, json)

    def _tell(self, cart: Cart, what: str) -> None:
        self.people.stage.director.tell(self.name, f"{what} ({cart.external_id})", [cart.external_id])


def _name_of(plot: Plot) -> str:
    return plot.__name__.strip("_")


PLOTS: list[Plot] = [
    *[Shopper._walk_away] * 4,
    Shopper._come_back,
    Shopper._tick_again,
    Shopper._complete,
    Shopper._complete,
    Shopper._pay,
    Shopper._pay,
    Shopper._withdraw,
    Shopper._untick,
    Shopper._text_stop,
    Shopper._stop_and_start,
    Shopper._open_opt_out,
    Shopper._tap_and_buy,
]
PLOT_NAMES = frozenset(_name_of(plot) for plot in PLOTS)


@dataclass
class Owner:
    """A merchant and what the operator does for it: credits come and go, texts are switched off and on again."""

    people: People
    merchant: Merchant
    shops: list[Shop]
    dice: Random
    corrections: int = 0

    async def live(self) -> None:
        ERRAND.set("the owner")
        while not self.people.closing.is_set():
            await self.people.nap(self.dice.uniform(60, 4000))
            await self.dice.choice([self._correct, self._correct, self._disable, self._pause, self._downgrade])()

    async def tune(self) -> None:
        """Somebody else at the merchant's turns other knobs meanwhile."""
        ERRAND.set("the tuner")
        while not self.people.closing.is_set():
            await self.people.nap(self.dice.uniform(600, 6000))
            shop = self.dice.choice(self.shops)
            await self._configure(shop, [], {"spread_s": self.dice.choice([0, 60, 900])})

    async def _correct(self) -> None:
        self.corrections += 1
        credits = self.dice.choice(CREDITS)
        reference = f"correction-{self.merchant.organization_id}-{self.corrections}"
        act = self.people.stage.witness.act(self.merchant.acts, "credits", credits)
        body = {"credits": credits, "reference": reference, "note": "a story"}
        await self._operate([act], "POST", f"{self._path}/credit-adjustments", body)

    async def _disable(self) -> None:
        shop = self.dice.choice(self.shops)
        witness = self.people.stage.witness
        await self._configure(shop, [witness.act(shop.acts, "disabled")], {"enabled": False})
        await self.people.nap(self.dice.choice([60.0, 1200.0, 4000.0]))
        await self._configure(shop, [witness.act(shop.acts, "enabled")], {"enabled": True})

    async def _pause(self) -> None:
        shop, witness = self.dice.choice(self.shops), self.people.stage.witness
        everywhere = self.dice.random() < 0.3
        acts = witness.deployment if everywhere else shop.acts
        path = "/v1/kill-switch" if everywhere else f"{self._path}/shops/{shop.shop_id}/kill-switch"
        await self._operate([witness.act(acts, "paused")], "PUT", path)
        await self.people.nap(self.dice.choice([60.0, 1200.0, 4000.0]))
        await self._operate([witness.act(acts, "resumed")], "DELETE", path)

    async def _downgrade(self) -> None:
        witness = self.people.stage.witness
        for plan in ("FREE", "PRO"):
            act = witness.act(self.merchant.acts, plan)
            await self._operate([act], "PUT", f"{self._path}/plan", {"plan": plan})
            await self.people.nap(self.dice.choice([60.0, 1200.0, 4000.0]))

    async def _configure(self, shop: Shop, acts: list[Act], settings: dict[str, Any]) -> None:
        self._tell(f"configures {settings}", [shop.shop_id])
        await self.people.call(acts, "PUT", "/v1/sms-config", shop.key, settings, stubborn=True)

    async def _operate(self, acts: list[Act], method: str, path: str, json: Any = None) -> None:
        self._tell(f"{method} {path} {json or ''}", [self.merchant.organization_id])
        await self.people.call(acts, method, path, self.people.stage.operator_key, json, stubborn=True)

    def _tell(self, what: str, ids: list[object]) -> None:
        self.people.stage.director.tell("owner", what, ids)

    @property
    def _path(self) -> str:
        return f"/v1/organizations/{self.merchant.organization_id}"


def _due_s(cart: Cart) -> float:
    """How long after the last activity its text is due."""
    return cart.shop.text_delay.total_seconds()


def phones(dice: Random, count: int, asked: frozenset[str] | None = None) -> list[Phone]:
    """Mobile numbers of all countries in the story: every country once before any comes again, some phones twice."""
    countries = sorted(asked or ZONES)
    countries += [country for country in AREA_CODES if country in countries for _ in range(AMERICANS - 1)]
    dice.shuffle(countries)
    found: list[Phone] = []
    while len(found) < count:
        if found and dice.random() < 0.2:
            found.append(dice.choice(found))
        else:
            found.append(_phone(dice, countries[len(found) % len(countries)]))
    return found


def _phone(dice: Random, country: str) -> Phone:
    """A valid mobile number of a country."""
    example = phonenumbers.example_number_for_type(country, phonenumbers.PhoneNumberType.MOBILE)
    assert example is not None, country
    e164 = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    e164 = dice.choice(sorted(AREA_CODES.get(country, {e164[:5]: ()}))) + e164[5:]
    while True:
        candidate = e164[:-4] + f"{dice.randrange(10_000):04}"
        with suppress(BadInput):
            phone = parse_mobile(candidate)
            if phone.country == country:
                return phone
