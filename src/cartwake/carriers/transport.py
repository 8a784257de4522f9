"""The wire under Twilio's SDK: where requests go, how long they may take, and that each goes out once.

The SDK (9.13) has no option for the base address, and its own asynchronous client ignores the
timeout it is given and repeats a POST after a 503, which texts a shopper twice. The seam that it
does offer is `http_client=`; this is ours. It adds no retries, and aiohttp itself repeats only
idempotent methods, so a POST is written to the network once or not at all.
"""

from __future__ import annotations

import base64
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import (
    ClientConnectorError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
)
from twilio.http import AsyncHttpClient
from twilio.http.response import Response

# What the SDK believes it talks to; `api_base` takes its place.
SDK_BASE = "https://api.twilio.com"

# Failures of connecting (refused, no such host, bad certificate, too slow): nothing was sent yet.
NEVER_SENT = (ClientConnectorError, ConnectionTimeoutError)


@dataclass(frozen=True)
class Answer:
    """What the SDK's exceptions do not say about an answer: its real status, and when to come back."""

    status: int
    retry_after: str | None
    date: str | None = None


# The last answer in this task. One call to the SDK runs in one task, so it is that call's.
LAST_ANSWER: ContextVar[Answer] = ContextVar("last_answer")


class Transport(AsyncHttpClient):
    """An HTTP client for the SDK: pooled connections to one carrier, no retries, a real timeout.

    Unlike the SDK's, it logs nothing: addresses and forms hold phone numbers.
    """

    def __init__(self, *, api_base: str, timeout_s: float, concurrency: int) -> None:
        """`api_base` may have a path; `timeout_s` covers connecting, sending and the whole answer."""
        super().__init__(logging.getLogger(__name__), is_async=True, timeout=timeout_s)
        self._api_base = api_base.rstrip("/")
        # Half for a connection, free or new: running out of that is known to be harmless, unlike a slow answer.
        self._timeout = ClientTimeout(total=timeout_s, connect=timeout_s / 2)
        self._concurrency = concurrency
        self._session: ClientSession | None = None

    async def request(  # type: ignore[override]
        self,
        method: str,
        uri: str,
        params: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - ours was set at the start
        allow_redirects: bool = False,
    ) -> Response:
        """Send one request, once. Raises what aiohttp raises; never follows a redirect with our credentials."""
        async with self._pool().request(
            method,
            self._address(uri),
            params=params,
            data=urlencode(data, doseq=True).encode() if data else None,
            headers=(headers or {}) | _basic(auth),
            allow_redirects=False,
        ) as answer:
            text = await answer.text()
        LAST_ANSWER.set(Answer(answer.status, answer.headers.get("Retry-After"), answer.headers.get("Date")))
        return Response(answer.status, text, answer.headers)

    async def close(self) -> None:
        """Close the pool; a later request opens a new one."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _pool(self) -> ClientSession:
        # Opened at first use: a session belongs to the event loop it is made in.
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=self._concurrency),
                timeout=self._timeout,
                cookie_jar=DummyCookieJar(),
            )
        return self._session

    def _address(self, uri: str) -> str:
        if not uri.startswith(SDK_BASE + "/"):
            raise ValueError("the SDK asked for an address that is not the carrier's API")
        return self._api_base + uri.removeprefix(SDK_BASE)


def _basic(auth: tuple[str, str] | None) -> dict[str, str]:
    if auth is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(":".join(auth).encode()).decode()}
