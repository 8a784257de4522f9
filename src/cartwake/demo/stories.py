"""Plays every act at its time: the shops' servers tell, the shoppers' phones tap and answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cartwake.demo.acts import Act, Deed, From
from cartwake.demo.happenings import Happening, plain, told_by
from cartwake.demo.phone import PhoneError, Phones
from cartwake.demo.stage import Stage
from cartwake.demo.storefront import ApiRefused, Storefront
from cartwake.demo.traffic import MerchantAct, Shopper, Traffic
from cartwake.demo.watch import Cart
from cartwake.kit.clock import Clock

Tell = Callable[[Happening], None]


@dataclass
class Story:
    """A shopper on the way through their acts."""

    shopper: Shopper
    played: int = 0
    last_at: datetime | None = None  # when the last act was to be played
    text_at: datetime | None = None  # when the carrier took the text
    text_sid: str | None = None
    token: str | None = None  # of the last tap
    attribution: str | None = None  # how the order was counted for the text, as the API answered
    is_playing: bool = False
    refused: list[str] = field(default_factory=list)  # slugs of what the API would not have
    problems: list[str] = field(default_factory=list)  # what went wrong that no story foresees

    @property
    def next_act(self) -> Act | None:
        return self.shopper.script[self.played] if self.played < len(self.shopper.script) else None


@dataclass
class _Merchant:
    act: MerchantAct
    at: datetime
    is_played: bool = False


class Player:
    """Knows which act is next, and plays it."""

    def __init__(self, traffic: Traffic, stage: Stage, phones: Phones, clock: Clock, tell: Tell) -> None:
        self.stories = {shopper.token: Story(shopper) for shopper in traffic.shopper}
        self._traffic = traffic
        self._stage = stage
        self._phones = phones
        self._clock = clock
        self._tell = tell
        self._merchants = [_Merchant(act, traffic.moment(act.at, traffic.home)) for act in traffic.merchant]
        self._tasks: set[asyncio.Task[None]] = set()
        self.acts_played = 0

    @property
    def is_playing(self) -> bool:
        """Whether an act is being played at this moment."""
        return bool(self._tasks)

    @property
    def next_at(self) -> datetime | None:
        """When the next act is due; None when none is left that does not wait for a text."""
        times = [self._due_at(story) for story in self.stories.values() if not story.is_playing]
        times += [merchant.at for merchant in self._merchants if not merchant.is_played]
        return min((at for at in times if at is not None), default=None)

    def hear(self, carts: Mapping[str, Cart]) -> None:
        """Take note of texts that the carrier took."""
        for token, cart in carts.items():
            story = self.stories.get(token)
            if story and story.text_at is None and cart.carrier_sid and cart.accepted_at:
                story.text_at, story.text_sid = cart.accepted_at, cart.carrier_sid

    def start_due(self) -> None:
        """Begin every act whose time has come; each shopper plays one at a time."""
        now = self._clock.now()
        for merchant in self._merchants:
            if not merchant.is_played and merchant.at <= now:
                merchant.is_played = True
                self._start(self._play_merchant(merchant))
        for story in self.stories.values():
            at = None if story.is_playing else self._due_at(story)
            if at is not None and at <= now:
                story.is_playing = True
                self._start(self._play(story, at))

    async def stop(self) -> None:
        """Break off what is being played."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Let go of acts that were played; raise what one failed with, if no story foresees it."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            self.acts_played += 1
            task.result()

    def _due_at(self, story: Story) -> datetime | None:
        act = story.next_act
        if act is None:
            return None
        if act.counts_from is From.LOCAL_TIME:
            return self._traffic.moment(act.local, story.shopper.city)
        base = story.text_at if act.counts_from is From.TEXT else story.last_at
        return base + act.after if base else None

    def _start(self, act: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(act))

    async def _play(self, story: Story, at: datetime) -> None:
        act = story.next_act
        assert act is not None, "it was due"
        try:
            words, style = await self._perform(story, act, at)
        except ApiRefused as refusal:
            story.refused.append(refusal.slug)
            words, style = f"the API refuses: {plain(refusal.slug)}", "yellow"
            if act.deed is not Deed.CHECKOUT:
                story.problems.append(f"{act.deed}: {refusal}")
        except PhoneError as error:
            story.problems.append(f"{act.deed}: {error}")
            words, style = str(error), "red"
        self._tell(told_by(story.shopper, self._traffic, at, words, style))
        story.last_at, story.played, story.is_playing = at, story.played + 1, False

    async def _perform(self, story: Story, act: Act, at: datetime) -> tuple[str, str]:
        """Play one act; what to say of it, and in which colour."""
        shopper, shop = story.shopper, self._stage.storefronts[story.shopper.shop]
        words, style = f"{act.deed}", "yellow"
        match act.deed:
            case Deed.CHECKOUT | Deed.CORRECT:
                await shop.checkout(shopper, at, phone=act.detail or shopper.phone)
                words, style = f"cart of {shopper.total_price} {shopper.currency} at {shopper.shop}", ""
            case Deed.ACTIVITY:
                await shop.activity(shopper, at)
                words = "touches the cart again"
            case Deed.PHONE:
                await shop.activity(shopper, at, phone=act.detail)
                words = "another number, and no box ticked for it"
            case Deed.PAYMENT_PENDING | Deed.PAYMENT_FAILED:
                await shop.payment(shopper, at, act.deed.removeprefix("payment "))
            case Deed.ORDER | Deed.ORDER_WITH_TOKEN:
                words, style = await self._order(story, shop, act.deed)
            case Deed.WITHDRAW:
                await shop.withdraw(shopper)
                words = "takes consent back"
            case _:
                words, style = await self._on_the_phone(story, act)
        return words, style

    async def _order(self, story: Story, shop: Storefront, deed: Deed) -> tuple[str, str]:
        order = await shop.order(story.shopper, story.token if deed is Deed.ORDER_WITH_TOKEN else None)
        story.attribution = order["attribution"]
        price = f"{story.shopper.total_price} {story.shopper.currency}"
        if order["recovered"]:
            return f"cart recovered by {story.attribution}: {price}", "bold green"
        return f"orders without our help: {price}", "green"

    async def _on_the_phone(self, story: Story, act: Act) -> tuple[str, str]:
        assert story.text_sid is not None, "these acts wait for a text"
        text = await self._phones.find(story.text_sid)
        match act.deed:
            case Deed.TAP:
                story.token = await self._phones.tap(text)
                return "taps the short link", "magenta"
            case Deed.NOT_MY_NUMBER:
                await self._phones.press_not_my_number(text)
                return "presses 'not my number'", "yellow"
            case _:
                await self._phones.reply(text.to, act.detail)
                return f"answers: {act.detail}", "yellow"

    async def _play_merchant(self, merchant: _Merchant) -> None:
        await self._stage.perform(merchant.act)
        local = merchant.at.astimezone(self._traffic.zone_of(self._traffic.home))
        who = merchant.act.organization or merchant.act.shop or ""
        self._tell(Happening(local, self._traffic.home, who, merchant.act.story, "bold"))
