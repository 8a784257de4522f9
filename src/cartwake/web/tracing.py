"""A span around each request, where traces are on."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cartwake.kit import tracing
from cartwake.kit.metrics import method_label
from cartwake.web.metrics import route_of


class Traced:
    """ASGI middleware. A caller's own `traceparent` is not taken: strangers must not decide what is recorded."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with tracing.span("request", kind="SERVER") as note:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    note.say(http__response__status_code=message["status"])
                await send(message)

            try:
                await self._app(scope, receive, noted)
            finally:
                method, route = method_label(scope["method"]), route_of(scope)
                note.rename(f"{method} {route}")
                note.say(http__request__method=method, http__route=route, cartwake__request_id=scope["request_id"])
