"""Posting webhooks as Twilio does: signed, through a pool, with the retries that the address asks for.

Signature: base64 of HMAC-SHA1 under the auth token over the address (with its query, without its
fragment) and every field in order of its name ("Validating requests" in Twilio's documentation).
Written from that description rather than with the SDK, so that the two check each other.

Retries: `#rc=…&rp=…` behind the address ("Webhook connection overrides"): how many, and after which
failures: `ct` (no connection, the default), `rt` (no answer), `4xx`, `5xx`, `all`.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qs, urlencode

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

RETRIES_DEFAULT = 1
RETRIES_MAX = 5
ANSWER_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0
FIRST_RETRY_AFTER_S = 0.2  # doubled each time: five retries take about six seconds


@dataclass(frozen=True)
class Try:
    """One try at a webhook: the answer's status if there was one, and the kind of failure if it failed."""

    http_status: int | None
    failure: str | None


def sign(auth_token: str, url: str, fields: Mapping[str, str]) -> str:
    """The value of `X-Twilio-Signature` for a form posted to `url` (without a fragment)."""
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.digest(auth_token.encode(), signed.encode(), "sha1")).decode()


@lru_cache(maxsize=64)  # a deployment has one such fragment, or two
def retry_rule(fragment: str) -> tuple[int, frozenset[str]]:
    """How many retries, and after which failures, from the fragment of a webhook's address."""
    overrides = parse_qs(fragment)
    count = overrides.get("rc", [""])[-1]
    retries = min(int(count), RETRIES_MAX) if count.isascii() and count.isdigit() else RETRIES_DEFAULT
    return retries, frozenset(overrides.get("rp", ["ct"])[-1].split(","))


class Webhooks:
    """Posts signed forms, a bounded number at a time."""

    def __init__(self, auth_token: str, concurrency: int) -> None:
        self._auth_token = auth_token
        self._slots = asyncio.Semaphore(concurrency)
        self._session: ClientSession | None = None

    async def post(self, url: str, fields: Mapping[str, str]) -> int | None:
        """Deliver one webhook, with its retries. The status of the last answer, None when nobody answered."""
        address, _, fragment = url.partition("#")
        retries, retried = retry_rule(fragment)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Twilio-Signature": sign(self._auth_token, address, fields),
        }
        body = urlencode(fields).encode()
        outcome = await self._try(address, body, headers)
        for retry in range(retries):
            if outcome.failure is None or not retried & {outcome.failure, "all"}:
                break
            await asyncio.sleep(FIRST_RETRY_AFTER_S * 2**retry)
            outcome = await self._try(address, body, headers)
        return outcome.http_status

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _try(self, address: str, body: bytes, headers: dict[str, str]) -> Try:
        # `encoded`: the address must arrive exactly as it was signed.
        target = URL(address, encoded=True)
        try:
            async with (
                self._slots,
                self._pool().post(target, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                await answer.read()
        except ClientConnectorError:
            return Try(None, "ct")
        except (ClientError, TimeoutError, ValueError):
            return Try(None, "rt")
        failure = f"{answer.status // 100}xx" if answer.status >= 400 else None
        return Try(answer.status, failure)

    def _pool(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=0),
                timeout=ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=DummyCookieJar(),
            )
        return self._session
