"""Telling a shop's server, over a network that the merchant chooses and we must not trust.

One POST per event, with a limit on its time. No redirect is followed, no proxy of the environment used, and
nothing of the answer is read but its status. In production only https, and only addresses of the public
internet: they are judged at the moment of connecting, one by one, so that a name cannot mean one thing when
it is checked and another when it is used.
"""

from __future__ import annotations

import socket

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.typedefs import LooseHeaders

from cartwake.kit.clock import Clock
from cartwake.outbox.address import is_public
from cartwake.outbox.model import Round, Try, sign

USER_AGENT = "Cartwake-Webhooks/1"

_AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]


class ForbiddenAddressError(OSError):
    """The name leads to an address that is not of the public internet."""


class WebhookClient:
    """Calls shops' servers. Close it when the process ends."""

    def __init__(self, *, timeout_s: float, production: bool) -> None:
        """`timeout_s`: machine seconds for one call, from looking up the name to the answer's status."""
        self._timeout_s = timeout_s
        self._production = production
        self._session: ClientSession | None = None
        self._winding_down = False

    async def deliver(self, worked: Round, clock: Clock) -> list[Try]:
        """Tell a shop its due events one by one, until its server gives no answer at all."""
        tries: list[Try] = []
        for event in worked.events:
            if self._winding_down:
                break
            body = event.payload.encode()
            headers = sign(worked.secrets, event.event_id, int(clock.now().timestamp()), body)
            status, error = await self._post(worked.url, headers, body)
            tries.append(Try(event, status, error))
            if status is None:
                break
        return tries

    def wind_down(self) -> None:
        """Begin no further call: a process that is asked to stop must not wait for a whole round."""
        self._winding_down = True

    async def close(self) -> None:
        """Give connections back."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, url: str, headers: LooseHeaders, body: bytes) -> tuple[int | None, str | None]:
        """The answer's status; without an answer, why there is none."""
        if self._production and not url.startswith("https://"):
            return None, "not_https"
        try:
            async with self._pool().post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status, None  # leaving closes the connection: whatever else would come is not read
        except TimeoutError:
            return None, "timeout"
        except (ClientError, OSError, ValueError) as error:
            return None, "forbidden_address" if _is_forbidden(error) else "unreachable"

    def _pool(self) -> ClientSession:
        # Opened at first use: a session belongs to the event loop it is made in.
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(
                    force_close=True,  # a kept connection would not be judged again
                    use_dns_cache=False,
                    socket_factory=self._open_socket,
                ),
                timeout=ClientTimeout(total=self._timeout_s),
                headers={"Content-Type": "application/json", "User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                cookie_jar=DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    def _open_socket(self, address: _AddressInfo) -> socket.socket:
        """A socket for one address that a name led to, or that the merchant wrote. Raises `ForbiddenAddressError`."""
        family, kind, protocol, _, target = address
        if self._production and not is_public(str(target[0])):
            raise ForbiddenAddressError("not an address of the public internet")
        return socket.socket(family, kind, protocol)


def _is_forbidden(error: Exception) -> bool:
    """Whether no address that the name led to was allowed; aiohttp wraps what the socket factory raised."""
    return isinstance(getattr(error, "os_error", error), ForbiddenAddressError)
