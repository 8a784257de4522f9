"""The web process's application, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from cartwake import __version__
from cartwake.carriers.protocol import Carrier
from cartwake.kit import tracing
from cartwake.kit.runtime import Runtime
from cartwake.web import health
from cartwake.web.api import (
    consent_chain,
    doubts,
    keys,
    merchants,
    messages,
    organizations,
    previews,
    replies,
    sessions,
    shoppers,
    sms_configs,
    switches,
    templates,
)
from cartwake.web.envelope import Envelope
from cartwake.web.gate import Gate
from cartwake.web.hooks.twilio import TwilioHooks
from cartwake.web.hosted import opt_out, recovery
from cartwake.web.once import Idempotency, handle_replays
from cartwake.web.openapi import describe
from cartwake.web.problems import handle_problems
from cartwake.web.reference import pages as reference
from cartwake.web.tracing import Traced

API = (
    sessions,
    sms_configs,
    messages,
    previews,
    templates,
    replies,
    shoppers,
    consent_chain,
    merchants,
    organizations,
    switches,
    doubts,
    keys,
)


def create_app(runtime: Runtime, carrier: Carrier) -> FastAPI:
    """Everything that answers HTTP. The caller owns `runtime` and `carrier`, and closes them afterwards."""
    hooks = TwilioHooks(runtime, carrier)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await hooks.close()

    app = FastAPI(
        title="Cartwake",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would lose a PUT's body with many clients
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        # Its own spans would hold addresses, which hold links' tokens, and its logs the words of errors.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.runtime = runtime
    app.state.drawn = {}
    app.state.gate = Gate(runtime.settings, runtime.clock)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    # One flat list, the busiest first: routes are tried in this order.
    app.router.routes[:0] = [
        *hooks.routes(),
        *recovery.routes,
        *opt_out.routes,
        *health.routes,
        *reference.routes,
    ]
    for subject in API:
        app.router.routes.extend(subject.router.routes)
    handle_problems(app)
    handle_replays(app)
    app.add_middleware(Idempotency)
    if tracing.is_on():
        app.add_middleware(Traced)
    app.add_middleware(Envelope, new_id=lambda: runtime.ids.new(runtime.clock.now()).hex)
    return app
