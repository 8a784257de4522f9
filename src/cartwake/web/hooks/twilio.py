"""The carrier's webhooks: verified before they are parsed, stored before they are answered.

Plain endpoints, because they are the busiest: a sent text brings two or three receipts. What arrives
while a commit is under way is stored by the next one, all together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cartwake.carriers.protocol import Carrier
from cartwake.carriers.webhooks import INBOUND_PATH, STATUS_PATH
from cartwake.kit.coalescer import Coalescer
from cartwake.kit.db import WEB
from cartwake.kit.runtime import Runtime
from cartwake.messages.inbox import INBOUND, STATUS, store_events
from cartwake.web.problems import Refused

# TwiML for "no reply from us": STOP and its like are answered by the carrier itself.
NO_REPLY = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'

Event = tuple[str, dict[str, Any]]


class TwilioHooks:
    """Both webhooks of one process. Close it when the process ends, so that what it took is stored."""

    def __init__(self, runtime: Runtime, carrier: Carrier) -> None:
        self._runtime = runtime
        self._carrier = carrier
        self._inbox: Coalescer[Event] = Coalescer(self._store)

    def routes(self) -> list[Route]:
        """Where the carrier reaches them."""
        return [
            Route(STATUS_PATH, self.status, methods=["POST"]),
            Route(INBOUND_PATH, self.inbound, methods=["POST"]),
        ]

    async def status(self, request: Request) -> Response:
        """A delivery receipt. What says nothing that we act on is answered all the same, or it would come again."""
        body = await self._verified(request)
        report = self._carrier.read_status(body, request.query_params)
        if report is not None:
            attempt_id = str(report.attempt_id) if report.attempt_id else None
            payload = {"sid": report.sid, "attempt_id": attempt_id, "status": report.status}
            await self._inbox.submit((STATUS, payload | {"error_code": report.error_code}))
        return Response(status_code=204)

    async def inbound(self, request: Request) -> Response:
        """A text that a shopper sent to one of our numbers."""
        text = self._carrier.read_inbound(await self._verified(request))
        payload = {"sid": text.sid, "sender": text.sender, "to": text.to, "body": text.body}
        await self._inbox.submit((INBOUND, payload | {"opt_out_type": text.opt_out_type}))
        return Response(NO_REPLY, media_type="text/xml")

    async def close(self) -> None:
        """Return once everything that was taken is stored."""
        await self._inbox.close()

    async def _verified(self, request: Request) -> bytes:
        """The body, once its signature is known to be the carrier's."""
        body = await request.body()
        # The address that the carrier signed is the public one; a proxy in between may have changed ours.
        query = request.scope["query_string"].decode("latin-1")
        url = self._runtime.settings.public_url + request.scope["path"] + ("?" + query if query else "")
        if not self._carrier.verify(url, body, request.headers):
            raise Refused(403, "bad-signature", "The carrier's account did not sign this request to this address.")
        return body

    async def _store(self, events: Sequence[Event]) -> None:
        async with self._runtime.db.transaction(WEB) as conn:
            await store_events(conn, self._runtime.moment(), events)
