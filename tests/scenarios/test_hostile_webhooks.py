"""What the carrier did not say changes no row, whole or in part, and what it says again changes nothing more.

Every table is compared, as the catalogue lists them, so a new one cannot be forgotten. Each webhook of each provider is
in `WEBHOOKS`: the routes under /hooks are, or the first test fails.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import pytest

from catalogue import every_row
from deployment import Deployment, leave_cart, serving
from ports import free_port
from world import RUTA, ShopClient, sign

SID = "SM" + "7" * 32
NUMBER = "+37061000099"
# Each webhook: its path, and a form that would change something if it were believed.
WEBHOOKS: dict[str, tuple[str, dict[str, str]]] = {
    "status": ("/hooks/twilio/status", {"MessageStatus": "undelivered", "ErrorCode": "30003"}),
    "inbound": ("/hooks/twilio/inbound", {"MessageSid": SID, "From": RUTA, "To": NUMBER, "Body": "STOP"}),
}
LIMIT_BYTES = 65_536


async def accepted_text(deployment: Deployment) -> ShopClient:
    """Rūta's text is with the carrier, which has said no more yet."""
    shop = await deployment.shop(sender=NUMBER)
    await leave_cart(shop)
    await deployment.jump(minutes=30)
    await deployment.faults(lost_callback_rate=1)
    await deployment.jump(minutes=15)
    return shop


async def webhook(deployment: Deployment, shop: ShopClient, name: str) -> tuple[str, dict[str, str]]:
    """A webhook about her text: path and form."""
    path, form = WEBHOOKS[name]
    (message,) = await deployment.messages(shop)
    if name == "inbound":
        return path, form
    return f"{path}?attempt={message['attempt_id'].hex}", form | {"MessageSid": message["carrier_sid"]}


def test_every_webhook_is_tried(deployment: Deployment) -> None:
    paths = {getattr(route, "path", "") for route in deployment.world.app.routes}
    assert {path for path in paths if path.startswith("/hooks")} == {path for path, _ in WEBHOOKS.values()}


@pytest.mark.parametrize("name", WEBHOOKS)
async def test_what_was_not_signed_as_it_stands_changes_no_row(deployment: Deployment, name: str) -> None:
    shop = await accepted_text(deployment)
    path, form = await webhook(deployment, shop, name)
    body, good = urlencode(form).encode(), sign(deployment.runtime, path, form)
    before = every_row(deployment.database_url)
    forged: list[tuple[str, bytes, str]] = [
        (path, body, ""),
        (path, body, good[::-1]),
        (path, body + b"&Extra=1", good),
        (path + "&x=1" if "?" in path else path + "?x=1", body, good),
        *((path, body[:length], good) for length in range(len(body))),
        (path, body + b"&Body=" + b"x" * LIMIT_BYTES, good),
        *((other, body, good) for other, _ in WEBHOOKS.values() if not path.startswith(other)),
    ]
    for at, content, signature in forged:
        headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await deployment.world.http.post(at, content=content, headers=headers)
        assert answer.status_code in (403, 413), (at, len(content), answer.text)
    await deployment.settle()
    assert every_row(deployment.database_url) == before


@pytest.mark.parametrize("name", WEBHOOKS)
async def test_one_that_breaks_off_on_the_wire_or_is_too_large_changes_no_row(
    deployment: Deployment, name: str
) -> None:
    """Signed for what it would have been; the connection ends in the middle of it."""
    shop = await accepted_text(deployment)
    path, form = await webhook(deployment, shop, name)
    large = form | {"Extra": "x" * LIMIT_BYTES}
    port = free_port()
    before = every_row(deployment.database_url)
    async with serving(deployment.world.app, f"http://127.0.0.1:{port}"):
        for sent, part in ((form, 0.5), (form, 0.99), (large, 1.0), (large, 0.9)):
            await cut_off(port, path, sent, sign(deployment.runtime, path, sent), part)
    await deployment.settle()
    assert every_row(deployment.database_url) == before


async def cut_off(port: int, path: str, form: dict[str, str], signature: str, part: float) -> None:
    """Send so much of the request and hang up."""
    body = urlencode(form).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"X-Twilio-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body[: int(len(body) * part)])
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.thorough
@pytest.mark.parametrize("name", WEBHOOKS)
async def test_one_that_is_replayed_changes_nothing_more(deployment: Deployment, name: str) -> None:
    """Somebody who has seen it on its way sends it again, byte for byte, at once and a week later.

    No row but, of a receipt, the record that it came: what could not be applied the first time may be the second.
    """
    shop = await accepted_text(deployment)
    path, form = await webhook(deployment, shop, name)
    assert (await deployment.world.carrier_posts(path, form)).is_success
    await deployment.settle()
    # Each receipt is recorded as it comes; a shopper's text is kept once.
    kept = frozenset({"carrier_events"} if name == "status" else ())
    before = every_row(deployment.database_url, kept)
    recorded = len(every_row(deployment.database_url)["carrier_events"])
    for times, hours in enumerate((0, 168), 1):
        deployment.clock.advance(hours=hours)
        assert (await deployment.world.carrier_posts(path, form)).is_success
        await deployment.settle()
        assert every_row(deployment.database_url, kept) == before
        events = await deployment.rows("SELECT outcome FROM carrier_events ORDER BY event_id")
        assert len(events) == recorded + (times if kept else 0)
        assert not kept or events[-1]["outcome"] == "unchanged"


async def test_a_replayed_start_does_not_lift_a_later_stop(deployment: Deployment) -> None:
    """Nor does one that the carrier repeats because our answer was late."""
    shop = await accepted_text(deployment)
    for number, body in enumerate(("STOP", "START", "STOP", "START")):
        said = {
            "MessageSid": f"SM{min(number, 2) if body == 'STOP' else 1:032}",
            "From": RUTA,
            "To": NUMBER,
            "Body": body,
        }
        await deployment.world.carrier_posts("/hooks/twilio/inbound", said)
        await deployment.settle()
    assert (await shop.session())["consent"] == {"granted": False, "suppressed": True}
