"""`Idempotency-Key`: a POST that is sent again is not done again, and gets the answer that the first one got.

The work of a POST with a key and the record of its answer are one transaction. The handler's door
(`cartwake.web.auth`) opens it; it stays open while the answer is made, the answer is written into it, and it
is committed before the first byte goes out. So a crash at any point leaves both or neither. Only successes
are recorded: whatever else is answered did nothing, and may succeed when it is tried again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cartwake.kit.db import Connection
from cartwake.kit.moment import Moment
from cartwake.tenants.answers import Answer, KeyedRequest, KeyInUse, Owner, claim_answer, keep_answer
from cartwake.web.problems import Refused

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
# Where the request's `Once` is kept for the door.
SCOPE_NAME = "cartwake.once"
RETRY_AFTER_S = 1

_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")

Begin = Callable[[], AbstractAsyncContextManager[Connection]]


class Once:
    """One POST with a key: its transaction, from the handler's first look until the answer is known."""

    def __init__(self, key: str, content: str) -> None:
        """`content` is everything that the request asks for."""
        self._key = key
        self._content = content
        self._request: KeyedRequest | None = None
        self._moment: Moment | None = None
        self._work: AbstractAsyncContextManager[Connection] | None = None
        self._conn: Connection | None = None

    @asynccontextmanager
    async def open(self, owner: Owner, moment: Moment, begin: Begin) -> AsyncIterator[Connection]:
        """The transaction; left as it is when the handler is done with it, rolled back when the handler fails.

        Raises `Replay` when the request was answered before.
        """
        conn = self._conn or await self._begin(owner, moment, begin)
        try:
            yield conn
        except BaseException:
            await self._roll_back()
            raise

    async def finish(self, answer: Answer | None) -> None:
        """Commit the work with its answer; None: roll it back."""
        if self._work is None:
            return
        if answer is None:
            await self._roll_back()
            return
        assert self._conn is not None and self._moment is not None and self._request is not None
        try:
            await keep_answer(self._conn, self._moment, self._request, answer)
        except BaseException:
            await self._roll_back()
            raise
        work, self._work = self._work, None
        await work.__aexit__(None, None, None)

    async def _begin(self, owner: Owner, moment: Moment, begin: Begin) -> Connection:
        vault = moment.vault
        self._moment = moment
        self._request = KeyedRequest(
            owner, vault.hash(self._key, "idempotency-key"), vault.hash(self._content, "idempotent-request")
        )
        self._work = begin()
        self._conn = await self._work.__aenter__()
        try:
            answer = await claim_answer(self._conn, vault, self._request)
            if answer is not None:
                raise Replay(answer)
        except BaseException as error:
            await self._roll_back()
            if isinstance(error, KeyInUse):
                raise Refused(409, error.slug, error.detail, {"Retry-After": str(RETRY_AFTER_S)}) from None
            raise
        return self._conn

    async def _roll_back(self) -> None:
        work, self._work, self._conn = self._work, None, None
        if work is None:
            return
        # Given a reason, a transaction rolls back; it does not raise what it was given.
        reason = sys.exc_info()[1] or _NothingToKeep()
        await work.__aexit__(type(reason), reason, reason.__traceback__)


class Replay(Exception):
    """The request was answered before; this is what it was answered."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("answered before")
        self.answer = answer


class _NothingToKeep(Exception):
    """Ends a transaction whose request did not succeed."""


class Idempotency:
    """ASGI middleware: holds the answer to a POST with a key back until its work is committed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keys = Headers(scope=scope).getlist(HEADER) if _concerns(scope) else []
        if not keys:
            await self._app(scope, receive, send)
            return
        key = _checked(keys)
        body = await _read_body(receive)
        address = scope["path"] + "?" + scope["query_string"].decode("latin-1")
        once = scope[SCOPE_NAME] = Once(key, f"POST {address}\n{body.decode('latin-1')}")
        answer = _HeldAnswer()
        try:
            await self._app(scope, _repeating(body, receive), answer)
            await once.finish(answer.to_keep())
        except BaseException:
            await once.finish(None)
            raise
        for message in answer.messages:
            await send(message)


def through(once: Once | None, owner: Owner, moment: Moment, begin: Begin) -> AbstractAsyncContextManager[Connection]:
    """The request's transaction: `begin()`, or with a key the one that its answer will be written into."""
    return once.open(owner, moment, begin) if once else begin()


def handle_replays(app: FastAPI) -> None:
    """Answer what was answered before."""

    async def replay(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Replay)
        return Response(error.answer.body, error.answer.status, {REPLAYED_HEADER: "true"}, "application/json")

    app.add_exception_handler(Replay, replay)


class _HeldAnswer:
    """An answer that does not go out yet."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    def to_keep(self) -> Answer | None:
        """What to record; None unless it is a success."""
        if not self.messages or not 200 <= self.messages[0]["status"] < 300:
            return None
        body = b"".join(message.get("body", b"") for message in self.messages[1:])
        return Answer(self.messages[0]["status"], body.decode())


def _concerns(scope: Scope) -> bool:
    # The carrier's webhooks and the pages for shoppers repeat by rules of their own.
    return scope["type"] == "http" and scope["method"] == "POST" and str(scope["path"]).startswith("/v1/")


def _checked(keys: list[str]) -> str:
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(
            400,
            "invalid-idempotency-key",
            f"{HEADER} must be sent once, with 1 to 255 visible ASCII characters; a UUID is a good one.",
        )
    return keys[0]


async def _read_body(receive: Receive) -> bytes:
    """The whole body; the envelope bounds its size. Raises `Refused` when only a part of it comes."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":  # nobody waits for an answer; the log says what it would be
            raise Refused(400, "malformed-request", "The body broke off.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _repeating(body: bytes, receive: Receive) -> Receive:
    """`receive` as if nobody had read the body yet."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return parts.pop() if parts else await receive()

    return receive_again
