"""One running sandbox: its two doors on one port."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hmac
import socket
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from cartwake.carriers.sandbox import resources
from cartwake.carriers.sandbox.accounts_api import AccountsApi
from cartwake.carriers.sandbox.callbacks import Webhooks
from cartwake.carriers.sandbox.control_api import ControlApi, explain_bad_input
from cartwake.carriers.sandbox.delivery import Courier
from cartwake.carriers.sandbox.messages_api import MessagesApi
from cartwake.carriers.sandbox.numbers_api import NumbersApi
from cartwake.carriers.sandbox.rules import Refusal
from cartwake.carriers.sandbox.state import Options, State
from cartwake.carriers.webhooks import INBOUND_PATH
from cartwake.kit.clock import Clock, SystemClock
from cartwake.kit.config import Settings
from cartwake.kit.listen import open_port
from cartwake.kit.loop import loop_factory

LOOPBACK = "127.0.0.1"

# Texts are kept by the hundred thousand and are part of no cycle, so looking for cycles among all of
# them again and again (the oldest generation) is wasted: it took a third of the CPU at 60,000 texts.
GC_THRESHOLDS = (20_000, 10, 100_000)


class Sandbox:
    """A Twilio-compatible carrier in memory. Make it inside a running event loop, then `start` it."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.state = State(options, clock)
        self._webhooks = Webhooks(options.auth_token, options.webhook_concurrency)
        self._courier = Courier(self.state, self._webhooks)
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,  # its lines would hold phone numbers
            shutdown_timeout=0.1,  # an answer that is late on purpose need not be waited for
        )
        self.url = ""

    async def start(self, host: str = LOOPBACK, port: int = 0, listener: socket.socket | None = None) -> None:
        """Listen; port 0 takes any free one. `url` then says where. Texts that a journal knows go on their way.

        `listener`: a socket that listens already. Raises `CannotListenError`.
        """
        for text in self.state.under_way():
            self._courier.carry(text)
        await self._runner.setup()
        listener = listener or open_port(host, port, "--port", "--host")
        await web.SockSite(self._runner, listener, backlog=1024).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def settled(self) -> None:
        """Return once every text has reached its end and every callback was sent."""
        await self._courier.settled()

    async def stop(self) -> None:
        """Stop listening and drop what is under way."""
        await self._courier.stop()
        await self._webhooks.close()
        await self._runner.cleanup()
        self.state.close()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[_authentication(self.state.options), explain_bad_input])
        app.router.add_routes(MessagesApi(self.state, self._courier).routes())
        app.router.add_routes(NumbersApi(self.state).routes())
        app.router.add_routes(AccountsApi(self.state).routes())
        app.router.add_routes(ControlApi(self.state, self._courier, self._webhooks).routes())
        return app


def _authentication(options: Options) -> Any:
    """Basic authentication with account SID and auth token, for Twilio's door only."""
    credentials = f"{options.account_sid}:{options.auth_token}".encode()
    expected = "Basic " + base64.b64encode(credentials).decode()
    account = f"{resources.API}/{options.account_sid}"

    @web.middleware
    async def authenticate(request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/sandbox"):
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode()):
                return resources.refuse(Refusal(20003))
            if not request.path.startswith((account + "/", account + ".json")):  # another account, or no such resource
                return resources.refuse(Refusal(20404))
        response: web.StreamResponse = await handler(request)
        return response

    return authenticate


@contextlib.asynccontextmanager
async def running_sandbox(options: Options | None = None, clock: Clock | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox on a free loopback port, inside the running event loop, for as long as the block lasts."""
    sandbox = Sandbox(options or Options(), clock or SystemClock())
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()


def options_for(settings: Settings) -> Options:
    """The sandbox that fits a deployment: its account, its token, and its address for replies."""
    return Options(
        account_sid=settings.twilio_account_sid,
        auth_token=settings.twilio_auth_token.get_secret_value(),
        inbound_url=settings.public_url + INBOUND_PATH,
    )


def run(host: str, port: int, options: Options, clock: Clock, listener: socket.socket | None = None) -> None:
    """Serve until interrupted; blocks. For a process that does nothing else: it tunes the garbage collector.

    `listener`: a socket that listens already, in place of host and port.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=loop_factory()) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(_serve(host, port, options, clock, listener))


async def _serve(host: str, port: int, options: Options, clock: Clock, listener: socket.socket | None) -> None:
    sandbox = Sandbox(options, clock)
    await sandbox.start(host, port, listener)
    print(f"Carrier sandbox on {sandbox.url}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await sandbox.stop()
