"""A shop's own server, listening on loopback for what Cartwake tells it. It answers what the test says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from deployment import serving
from ports import free_port

HANG, ENDLESS = -1, -2


@dataclass(frozen=True)
class Told:
    """One request that the server got."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    def signed_with(self, secret: str) -> bool:
        """What a receiver does by the specification (standardwebhooks.com), from its text and not from our code."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = b".".join([self.headers["webhook-id"].encode(), self.headers["webhook-timestamp"].encode(), self.body])
        good = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{good}" in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """The server: `answers` are used one by one, then it answers 200."""

    url: str
    answers: list[int] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    hanging: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: Request) -> Response:
        self.told.append(Told(dict(request.headers), await request.body()))
        self.heard.set()
        status = self.answers.pop(0) if self.answers else 200
        if status == HANG:
            self.hanging += 1
            await self.let_go.wait()
            return Response(status_code=200)
        if status == ENDLESS:
            return StreamingResponse(self._forever(), 200)
        return Response(b"x" * 1000, status, {"Location": self.url + "/elsewhere"} if status == 302 else None)

    async def _forever(self) -> AsyncIterator[bytes]:
        while not self.let_go.is_set():
            yield b"x" * 65536
            await asyncio.sleep(0.01)


@asynccontextmanager
async def receiving(*answers: int) -> AsyncIterator[Receiver]:
    """A shop's server at a loopback address."""
    base = f"http://127.0.0.1:{free_port()}"
    receiver = Receiver(base + "/hook?token=of-the-shop", list(answers))
    app = Starlette(routes=[Route("/{path:path}", receiver.take, methods=["GET", "POST"])])
    async with serving(app, base):
        yield receiver
        receiver.let_go.set()
