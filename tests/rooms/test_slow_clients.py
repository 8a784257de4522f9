"""Slow and half-open clients do not starve others, whether they have a key or not.

Nothing is said about how long anything takes: others are served while all of these still hang.
"""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest

from deployment import serving
from ports import free_port
from world import TICKED, ShopClient, World, cart

HALF_OPEN = 150
WITH_A_KEY = 30  # of each kind: three times the connections that a process has to the database
UNREAD = 12  # likewise more than those
OTHERS = 20
BOUND_S = 60.0  # a test that would hang for ever fails

UNFINISHED = [
    b"",  # says nothing at all
    b"PUT /v1/checkout-sessions/x HTTP/1.1\r\nHost: x\r\nAuth",  # stops within its headers
    b"PUT /v1/checkout-sessions/x HTTP/1.1\r\nHost: x\r\nContent-Type: text/json\r\nContent-Length: 60000\r\n\r\n{",
    b"POST /hooks/twilio/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nMess",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # speaks TLS to a plain port
]

Held = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.mark.thorough
async def test_others_are_served_while_many_hold_a_connection_open(world: World) -> None:
    shop = await world.shop()
    port = free_port()
    async with serving(world.app, f"http://127.0.0.1:{port}"):
        held = [await hold(port, UNFINISHED[number % len(UNFINISHED)]) for number in range(HALF_OPEN)]
        await all_served(port, shop)
        still_held(held)


async def test_half_a_body_of_somebody_with_a_key_holds_nothing_that_others_need(world: World) -> None:
    """Nor is anything done of it, when at last the client goes away."""
    shop, other = await world.shop(), await world.shop("Knygos")
    whole = json.dumps(cart(consent=TICKED)).encode()
    port = free_port()
    async with serving(world.app, f"http://127.0.0.1:{port}"):
        held = []
        for number in range(WITH_A_KEY):
            put = request(shop, "PUT", f"/v1/checkout-sessions/half-{number}", whole)
            post = request(shop, "POST", "/v1/consent-withdrawals", b'{"phone": "+37061234567"}', f"half-{number}")
            held += [await hold(port, sent[:-9]) for sent in (put, post)]
        await all_served(port, other)
        await all_served(port, shop)
        still_held(held)
    for number in range(WITH_A_KEY):
        assert (await shop.api("GET", f"/v1/checkout-sessions/half-{number}")).status_code == 404
    assert (await shop.session("cart-0"))["consent"]["granted"] is True


@pytest.mark.thorough
async def test_answers_that_nobody_reads_hold_nothing_that_others_need(world: World) -> None:
    """A POST with its work done, then what is large, on each connection until no more goes into it."""
    shop, other = await world.shop(), await world.shop("Knygos")
    form = json.dumps({"text": "{shop}: {link} {opt_out} " + "ž" * 200}).encode()
    port = free_port()
    server = serving(world.app, f"http://127.0.0.1:{port}")
    async with server:
        held = []
        for number in range(UNREAD):
            keyed = request(shop, "POST", "/v1/previews", form, f"key-{number}")
            held.append(await hold(port, keyed + request(shop, "GET", "/openapi.json", b"") * 20))
        async with asyncio.timeout(BOUND_S):
            while server.unread() < len(held):
                await asyncio.sleep(0.01)
        await all_served(port, other)
        await all_served(port, shop)
        assert server.unread() == len(held), "they were there all the while"
        still_held(held)


def request(shop: ShopClient, method: str, path: str, body: bytes, key: str = "") -> bytes:
    """A whole request as it goes over the wire."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {shop.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"Idempotency-Key: {key}"] if key else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def hold(port: int, sent: bytes) -> Held:
    """A client with little room that sends so much, and then neither writes nor reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(sent)  # not drained: the server may stop reading too
    return reader, writer


async def all_served(port: int, shop: ShopClient) -> None:
    """Other clients of a shop tell about their carts, all at once, and are answered."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=BOUND_S) as http:
        headers = {"Authorization": f"Bearer {shop.key}"}
        answers = await asyncio.gather(
            *(
                http.put(f"/v1/checkout-sessions/cart-{n}", json=cart(consent=TICKED), headers=headers)
                for n in range(OTHERS)
            )
        )
    assert [answer.status_code for answer in answers] == [201] * OTHERS


def still_held(held: list[Held]) -> None:
    """None of them was answered or sent away meanwhile: they were in the way for as long as they could be."""
    for reader, writer in held:
        assert not reader.at_eof() and not writer.is_closing()
        writer.transport.abort()
