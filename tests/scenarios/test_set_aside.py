"""One carrier event that the database refuses is set aside, and silences nobody else; it waits for an operator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from cartwake.kit.db import ENGINE
from cartwake.messages.inbox import INBOUND, store_events
from cartwake.observe.exporter import DatabaseGauges
from cartwake.worker import work_off_events
from deployment import Deployment, leave_cart
from typed import Cartwake, Said
from world import AINO, RUTA, ShopClient


async def on_the_pile(deployment: Deployment) -> float:
    """What a scraper of the scheduler sees."""
    read = await DatabaseGauges(deployment.runtime).read()
    return next(number for reading, _, number in read if reading.name == "cartwake_events_set_aside")


@contextmanager
def refusing(database_url: str, table: str, condition: str) -> Iterator[None]:
    """While the block lasts the database refuses rows of a table, as a bad row or a bug of ours would make it."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE {table} ADD CONSTRAINT bad CHECK ({condition}) NOT VALID".encode())
        yield
        owner.execute(f"ALTER TABLE {table} DROP CONSTRAINT bad".encode())


async def write(deployment: Deployment, *texts: tuple[str, str, str]) -> None:
    """Shoppers write to our numbers, in one breath: (from, to, body)."""
    said = [
        (INBOUND, {"sid": f"SM{number:032x}", "sender": sender, "to": to, "body": body})
        for number, (sender, to, body) in enumerate(texts)
    ]
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        await store_events(conn, deployment.runtime.moment(), said)


async def told(deployment: Deployment, cartwake: Cartwake, *words: str) -> Said:
    said = await asyncio.to_thread(cartwake, "events", *words, database_url=deployment.database_url)
    assert said.status == 0 or words[0] != "list", said
    return said


async def suppressed(shop: ShopClient, cart: str = "cart-1") -> bool:
    return bool((await shop.session(cart))["consent"]["suppressed"])


@pytest.fixture
async def shops(deployment: Deployment, settled_url: str) -> tuple[ShopClient, ShopClient]:
    """A shop whose rows the database will refuse, and a sound one."""
    bad, sound = await deployment.shop("Knygos", sender="+37061000001"), await deployment.shop(sender="+37061000002")
    await leave_cart(bad)
    await leave_cart(sound, phone=AINO)
    return bad, sound


async def test_a_stop_behind_a_bad_row_of_another_shop_is_heard(
    deployment: Deployment, cartwake: Cartwake, shops: tuple[ShopClient, ShopClient]
) -> None:
    bad, sound = shops
    await write(deployment, (RUTA, "+37061000001", "STOP"), (AINO, "+37061000002", "STOP"))
    with refusing(deployment.database_url, "consent_events", f"shop_id <> '{bad.shop_id}'"):
        assert await work_off_events(deployment.runtime, 500) == 2
        assert await work_off_events(deployment.runtime, 500) == 0, "it is not tried over and over"
        assert await suppressed(sound) and not await suppressed(bad)
        assert await on_the_pile(deployment) == 1
        said = (await told(deployment, cartwake, "list")).out
        line, *rest = said.splitlines()
        event_id = line.split()[0]
        assert "failed     CheckViolation" in line and line.endswith("stop from +370······67 to +37061000001")
        assert rest[0] == "1 set aside, 1 of them a STOP that is not heard yet." and RUTA not in said
        assert (await told(deployment, cartwake, "retry")).out.startswith("1 will be tried again")
        await work_off_events(deployment.runtime, 500)
        assert event_id in (await told(deployment, cartwake, "list")).out, "set aside again: its row is still bad"
    await told(deployment, cartwake, "retry", event_id)
    await work_off_events(deployment.runtime, 500)
    assert await suppressed(bad)
    assert (await told(deployment, cartwake, "list")).out.startswith("0 set aside")
    await deployment.outlast_a_cart()
    assert await deployment.phone_shows(RUTA) == []
    refused = await told(deployment, cartwake, "retry", event_id)
    assert (refused.status, refused.err) == (1, "No event with this id is set aside.\n")


@pytest.mark.thorough
async def test_what_was_set_aside_is_kept_and_can_be_let_go(
    deployment: Deployment, cartwake: Cartwake, shops: tuple[ShopClient, ShopClient]
) -> None:
    bad, _ = shops
    await write(deployment, (RUTA, "+37061000001", "where is my parcel?"))
    with refusing(deployment.database_url, "sms_replies", f"shop_id <> '{bad.shop_id}'"):
        await work_off_events(deployment.runtime, 500)
    event_id = (await told(deployment, cartwake, "list")).out.split()[0]
    assert (await told(deployment, cartwake, "dismiss", event_id)).out == "Dismissed.\n"
    await told(deployment, cartwake, "retry")
    await deployment.settle()
    assert (await bad.call("GET", "/v1/replies"))["data"] == []
    (kept,) = await deployment.rows("SELECT outcome, payload_sealed FROM carrier_events WHERE event_id = %s", event_id)
    assert kept["outcome"] == "dismissed" and kept["payload_sealed"]
    assert (await told(deployment, cartwake, "dismiss", event_id)).status == 1


@pytest.mark.thorough
async def test_a_receipt_that_comes_late_changes_only_what_it_still_may(
    deployment: Deployment, cartwake: Cartwake, shops: tuple[ShopClient, ShopClient]
) -> None:
    bad, sound = shops
    await deployment.jump(minutes=30)
    await deployment.faults(lost_callback_rate=1.0)
    await deployment.jump(minutes=20)
    assert [await shop.texts() for shop in shops] == [["accepted"], ["accepted"]]
    await deployment.receipts(bad, "undelivered", ErrorCode="30003")
    await deployment.receipts(sound, "delivered")
    before = (await bad.merchant.credits())["available_credits"]
    with refusing(deployment.database_url, "sms_messages", f"shop_id <> '{bad.shop_id}' OR state <> 'undelivered'"):
        await deployment.settle()
        assert [await shop.texts() for shop in shops] == [["accepted"], ["delivered"]]
        assert (await bad.merchant.credits())["available_credits"] == before, "all of it or nothing"
        await deployment.carrier_says(bad, "sent")
    assert await bad.texts() == ["sent"]
    await told(deployment, cartwake, "retry")
    await deployment.settle()
    assert await bad.texts() == ["undelivered"]
    (message,) = await deployment.messages(bad)
    assert (await bad.merchant.credits())["available_credits"] == before + message["credits"]
    await deployment.carrier_says(bad, "delivered")
    assert await bad.texts() == ["undelivered"]


async def test_a_fault_that_is_everybody_s_sets_nothing_aside(
    deployment: Deployment, shops: tuple[ShopClient, ShopClient]
) -> None:
    bad, sound = shops
    await write(deployment, (RUTA, "+37061000001", "STOP"), (AINO, "+37061000002", "STOP"))
    with psycopg.connect(deployment.database_url, autocommit=True) as owner:
        owner.execute("REVOKE INSERT ON consent_events FROM cartwake_engine")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await work_off_events(deployment.runtime, 500)
        owner.execute("GRANT INSERT ON consent_events TO cartwake_engine")
    assert await on_the_pile(deployment) == 0
    await deployment.settle()
    assert await suppressed(bad) and await suppressed(sound)
