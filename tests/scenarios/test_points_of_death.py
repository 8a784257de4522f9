"""Every point where a process can die around a call to the carrier: it is killed at each, one after the other.

A worker dies at the 1st, 2nd, 3rd … step of claiming, calling and recording, until one lives to the end; each has a
cart of its own to text. Then others go on, and in the end every cart was texted once or not at all, and paid for so.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cartwake.carriers.sandbox import Recipient
from cartwake.kit.db import Database
from cartwake.kit.runtime import Runtime
from cartwake.scheduler import ask_for_missing_receipts, resolve_unknown
from cartwake.worker import deliver, dispatch_once, record, work_off_events
from deployment import Deployment, leave_cart, phone
from mortal import die_at
from world import MerchantClient

CARTS = 60  # more than there are points, or the story fails
CREDITS = 1_000
REFUSED = Recipient(outcome="rejected", error_code=21612)


@dataclass(frozen=True)
class Answer:
    """What the carrier does with every text, and what may be found when a worker has died: (state, texts there)."""

    name: str
    found: set[tuple[str, int]]
    ends: set[tuple[str, int]]
    faults: dict[str, Any] = field(default_factory=dict)
    refuses: bool = False

    def __str__(self) -> str:
        return self.name


NOT_CLAIMED, CLAIMED, TAKEN = ("scheduled", 0), ("sending", 0), ("sending", 1)
ANSWERS = [
    Answer(
        "accepts",
        {NOT_CLAIMED, CLAIMED, TAKEN, ("accepted", 1)},
        {("delivered", 1), ("not_accepted", 0)},
    ),
    Answer(
        "refuses",
        {NOT_CLAIMED, CLAIMED, ("rejected", 0)},
        {("rejected", 0), ("not_accepted", 0)},
        refuses=True,
    ),
    Answer(
        "is busy",
        {NOT_CLAIMED, CLAIMED, ("held", 0)},
        {("delivered", 1), ("not_accepted", 0)},
        {"throttle_rate": 1},
    ),
    Answer(
        "breaks before taking it",
        {NOT_CLAIMED, CLAIMED, ("unknown", 0)},
        {("delivered", 1), ("not_accepted", 0)},
        {"error_before_rate": 1},
    ),
    Answer(
        "takes it, hangs up and never tells",
        {NOT_CLAIMED, CLAIMED, TAKEN, ("unknown", 1)},
        {("delivered", 1), ("not_accepted", 0)},
        {"drop_after_rate": 1, "lost_callback_rate": 1},
    ),
]


@pytest.mark.thorough
@pytest.mark.parametrize("answer", ANSWERS, ids=str)
async def test_a_worker_dies_at_each_point(deployment: Deployment, answer: Answer) -> None:
    merchant = await due_carts(deployment, CARTS)
    await deployment.faults(**answer.faults)
    if answer.refuses:
        deployment.sandbox.state.recipients.update({phone(cart): REFUSED for cart in range(CARTS)})

    async def work(runtime: Runtime) -> None:
        claimed = await dispatch_once(runtime, 1)
        assert claimed.attempts
        await deliver(runtime, deployment.carrier, claimed.attempts)

    found: set[tuple[str, int]] = set()
    async for _ in deaths(deployment, work):
        found |= set(await fates(deployment))
        deployment.clock.advance(seconds=4)  # at its pace a sender is free again
    assert found == answer.found
    await deployment.faults()
    for minutes in (2, 30, 30):
        await deployment.jump(minutes=minutes)
    ends = Counter(await fates(deployment))
    assert set(ends) == answer.ends
    balance = await merchant.credits()
    assert balance["reserved_credits"] == 0
    assert balance["available_credits"] == CREDITS + 100 - 2 * ends["delivered", 1]


@pytest.mark.thorough
async def test_a_scheduler_that_asks_about_unknown_texts_dies_at_each_point(deployment: Deployment) -> None:
    """Of six texts of unknown fate the carrier took three."""
    merchant = await due_carts(deployment, 6)
    await deployment.faults(drop_after_rate=1, lost_callback_rate=1)
    await record(deployment.runtime, await deployment.send((await dispatch_once(deployment.runtime, 3)).attempts))
    await deployment.faults(error_before_rate=1, lost_callback_rate=1)
    await deployment.dispatch()
    await deployment.faults(lost_callback_rate=1)
    deployment.clock.advance(minutes=31)
    assert Counter(await fates(deployment)) == {("unknown", 1): 3, ("unknown", 0): 3}

    async def ask(runtime: Runtime) -> None:
        await resolve_unknown(runtime, deployment.carrier)

    async for died in deaths(deployment, ask):
        states = Counter(await fates(deployment))
        assert states in ({("unknown", 1): 3, ("unknown", 0): 3}, {("delivered", 1): 3, ("not_accepted", 0): 3}), died
    assert Counter(await fates(deployment)) == {("delivered", 1): 3, ("not_accepted", 0): 3}
    assert (await merchant.credits())["reserved_credits"] == 0


@pytest.mark.thorough
async def test_a_scheduler_that_looks_for_receipts_dies_at_each_point(deployment: Deployment) -> None:
    merchant = await due_carts(deployment, 3)
    await deployment.faults(lost_callback_rate=1)
    await deployment.dispatch()
    deployment.clock.advance(hours=72)

    async def look(runtime: Runtime) -> None:
        await ask_for_missing_receipts(runtime, deployment.carrier)

    async for _ in deaths(deployment, look):
        assert await fates(deployment) in ([("accepted", 1)] * 3, [("delivered", 1)] * 3)
    assert await fates(deployment) == [("delivered", 1)] * 3
    assert (await merchant.credits())["reserved_credits"] == 0


@pytest.mark.thorough
async def test_a_worker_that_works_receipts_off_dies_at_each_point(deployment: Deployment) -> None:
    merchant = await due_carts(deployment, 3)
    await deployment.script(phone(0), outcome="undelivered")
    await deployment.script(phone(1), outcome="failed")
    await deployment.dispatch()
    await deployment.sandbox.settled()

    async def work_off(runtime: Runtime) -> None:
        await work_off_events(runtime, 100)

    before, after = await fates(deployment), [("undelivered", 1), ("failed", 1), ("delivered", 1)]
    async for _ in deaths(deployment, work_off):
        assert await fates(deployment) in (before, after)
    assert await fates(deployment) == after
    balance = await merchant.credits()
    assert (balance["available_credits"], balance["reserved_credits"]) == (CREDITS + 100 - 2, 0), (
        "two are refunded, once"
    )


async def due_carts(deployment: Deployment, count: int) -> MerchantClient:
    """So many carts of one shop, whose texts are due."""
    shop = await deployment.shop(credits=CREDITS)
    for cart in range(count):
        await leave_cart(shop, f"cart-{cart:02}", phone=phone(cart))
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    return shop.merchant


async def deaths(deployment: Deployment, story: Callable[[Runtime], Awaitable[None]]) -> AsyncIterator[int]:
    """Play the story again and again, dying one step later each time; every invariant holds whatever has died."""
    for step in itertools.count(1):

        async def live(database: Database) -> None:
            await story(replace(deployment.runtime, db=database))

        died = await die_at(step, deployment.database_url, deployment.runtime.vault, live)
        await deployment.sound()
        yield step
        if not died:
            return


async def fates(deployment: Deployment) -> list[tuple[str, int]]:
    """Of each cart, in order: its text's state, and how many texts of it the carrier has."""
    found = await deployment.rows(
        "SELECT s.external_id, m.state FROM sms_messages m"
        " JOIN checkout_sessions s USING (organization_id, shop_id, session_id) ORDER BY s.external_id"
    )
    there = Counter(text.to for text in deployment.sandbox.state.texts.values())
    return [(each["state"], there[phone(int(each["external_id"].removeprefix("cart-")))]) for each in found]
