"""STOP and START close together: the last one counts, and the proof shows them in the order in which they counted."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest

from cartwake.carriers.open import INBOUND_PATH
from cartwake.carts.links import link_id_of, link_path
from cartwake.consent.events import grant
from cartwake.consent.model import Action, Channel, ConsentChange
from cartwake.consent.store import change_states
from cartwake.invariants import broken_invariants
from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE
from cartwake.kit.ids import Ids
from cartwake.kit.phones import hash_phone
from cartwake.kit.runtime import Runtime
from cartwake.worker import work_off_events
from deployment import Deployment, leave_cart
from world import RUTA, ShopClient

OUR_NUMBER = "+37061000099"
# By time alone: two events of one phone never happen at one instant, so nothing else has to decide.
PROOF = """
SELECT e.action, e.at FROM consent_events e JOIN consent_evidence v USING (organization_id, shop_id, event_id)
WHERE e.shop_id = %s ORDER BY e.at
"""


async def shop_with_a_cart(deployment: Deployment) -> ShopClient:
    """Rūta has left a cart, and agreed to be texted about it."""
    shop = await deployment.shop(sender=OUR_NUMBER)
    await leave_cart(shop)
    return shop


SIDS = itertools.count()


async def write(deployment: Deployment, *words: str) -> None:
    """Rūta writes to the shop's number; nobody has worked it off yet."""
    for word in words:
        form = {"MessageSid": f"SM{next(SIDS):032x}", "From": RUTA, "To": OUR_NUMBER, "Body": word}
        answer = await deployment.world.carrier_posts(INBOUND_PATH, form)
        assert answer.status_code == 200, answer.text


async def proof(deployment: Deployment, shop: ShopClient) -> list[str]:
    """What happened to Rūta's consent, in order."""
    events = await deployment.rows(PROOF, shop.shop_id)
    assert len({event["at"] for event in events}) == len(events), "two at one instant: their order is chance"
    return [event["action"] for event in events]


def with_a_clock_ahead(runtime: Runtime, seconds: float) -> Runtime:
    """The same on a machine whose clock is ahead."""
    return replace(runtime, clock=ManualClock(runtime.clock.now() + timedelta(seconds=seconds)), ids=Ids(seed=9))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "events", "is_texted"),
    [
        (["STOP", "START"], ["granted", "suppressed", "unsuppressed"], True),
        (["START", "STOP"], ["granted", "suppressed"], False),
        (["STOP", "START", "Stop please"], ["granted", "suppressed", "unsuppressed", "suppressed"], False),
        (["STOP", "STOP", "START"], ["granted", "suppressed", "suppressed", "unsuppressed"], True),
    ],
    ids=["stop start", "start stop", "stop start stop", "stop stop start"],
)
async def test_of_a_stop_and_a_start_in_one_batch_the_last_one_counts(
    deployment: Deployment, words: list[str], events: list[str], is_texted: bool
) -> None:
    shop = await shop_with_a_cart(deployment)
    await write(deployment, *words)
    assert await work_off_events(deployment.runtime, 500) == len(words), "one batch, one transaction"
    assert await proof(deployment, shop) == events
    await deployment.jump(minutes=45)
    assert len(await deployment.phone_shows(RUTA)) == is_texted


async def test_the_opt_out_link_pressed_after_a_start_counts_although_that_is_worked_off_later(
    deployment: Deployment,
) -> None:
    shop = await shop_with_a_cart(deployment)
    await deployment.outlast_a_cart()
    (message,) = await deployment.messages(shop)
    vault = deployment.runtime.vault
    link = deployment.runtime.settings.public_url + link_path(
        vault, link_id_of(vault, message["message_id"]), "opt-out"
    )
    assert (await deployment.http.post(link, data={"action": "stop"})).status_code == 200
    deployment.clock.advance(seconds=1)
    await write(deployment, "START")
    deployment.clock.advance(seconds=1)
    assert (await deployment.http.post(link, data={"action": "stop"})).status_code == 200
    await work_off_events(deployment.runtime, 500)
    assert (await shop.session())["consent"]["suppressed"] is True
    assert await proof(deployment, shop) == ["granted", "suppressed"]


@pytest.mark.parametrize("stop_is_heard", [True, False])
async def test_a_withdrawal_after_a_start_counts_although_that_is_worked_off_later(
    deployment: Deployment, stop_is_heard: bool
) -> None:
    shop = await shop_with_a_cart(deployment)
    await write(deployment, "STOP")
    if stop_is_heard:
        await work_off_events(deployment.runtime, 500)
    deployment.clock.advance(seconds=1)
    await write(deployment, "START")
    deployment.clock.advance(seconds=1)
    await shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA})
    await work_off_events(deployment.runtime, 500)
    assert (await shop.session())["consent"] == {"granted": False, "suppressed": True}
    deployment.clock.advance(seconds=1)
    await write(deployment, "START")
    await work_off_events(deployment.runtime, 500)
    assert (await shop.session())["consent"] == {"granted": True, "suppressed": False}


