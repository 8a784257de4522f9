"""What shoppers write back reaches their shop: kept, listed, and told to the shop's own server over real HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cartwake.jobs.trigger import PostgresTrigger
from cartwake.kit.db import ENGINE
from cartwake.kit.runtime import Runtime
from cartwake.outbox.address import is_public
from cartwake.outbox.model import REPLY_RECEIVED, NewEvent
from cartwake.outbox.queue import enqueue
from cartwake.web.app import create_app
from cartwake.worker import claim_rounds, open_webhook_client, outbox_until, tell
from deployment import Deployment, leave_cart
from receiver import ENDLESS, HANG, Receiver, receiving
from world import AINO, RUTA, Json, ShopClient

BOUND_S = 20.0  # only keeps a broken worker from hanging the suite


async def listen(shop: ShopClient, receiver: Receiver) -> str:
    """The shop names its server; the secret that it is told."""
    secret: str = (await shop.call("PUT", "/v1/reply-webhook", {"url": receiver.url}))["secret"]
    return secret


async def texted(deployment: Deployment, name: str = "Lino Namai", recipient: str = RUTA) -> ShopClient:
    """A shop that has texted somebody about a cart."""
    shop = await deployment.shop(name)
    await leave_cart(shop, phone=recipient)
    await deployment.outlast_a_cart()
    return shop


async def tell_all(deployment: Deployment, runtime: Runtime | None = None) -> None:
    """What a worker does until nothing is due."""
    worker = runtime or deployment.runtime
    client = open_webhook_client(worker)
    while rounds := await claim_rounds(worker, 64):
        await asyncio.gather(*(tell(worker, client, each) for each in rounds))
    await client.close()


async def replies(shop: ShopClient, query: str = "") -> list[Json]:
    found: list[Json] = (await shop.call("GET", f"/v1/replies{query}"))["data"]
    return found


async def only_delivery(shop: ShopClient) -> Json:
    (reply,) = await replies(shop)
    delivery: Json = reply["delivery"]
    return delivery


async def test_a_reply_reaches_the_shop_s_server_signed(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving() as receiver:
        secret = await listen(shop, receiver)
        await deployment.reply(RUTA, "Ar dar turite M dydį? 👗")
        await tell_all(deployment)
        (told,) = receiver.told
        assert told.signed_with(secret) and not told.signed_with("whsec_" + "A" * 43 + "=")
        assert told.headers["content-type"] == "application/json"
        assert told.headers["webhook-timestamp"] == str(int(deployment.clock.now().timestamp()))
        (reply,) = await replies(shop)
        assert told.headers["webhook-id"] == reply["reply_id"]
        data = told.json["data"]
        assert told.json["type"] == "reply.received"
        assert (data["body"], data["phone"], data["meaning"]) == ("Ar dar turite M dydį? 👗", RUTA, "other")
        assert data["external_id"] == reply["external_id"] == "cart-1"
        assert data["message_id"] == reply["message_id"] == (await shop.session())["message"]["message_id"]
        assert reply["body"] == data["body"] and reply["phone_masked"] == "+370······67"
        assert (reply["delivery"]["state"], reply["delivery"]["attempts"]) == ("delivered", 1)


async def test_the_verification_in_the_docs_works(deployment: Deployment) -> None:
    page = (Path(__file__).parents[2] / "docs" / "texts.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    documented: dict[str, Any] = {}
    exec(code, documented)
    verify = documented["verify"]
    shop = await texted(deployment)
    async with receiving() as receiver:
        secret = await listen(shop, receiver)
        await deployment.reply(RUTA, "Hello?")
        await tell_all(deployment)
        (told,) = receiver.told
        now = deployment.clock.now().timestamp
        assert verify(secret, told.headers, told.body, now)
        assert not verify(secret, told.headers, told.body + b" ", now)
        assert not verify(secret, told.headers | {"webhook-id": "other"}, told.body, now)
        assert not verify(secret, told.headers | {"webhook-timestamp": str(int(now()) - 1)}, told.body, now)
        assert not verify(secret, told.headers, told.body, lambda: now() + 301)


@pytest.mark.thorough
async def test_a_server_that_fails_is_told_again_until_it_hears_and_then_no_more(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(500, 302, 200) as receiver:
        secret = await listen(shop, receiver)
        await deployment.reply(RUTA, "Hello?")
        for seconds, attempts, status, state in (
            (0, 1, 500, "waiting"),
            (10, 2, 302, "waiting"),
            (20, 3, 200, "delivered"),
        ):
            if seconds:
                deployment.clock.advance(seconds=seconds - 1)
                await tell_all(deployment)
                assert len(receiver.told) == attempts - 1, "not before its time"
                deployment.clock.advance(seconds=1)
            await tell_all(deployment)
            delivery = await only_delivery(shop)
            assert (delivery["attempts"], delivery["last_status"], delivery["state"]) == (attempts, status, state)
        deployment.clock.advance(days=3)
        await tell_all(deployment)
        assert len(receiver.told) == 3, "told once per success, and no redirect was followed"
        assert len({told.headers["webhook-id"] for told in receiver.told}) == 1, "by which the server knows it again"
        assert len({told.body for told in receiver.told}) == 1
        assert all(told.signed_with(secret) for told in receiver.told)
        assert len({told.headers["webhook-timestamp"] for told in receiver.told}) == 3
        (event,) = await deployment.rows("SELECT payload_sealed FROM outbox_events")
        assert event["payload_sealed"] is None, "what is over is not kept twice"


async def test_a_reply_that_the_server_refuses_holds_up_none_behind_it(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(400) as receiver:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "One")
        await deployment.reply(RUTA, "Two")
        await tell_all(deployment)
        two, one = await replies(shop)
        assert (one["delivery"]["state"], two["delivery"]["state"]) == ("waiting", "delivered")


@pytest.mark.thorough
async def test_a_server_that_never_hears_is_given_up_after_a_day(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(*[503] * 100) as receiver:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "Hello?")
        told_at = deployment.clock.now()
        while (delivery := await only_delivery(shop))["state"] == "waiting":
            await tell_all(deployment)
            deployment.clock.advance(minutes=5)
        assert delivery["state"] == "gave_up" and delivery["last_status"] == 503
        assert 10 < delivery["attempts"] == len(receiver.told) < 30
        assert (deployment.clock.now() - told_at).total_seconds() < 25 * 3600
        (reply,) = await replies(shop)
        assert reply["body"] == "Hello?", "the shop can still read it"


@asynccontextmanager
async def worker(deployment: Deployment) -> AsyncIterator[None]:
    """The loop that a worker runs."""
    stop = asyncio.Event()
    async with deployment.another_process(webhook_timeout_s=15.0) as runtime:
        trigger = PostgresTrigger(runtime.db, deployment.clock)
        loop = asyncio.create_task(outbox_until(runtime, trigger, stop))
        yield
        stop.set()
        await loop
        await trigger.close()


@pytest.mark.thorough
async def test_a_server_that_hangs_keeps_nobody_waiting(deployment: Deployment) -> None:
    slow, quick = await texted(deployment, "Slow"), await texted(deployment, "Quick", AINO)
    async with receiving(HANG) as stuck, receiving() as receiver, worker(deployment):
        await listen(slow, stuck)
        await listen(quick, receiver)
        await deployment.reply(RUTA, "One")
        await asyncio.wait_for(stuck.heard.wait(), BOUND_S)
        await deployment.reply(RUTA, "Two")
        await deployment.reply(AINO, "Three")
        await asyncio.wait_for(receiver.heard.wait(), BOUND_S)
        assert (stuck.hanging, len(stuck.told)) == (1, 1), "it hangs still, and is called no second time meanwhile"
        stuck.let_go.set()
        while len(stuck.told) < 2:
            await asyncio.sleep(0.01)
    assert [told.json["data"]["body"] for told in stuck.told] == ["One", "Two"]


@pytest.mark.thorough
async def test_a_worker_that_is_asked_to_stop_begins_no_further_call(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(HANG) as stuck:
        await listen(shop, stuck)
        await deployment.reply(RUTA, "One")
        await deployment.reply(RUTA, "Two")
        client = open_webhook_client(deployment.runtime)
        (leased,) = await claim_rounds(deployment.runtime, 64)
        telling = asyncio.create_task(tell(deployment.runtime, client, leased))
        await asyncio.wait_for(stuck.heard.wait(), BOUND_S)
        client.wind_down()
        stuck.let_go.set()
        await telling
        await client.close()
        two, one = await replies(shop)
        assert one["delivery"]["state"] == "delivered"
        assert two["delivery"]["state"] == "waiting" and two["delivery"]["attempts"] == 0
        await tell_all(deployment)
        assert [told.json["data"]["body"] for told in stuck.told] == ["One", "Two"]


@pytest.mark.thorough
async def test_a_server_that_does_not_answer_is_left_alone_for_a_while(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(HANG, HANG) as stuck, deployment.another_process(webhook_timeout_s=0.2) as impatient:
        await listen(shop, stuck)
        for body in ("One", "Two", "Three"):
            await deployment.reply(RUTA, body)
        await tell_all(deployment, impatient)
        assert len(stuck.told) == 1
        newest, _, oldest = await replies(shop)
        assert (oldest["delivery"]["last_error"], oldest["delivery"]["attempts"]) == ("timeout", 1)
        assert newest["delivery"]["attempts"] == 0
        await tell_all(deployment, impatient)
        assert len(stuck.told) == 1
        deployment.clock.advance(seconds=10)
        await tell_all(deployment, impatient)
        deployment.clock.advance(seconds=20)
        await tell_all(deployment, impatient)
        assert {each["delivery"]["state"] for each in await replies(shop)} == {"delivered"}


@pytest.mark.thorough
async def test_an_endless_answer_is_not_read(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(ENDLESS) as receiver:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "Hello?")
        await asyncio.wait_for(tell_all(deployment), BOUND_S)
        assert (await only_delivery(shop))["state"] == "delivered"


@pytest.mark.thorough
async def test_a_webhook_taken_back_is_told_nothing_more(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(500) as receiver:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "One")
        await tell_all(deployment)
        assert (await shop.api("DELETE", "/v1/reply-webhook")).status_code == 204
        assert (await shop.api("DELETE", "/v1/reply-webhook")).status_code == 204
        await deployment.reply(RUTA, "Two")
        deployment.clock.advance(hours=1)
        await tell_all(deployment)
        assert len(receiver.told) == 1
        two, one = await replies(shop)
        assert one["delivery"]["state"] == "cancelled" and two["delivery"] is None
        assert (await shop.api("GET", "/v1/reply-webhook")).status_code == 404
        assert (await shop.api("POST", "/v1/reply-webhook/secrets")).status_code == 404
        await listen(shop, receiver)
        await deployment.reply(RUTA, "Three")
        await tell_all(deployment)
        assert [told.json["data"]["body"] for told in receiver.told] == ["One", "Three"]


@pytest.mark.thorough
async def test_it_is_taken_back_while_its_server_is_being_told(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(HANG, 500) as receiver:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "One")
        await deployment.reply(RUTA, "Two")
        telling = asyncio.create_task(tell_all(deployment))
        await asyncio.wait_for(receiver.heard.wait(), BOUND_S)
        await shop.api("DELETE", "/v1/reply-webhook")
        receiver.let_go.set()
        await telling
        two, one = await replies(shop)
        assert (one["delivery"]["state"], two["delivery"]["state"]) == ("delivered", "cancelled")


@pytest.mark.thorough
async def test_a_new_address_gets_what_waits_and_keeps_the_secret(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving(500) as old, receiving() as new:
        secret = await listen(shop, old)
        await deployment.reply(RUTA, "Hello?")
        await tell_all(deployment)
        moved = await shop.call("PUT", "/v1/reply-webhook", {"url": new.url})
        assert moved["secret"] is None, "shown once"
        assert "secret" not in await shop.call("GET", "/v1/reply-webhook")
        await tell_all(deployment)
        assert len(new.told) == 1 and new.told[0].signed_with(secret)


async def test_for_a_day_both_secrets_sign(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving() as receiver:
        first = await listen(shop, receiver)
        second = (await shop.call("POST", "/v1/reply-webhook/secrets"))["secret"]
        assert second != first
        for hours, both in ((0, True), (23, True), (24, False)):
            deployment.clock.advance(hours=hours % 23 or (hours and 23))
            await deployment.reply(RUTA, f"After {hours}")
            await tell_all(deployment)
            assert receiver.told[-1].signed_with(second)
            assert receiver.told[-1].signed_with(first) is both
        held = await deployment.rows("SELECT url_sealed, secret_sealed, former_secret_sealed FROM shop_webhooks")
        assert all(b"whsec" not in value and b"token=" not in value for value in held[0].values())


async def test_a_worker_that_dies_is_followed_by_another(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving() as receiver, deployment.another_process() as other:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "Hello?")
        (leased,) = await claim_rounds(deployment.runtime, 64)
        assert await claim_rounds(other, 64) == [], "one worker at a time"
        client = open_webhook_client(deployment.runtime)
        await client.deliver(leased, deployment.clock)  # and dies before it can say so
        await client.close()
        deployment.clock.advance(seconds=81)
        await tell_all(deployment, other)
        assert len(receiver.told) == 2, "at least once"
        assert receiver.told[0].headers["webhook-id"] == receiver.told[1].headers["webhook-id"]
        assert (await only_delivery(shop))["state"] == "delivered"


@pytest.mark.thorough
async def test_a_worker_that_comes_back_after_its_lease_does_not_end_the_next_one_s(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving() as receiver, deployment.another_process() as other, deployment.another_process() as third:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "Hello?")
        (slow,) = await claim_rounds(deployment.runtime, 64)
        deployment.clock.advance(seconds=81)
        (leased,) = await claim_rounds(other, 64)
        client = open_webhook_client(deployment.runtime)
        slow_one = replace(slow, events=())  # nobody heard it: it found no way to the server
        await tell(deployment.runtime, client, slow_one)
        assert await claim_rounds(third, 64) == [], "the second worker still has the shop"
        await tell(other, client, leased)
        await client.close()
        assert len(receiver.told) == 1


@pytest.mark.thorough
async def test_two_workers_tell_each_reply_once(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving() as receiver, deployment.another_process() as other:
        await listen(shop, receiver)
        for number in range(25):
            await deployment.reply(RUTA, f"Reply {number}")
        await asyncio.gather(tell_all(deployment), tell_all(deployment, other), tell_all(deployment))
        await tell_all(deployment)
        assert [told.json["data"]["body"] for told in receiver.told] == [f"Reply {number}" for number in range(25)]


async def test_an_event_that_is_enqueued_twice_is_told_once(deployment: Deployment) -> None:
    shop = await deployment.shop()
    async with receiving() as receiver:
        await listen(shop, receiver)
        event = NewEvent(shop.scope, deployment.runtime.moment().new_id(), REPLY_RECEIVED, "{}")
        for expected in (1, 1):
            async with deployment.runtime.db.transaction(ENGINE) as conn:
                assert await enqueue(conn, deployment.runtime.moment(), [event]) == expected
            await tell_all(deployment)
        assert len(receiver.told) == 1


async def test_replies_without_a_webhook_are_kept_and_listed_in_pages(deployment: Deployment) -> None:
    shop = await texted(deployment)
    for number in range(3):
        await deployment.reply(RUTA, f"Reply {number}")
    page = await shop.call("GET", "/v1/replies?limit=2")
    assert [each["body"] for each in page["data"]] == ["Reply 2", "Reply 1"]
    rest = await shop.call("GET", f"/v1/replies?limit=2&before={page['next']}")
    assert [each["body"] for each in rest["data"]] == ["Reply 0"] and rest["next"] is None
    assert page["data"][0]["delivery"] is None
    assert await deployment.rows("SELECT 1 FROM outbox_events") == []


async def test_stop_and_start_are_not_replies_and_help_is(deployment: Deployment) -> None:
    shop = await texted(deployment)
    async with receiving() as receiver:
        await listen(shop, receiver)
        for body in ("STOP", "START", "pagalba", "Hello?"):
            await deployment.reply(RUTA, body)
        await tell_all(deployment)
        assert [told.json["data"]["meaning"] for told in receiver.told] == ["help", "other"]
        assert len(await deployment.phone_shows(RUTA)) == 1, "nothing of ours answers"


async def test_a_reply_belongs_to_the_shop_whose_number_it_was_sent_to(deployment: Deployment) -> None:
    lino, knygos = await texted(deployment, "Lino Namai"), await deployment.shop("Knygos")
    (sender,) = await deployment.rows("SELECT address FROM senders WHERE shop_id = %s", knygos.shop_id)
    await deployment.reply(RUTA, "Hello?", to=sender["address"])
    assert await replies(lino) == []
    (reply,) = await replies(knygos)
    assert (reply["message_id"], reply["external_id"]) == (None, None), "another shop's text is nobody's business"


async def test_what_the_carrier_says_twice_is_one_reply(deployment: Deployment) -> None:
    shop = await texted(deployment)
    (sender,) = await deployment.rows("SELECT address FROM senders WHERE shop_id = %s", shop.shop_id)
    form = {"MessageSid": "SM" + "7" * 32, "From": RUTA, "To": sender["address"], "Body": "Hello?"}
    for _ in range(2):
        await deployment.world.carrier_posts("/hooks/twilio/inbound", form)
        await deployment.world.carrier_posts("/hooks/twilio/inbound", form)
        await deployment.settle()
    assert len(await replies(shop)) == 1


# --- where a webhook may lead --------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/hook",
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://metadata.google.internal/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00::1]/",
        "https://10.1.2.3:8443/hook",
        "https://intranet/hook",
    ],
)
async def test_in_production_an_address_must_be_public_and_https(deployment: Deployment, url: str) -> None:
    shop = await deployment.shop()
    async with deployment.another_process(environment="production") as production:
        transport = httpx.ASGITransport(create_app(production, deployment.carrier))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            headers = {"Authorization": f"Bearer {shop.key}"}
            refused = await http.put("/v1/reply-webhook", json={"url": url}, headers=headers)
            assert refused.status_code == 400 and refused.json()["errors"][0]["field"] == "url"
            good = await http.put("/v1/reply-webhook", json={"url": "https://shop.example/hook"}, headers=headers)
            assert good.status_code == 200


@pytest.mark.thorough
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_in_production_nothing_private_is_connected_to_whatever_its_name(
    deployment: Deployment, host: str
) -> None:
    """The address was saved while it was allowed, or its name led elsewhere then."""
    shop = await texted(deployment)
    connections = 0

    def connected(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, deployment.another_process(environment="production") as production:
        for scheme, error in (("https", "forbidden_address"), ("http", "not_https")):
            await shop.call("PUT", "/v1/reply-webhook", {"url": f"{scheme}://{host}:{port}/hook"})
            await deployment.reply(RUTA, "Hello?")
            await tell_all(deployment, production)
            assert (await replies(shop))[-1]["delivery"]["last_error"] == error
    assert connections == 0


async def test_no_proxy_of_the_environment_gets_to_see_what_a_shop_is_told(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await texted(deployment)
    async with receiving() as receiver, receiving() as proxy:
        await listen(shop, receiver)
        await deployment.reply(RUTA, "Hello?")
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        await tell_all(deployment)
        assert (len(receiver.told), len(proxy.told)) == (1, 0)


NOT_PUBLIC = """
0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.168.0.1 192.0.2.1 198.18.0.1 224.0.0.1
255.255.255.255 :: ::1 fe80::1 fe80::1%eth0 fc00::1 fd12::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
::7f00:1 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:7f00:1:: 2001:0:101:101::80ff:fffe 2001:db8::1 fec0::1 feff::1 4000::1
shop.example
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_of_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.thorough
async def test_a_server_that_is_not_there(deployment: Deployment) -> None:
    shop = await texted(deployment)
    await shop.call("PUT", "/v1/reply-webhook", {"url": "http://127.0.0.1:9/hook"})
    await deployment.reply(RUTA, "Hello?")
    await tell_all(deployment)
    delivery = await only_delivery(shop)
    assert (delivery["state"], delivery["last_error"], delivery["last_status"]) == ("waiting", "unreachable", None)
