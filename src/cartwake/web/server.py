"""The web process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from cartwake.carriers.open import open_carrier
from cartwake.kit.config import ConfigError, Settings
from cartwake.kit.listen import open_port
from cartwake.kit.loop import run as run_loop
from cartwake.kit.runtime import open_runtime
from cartwake.kit.tracing import tracing
from cartwake.observe.exporter import exporting
from cartwake.web.app import create_app

log = structlog.get_logger()
# How long requests under way may take once the process is told to stop, in machine seconds.
STOP_TIMEOUT_S = 20


class Server(uvicorn.Server):
    """Uvicorn that ends by returning.

    Its own way is to raise the signal again once it has stopped, which would end the process before the
    database and the carrier are closed.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for which in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(which, self.handle_exit, which, None)
        yield


def run(settings: Settings, database_url: str | None = None) -> None:
    """Serve until told to stop.

    `database_url` is the embedded server's where there is one; else the configured one is used.
    Raises `ConfigError` when there is neither.
    """
    url = database_url or (settings.database_url.get_secret_value() if settings.database_url else None)
    if url is None:
        raise ConfigError("CARTWAKE_DATABASE_URL: no database is configured and none was started")
    run_loop(serve(settings, url))


async def serve(settings: Settings, database_url: str) -> None:
    """Serve inside a running event loop, until told to stop. Raises `CannotListenError`."""
    # Uvicorn would open the port itself, and end the process with a bare errno where it cannot.
    with (
        open_port(settings.host, settings.port, "CARTWAKE_PORT", "CARTWAKE_HOST") as listener,
        tracing(settings, "web"),
    ):
        async with open_runtime(settings, database_url) as runtime, exporting(runtime, "web"):
            log.info("process.started", process="web", host=settings.host, port=settings.port)
            carrier = open_carrier(settings)
            try:
                await Server(_config(runtime.settings, create_app(runtime, carrier))).serve([listener])
            finally:
                await carrier.close()


def _config(settings: Settings, app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=settings.host,
        port=settings.port,
        http="httptools",
        access_log=False,  # addresses hold link tokens, and queries hold whatever a caller put there
        log_config=None,  # ours is set up once for the whole process
        server_header=False,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
