"""What is around every request: an id to ask about it by, a limit on its size, and an answer come what may."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cartwake.kit.db import is_transient
from cartwake.kit.logs import describe_error
from cartwake.web.gate import EXTRA_HEADERS
from cartwake.web.metrics import note_answer
from cartwake.web.problems import Refused, problem, refusal

BODY_MAX_BYTES = 64 * 1024
REQUEST_ID_HEADER = "X-Request-Id"

# A caller's own id is echoed and logged, so it may hold nothing that a log or a header could trip over.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PHONE = re.compile(r"\d{7,15}")

_TOO_LARGE = f"The body is larger than {BODY_MAX_BYTES} bytes."

_log = structlog.get_logger()


class Envelope:
    """ASGI middleware; the outermost, so that whatever fails inside it is still answered."""

    def __init__(self, app: ASGIApp, new_id: Callable[[], str]) -> None:
        """`new_id` names a request that brings no usable `X-Request-Id`."""
        self._app = app
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID_HEADER, "")
        request_id = scope["request_id"] = given if _is_usable(given) else self._new_id()
        answer = _Answer(send, request_id, scope)
        began_s = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            _check_length(headers)
            await self._app(scope, _limited(receive), answer)
        except Refused as refused:
            await refusal(refused)(scope, receive, answer)
        except Exception as error:
            _log_failure(scope, error)
            if not answer.started:
                await _apology(error, request_id)(scope, receive, answer)
        finally:
            note_answer(scope, answer.status, time.perf_counter() - began_s)
            structlog.contextvars.clear_contextvars()


class _Answer:
    """Passes an answer on with the headers that every answer has."""

    def __init__(self, send: Send, request_id: str, scope: Scope) -> None:
        self._send = send
        self._request_id = request_id
        self._scope = scope
        self.started = False
        self.status = 499  # the caller went away before there was an answer

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            headers[REQUEST_ID_HEADER] = self._request_id
            headers.setdefault("Cache-Control", "no-store")
            headers.update(self._scope.get(EXTRA_HEADERS, {}))
            headers["X-Content-Type-Options"] = "nosniff"
        await self._send(message)


def _is_usable(request_id: str) -> bool:
    """Whether a caller's own id may be logged. A phone is a bad id, and would stand in every line of the request."""
    return bool(_REQUEST_ID.fullmatch(request_id)) and not _PHONE.fullmatch(re.sub(r"[._-]", "", request_id))


def _check_length(headers: Headers) -> None:
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > BODY_MAX_BYTES:
        raise Refused(413, "body-too-large", _TOO_LARGE)


def _limited(receive: Receive) -> Receive:
    """`receive`, until more has come than a body may hold, whatever length was announced."""
    received_bytes = 0

    async def receive_counted() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > BODY_MAX_BYTES:
            raise Refused(413, "body-too-large", _TOO_LARGE)
        return message

    return receive_counted


def _apology(error: Exception, request_id: str) -> Response:
    if is_transient(error):  # a deadlock, a lost connection, a restart: nothing was written
        return problem(503, "try-again", "The database did not answer. Try again.", headers={"Retry-After": "1"})
    return problem(500, "internal-error", f"This is our mistake. Ask the operator about request {request_id}.")


def _log_failure(scope: Scope, error: Exception) -> None:
    """Log where it failed and what kind of failure it was; never its message, which may quote what was sent."""
    _log.error(
        "request.failed",
        request_id=scope["request_id"],
        method=scope["method"],
        endpoint=getattr(scope.get("endpoint"), "__qualname__", None),
        **describe_error(error),
    )
