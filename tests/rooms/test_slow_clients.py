"""Slow and half-open clients do not starve others."""

from __future__ import annotations

import asyncio

import httpx

from deployment import free_port, serving
from world import TICKED, World, cart

HALF_OPEN = 150
BOUND_S = 30.0

UNFINISHED = [
    b"",  # says nothing at all
    b"PUT /v1/checkout-sessions/x HTTP/1.1\r\nHost: x\r\nAuth",  # stops within its headers
    b"PUT /v1/checkout-sessions/x HTTP/1.1\r\nHost: x\r\nContent-Type: text/json\r\nContent-Length: 60000\r\n\r\n{",
    b"POST /hooks/twilio/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nMess",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # speaks TLS to a plain port
]


async def test_others_are_served_while_many_hold_a_connection_open(world: World) -> None:
    shop = await world.shop()
    port = free_port()
    async with serving(world.app, f"http://127.0.0.1:{port}"):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(HALF_OPEN)]
        for number, (_, writer) in enumerate(held):
            writer.write(UNFINISHED[number % len(UNFINISHED)])
            await writer.drain()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            headers = {"Authorization": f"Bearer {shop.key}"}
            answers = await asyncio.wait_for(
                asyncio.gather(
                    *(
                        http.put(f"/v1/checkout-sessions/cart-{n}", json=cart(consent=TICKED), headers=headers)
                        for n in range(20)
                    )
                ),
                BOUND_S,
            )
        assert [answer.status_code for answer in answers] == [201] * 20
        for _, writer in held:
            writer.close()