async def test_a_receipt_that_is_told_again_takes_no_start_back(deployment: Deployment) -> None:
    shop = await shop_with_a_cart(deployment)
    await deployment.outlast_a_cart()
    await deployment.carrier_says(shop, "unsubscribed", "unsubscribed")
    deployment.clock.advance(seconds=1)
    await write(deployment, "START")
    await work_off_events(deployment.runtime, 500)
    await deployment.carrier_says(shop, "unsubscribed")
    assert (await shop.session())["consent"] == {"granted": True, "suppressed": False}
    assert await proof(deployment, shop) == ["granted", "suppressed", "unsuppressed"]
    await deployment.carrier_says(shop, "undelivered", ErrorCode="30005")
    await deployment.carrier_says(shop, "undelivered", ErrorCode="30005")
    assert await proof(deployment, shop) == ["granted", "suppressed", "unsuppressed", "suppressed"]
    assert (await shop.session())["consent"] == {"granted": True, "suppressed": True}, "she took nothing back"


async def test_the_proof_is_in_order_although_the_second_machine_s_clock_is_behind(deployment: Deployment) -> None:
    shop = await shop_with_a_cart(deployment)
    await write(deployment, "STOP")
    await work_off_events(with_a_clock_ahead(deployment.runtime, seconds=2), 500)
    await write(deployment, "START")
    await work_off_events(deployment.runtime, 500)
    assert await proof(deployment, shop) == ["granted", "suppressed", "unsuppressed"]
    assert (await shop.session())["consent"] == {"granted": True, "suppressed": False}


async def test_clocks_that_differ_do_not_turn_a_withdrawal_and_a_new_box_around(deployment: Deployment) -> None:
    shop = await shop_with_a_cart(deployment)
    await write(deployment, "STOP")
    await work_off_events(with_a_clock_ahead(deployment.runtime, seconds=2), 500)
    await write(deployment, "START")
    await work_off_events(deployment.runtime, 500)
    await shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA})
    await leave_cart(shop, "cart-2")
    assert await proof(deployment, shop) == ["granted", "suppressed", "unsuppressed", "withdrawn", "granted"]


async def test_start_lifts_a_stop_although_the_carrier_has_not_reached_the_phone_since(deployment: Deployment) -> None:
    shop = await shop_with_a_cart(deployment)
    await deployment.outlast_a_cart()
    await write(deployment, "STOP")
    await work_off_events(deployment.runtime, 500)
    await deployment.carrier_says(shop, "undelivered", ErrorCode="30005")
    deployment.clock.advance(seconds=1)
    await write(deployment, "START")
    await work_off_events(deployment.runtime, 500)
    assert (await shop.session())["consent"] == {"granted": True, "suppressed": False}


async def test_a_no_that_waited_for_a_claim_comes_after_the_text_in_the_proof(deployment: Deployment) -> None:
    shop = await shop_with_a_cart(deployment)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    with psycopg.connect(deployment.database_url) as stranger:
        stranger.execute("SELECT FROM consent_states FOR SHARE")  # as a claim does
        says_no = asyncio.create_task(shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA}))
        await deployment.waits_for_a_lock_or_ends(says_no)
        deployment.clock.advance(seconds=20)
        await deployment.dispatch()
        stranger.rollback()
    await says_no
    await deployment.sound()
    assert len(await deployment.phone_shows(RUTA)) == 1
    assert await proof(deployment, shop) == ["granted", "withdrawn"]


async def test_a_claim_that_waited_for_a_yes_comes_after_it_in_the_proof(deployment: Deployment) -> None:
    shop = await shop_with_a_cart(deployment)
    await deployment.jump(minutes=30)
    await shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA})
    deployment.clock.advance(minutes=15)
    runtime = deployment.runtime
    change = ConsentChange(shop.scope.organization_id, shop.scope.shop_id, hash_phone(runtime.vault, RUTA))
    async with deployment.another_process() as web, web.db.transaction(ENGINE) as conn:
        await change_states(conn, runtime.clock.now(), Action.GRANTED, [change], said_at=runtime.clock.now())
        claiming = asyncio.create_task(deployment.dispatch())
        await deployment.waits_for_a_lock_or_ends(claiming)
        deployment.clock.advance(seconds=20)
        await grant(conn, web.moment(), Channel.CHECKBOX, [change])
    await claiming
    await deployment.sound()
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_a_stop_after_a_claim_by_a_clock_ahead_breaks_no_invariant(deployment: Deployment) -> None:
    shop = await shop_with_a_cart(deployment)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    await deployment.dispatch(with_a_clock_ahead(deployment.runtime, seconds=2))
    await write(deployment, "STOP")
    await work_off_events(deployment.runtime, 500)
    assert await broken(deployment, "SELECT") == set(), "the proof shows the no two seconds before the text"
    assert len(await deployment.phone_shows(RUTA)) == 1
    assert await proof(deployment, shop) == ["granted", "suppressed"]


@pytest.mark.parametrize(
    "moved", ["+ interval '1 minute'", "- interval '1 hour'"], ids=["after a no", "before the yes"]
)
async def test_a_text_without_consent_is_noticed(deployment: Deployment, moved: str) -> None:
    await shop_with_a_cart(deployment)
    await deployment.jump(minutes=30)
    await deployment.jump(minutes=15)
    await write(deployment, "STOP")
    await work_off_events(deployment.runtime, 500)
    change = f"UPDATE sms_messages SET attempted_at = attempted_at {moved}"
    assert "texted_with_consent" in await broken(deployment, change)


async def broken(deployment: Deployment, change: LiteralString) -> set[str]:
    """The invariants that are broken after a change, which is taken back."""
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        await conn.execute(change)
        found = {each.name for each in await broken_invariants(conn, deployment.clock.now())}
        await conn.rollback()
    return found
