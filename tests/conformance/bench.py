"""What every `Carrier` must do, over real HTTP: the bench that one suite for all adapters is played on.

An adapter is tested against a peer that behaves like its carrier and lets a test decide what goes
wrong; `Bench` is what the suite needs of the two. So far there is one: Twilio on the sandbox.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import ClientSession, web

from cartwake.carriers.protocol import (
    Carrier,
    OutboundText,
)
from cartwake.carriers.sandbox import Faults, Options, Sandbox, running_sandbox
from cartwake.carriers.twilio import TwilioCarrier
from cartwake.kit.clock import ManualClock

ACCOUNT, TOKEN = "AC" + "7" * 32, "the-token-of-the-tests"

# Ona leaves carts in Vilnius; Viktor answers STOP to everything; the shop texts from a Lithuanian number.
ONA, VIKTOR, SHOP = "+37061234567", "+37061234568", "+37061000001"

MakeCarrier = Callable[..., Carrier]

SID = "SM" + "0123456789abcdef" * 2  # of no text
START = datetime(2026, 11, 24, 8, 15, 30, tzinfo=UTC)


@dataclass
class Webhook:
    """One request that our web received."""

    url: str
    body: bytes
    headers: dict[str, str]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query))


@dataclass
class Receiver:
    """Our web, as small as can be: it keeps what the carrier posts."""

    url: str = ""
    received: list[Webhook] = field(default_factory=list)

    async def keep(self, request: web.Request) -> web.Response:
        url = str(request.url)
        self.received.append(Webhook(url, await request.read(), dict(request.headers)))
        return web.Response(status=204)


@dataclass
class Bench:
    """A carrier, its peer, and our web."""

    carrier: Carrier
    peer: Sandbox
    receiver: Receiver
    clock: ManualClock
    make_carrier: MakeCarrier

    def go_wrong(self, **faults: Any) -> None:
        self.peer.state.faults = Faults(**faults)

    def taken(self, body: str) -> int:
        """How many texts with that body the peer took: what shoppers would get."""
        return sum(text.body == body for text in self.peer.state.texts.values())


@contextlib.asynccontextmanager
async def listening(handler: Any) -> AsyncIterator[str]:
    """A server on a free loopback port that answers everything with `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def twilio_on_sandbox() -> AsyncIterator[Bench]:
    receiver, clock = Receiver(), ManualClock(START)
    async with listening(receiver.keep) as our_web:
        receiver.url = our_web
        options = Options(
            account_sid=ACCOUNT,
            auth_token=TOKEN,
            inbound_url=our_web + "/hooks/twilio/inbound",
            sent_after_ms=0,
            delivered_after_ms=0,
        )
        async with running_sandbox(options, clock) as sandbox:

            def make_carrier(
                api_base: str = sandbox.url, timeout_s: float = 5, concurrency: int = 64, auth_token: str = TOKEN
            ) -> Carrier:
                return TwilioCarrier(
                    api_base=api_base,
                    account_sid=ACCOUNT,
                    auth_token=auth_token,
                    callback_url=our_web + "/hooks/twilio/status",
                    timeout_s=timeout_s,
                    concurrency=concurrency,
                )

            carrier = make_carrier()
            yield Bench(carrier, sandbox, receiver, clock, make_carrier)
            await carrier.close()


@pytest.fixture(params=[twilio_on_sandbox], ids=["twilio"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with request.param() as made:
        yield made


@pytest.fixture
def make_carrier(bench: Bench) -> MakeCarrier:
    """Adapters before a peer that a test puts in the carrier's place."""
    return bench.make_carrier


def a_text(**changes: Any) -> OutboundText:
    text = OutboundText(
        attempt_id=uuid.uuid4(),
        sender=SHOP,
        to=ONA,
        body=f"Your cart waits: https://s.example.com/r/{uuid.uuid4().hex[:8]}",
        validity_s=3600,
    )
    return replace(text, **changes)


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; fail after a while."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def signature_of(url: str, body: bytes, token: str = TOKEN) -> str:
    """As Twilio documents it: the address and the sorted fields, HMAC-SHA1, base64."""
    fields = sorted(parse_qsl(body.decode(), keep_blank_values=True))
    signed = url.encode() + b"".join((name + value).encode() for name, value in fields)
    return base64.b64encode(hmac.new(token.encode(), signed, hashlib.sha1).digest()).decode()


class Peculiar:
    """A carrier that answers every request in one peculiar way, and counts them."""

    def __init__(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.body, self.headers = status, body, headers or {}
        self.requests: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        await request.read()
        if self.status == 0:  # hang up in the middle of an answer
            assert request.transport is not None
            request.transport.write(b'HTTP/1.1 201 Created\r\nContent-Length: 900\r\n\r\n{"sid": "SM')
            request.transport.close()
        return web.Response(status=self.status or 500, text=self.body, headers=self.headers)


async def post(bench: Bench, path: str, document: dict[str, str]) -> Any:
    async with ClientSession() as client, client.post(bench.peer.url + path, json=document) as answer:
        assert answer.status == 201
        return await answer.json()


@contextlib.asynccontextmanager
async def tapped(url: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A wire to `url` that counts: its own address, and the address of every POST that has gone over it."""
    posts: list[bytes] = []
    peer = urlsplit(url)
    wires: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection(peer.hostname, peer.port)
        ways = [_pass_on(reader, here, posts), _pass_on(there, writer, [])]
        for way in ways:
            task = asyncio.create_task(way)
            wires.add(task)
            task.add_done_callback(wires.discard)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", posts
    finally:
        server.close()
        for task in list(wires):
            task.cancel()
        await asyncio.gather(*wires, return_exceptions=True)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, posts: list[bytes]) -> None:
    """Everything that comes, as it comes; what ends on one side ends on the other."""
    rest = b""
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65_536):
            *lines, rest = (rest + data).split(b"\r\n")
            posts.extend(line.split(b" ")[1] for line in lines if line.startswith(b"POST "))
            target.write(data)
            await target.drain()
    target.close()
