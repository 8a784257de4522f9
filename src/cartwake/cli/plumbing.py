"""What the commands share: settings, a database, a runtime, and a clean way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn
from uuid import UUID

import structlog
import typer

from cartwake.kit.clock import open_clock
from cartwake.kit.config import Settings, load_settings
from cartwake.kit.config_listing import unknown_variables
from cartwake.kit.db import ENGINE, OPERATOR, Connection, Database, Login
from cartwake.kit.errors import NotKnown
from cartwake.kit.logs import configure_logs
from cartwake.kit.loop import run
from cartwake.kit.runtime import Runtime, open_runtime, vault_of
from cartwake.kit.schema import NotReadyError, check_ready, pause_if_moved

# The help's groups, by task.
TRY = "Try it on this machine"
RUN = "Run a deployment"
LOOK = "Look, change nothing"
MERCHANTS = "Merchants"
STOP = "Stop sending; after a restore"

# A process that is to stay waits so long for a database that restarts: whoever supervises it may lose patience sooner.
PATIENCE_S = 60.0


def settings_and_logs() -> Settings:
    settings = load_settings()
    configure_logs(settings)
    for name, advice in unknown_variables(os.environ).items():
        structlog.get_logger().warning("config.not_a_setting", variable=name, advice=advice)
    return settings


@contextmanager
def database(settings: Settings, *, create: bool = False) -> Iterator[str]:
    """The address of the configured server, or of the embedded one while it is needed.

    `create`: whether to make the embedded one when there is none; a command that looks must not.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    from cartwake.kit.embedded import EmbeddedPostgresError, embedded_postgres, has_cluster, home_of, no_database

    if not create and not has_cluster(home_of(settings)):
        fail(no_database(home_of(settings)))
    try:
        with embedded_postgres(settings.data_dir) as server:
            yield server.url
    except EmbeddedPostgresError as error:
        fail(str(error))


@contextmanager
def ready_database(settings: Settings, patience_s: float = 0) -> Iterator[str]:
    """As `database`, once it is known to answer and to have this version's schema."""
    with database(settings) as url:
        try:
            at_hand = Database(url, vault_of(settings))
            check_ready(at_hand, patience_s)
            if pause_if_moved(at_hand, open_clock(settings.clock).now(), patience_s):
                typer.echo(
                    "This database was restored from a backup, so sending is paused. See: cartwake recover", err=True
                )
        except NotReadyError as error:
            fail(str(error) + _trial_hint(settings))
        yield url


def _trial_hint(settings: Settings) -> str:
    """Where the database of a trial run is, if there is one and these settings do not lead to it."""
    from cartwake.kit.embedded import home_of

    trial = home_of(settings) / "trial.env"
    if settings.database_url is not None or not trial.exists():
        return ""
    return f"\n`cartwake up --speed` has a database of its own; to look into that: source {trial}"


@asynccontextmanager
async def carrier_of(settings: Settings) -> AsyncIterator[Any]:
    from cartwake.carriers.open import open_carrier

    carrier = open_carrier(settings)
    try:
        yield carrier
    finally:
        await carrier.close()


async def say_what_ails_the_queue(settings: Settings) -> None:
    """At start, on stderr. Nothing of it stops the process: texts go out by the database's times meanwhile."""
    from cartwake.jobs.queue_check import check_queue

    for finding in await check_queue(settings):
        typer.echo(f"CARTWAKE_QUEUE, {finding.level}: {finding.problem} {finding.advice}", err=True)


def run_with(work: Callable[[Runtime], Awaitable[int]], patience_s: float = 0) -> int:
    settings = settings_and_logs()

    async def go(url: str) -> int:
        async with open_runtime(settings, url) as runtime:
            return await work(runtime)

    with ready_database(settings, patience_s) as url:
        return run(go(url))


def as_operator(work: Callable[[Runtime, Connection], Awaitable[None]]) -> None:
    _as_login(OPERATOR, work)


def as_engine(work: Callable[[Runtime, Connection], Awaitable[None]]) -> None:
    _as_login(ENGINE, work)


def run_until_signal(work: Callable[[Runtime, asyncio.Event], Awaitable[None]]) -> None:
    """Run a process that ends in good order on SIGTERM or Ctrl-C."""

    async def go(runtime: Runtime) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for which in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(which, stop.set)
        # Batches of rows live briefly and in great number; the default thresholds scan them over and over.
        gc.set_threshold(50_000, 20, 50)
        await work(runtime, stop)
        return 0

    run_with(go, PATIENCE_S)


def _as_login(login: Login, work: Callable[[Runtime, Connection], Awaitable[None]]) -> None:
    # Told once it is committed: a reader that goes away (`| head -1`) would else undo what it has just been told of.
    told = io.StringIO()

    async def go(runtime: Runtime) -> int:
        async with runtime.db.transaction(login) as conn:
            with contextlib.redirect_stdout(told):
                await work(runtime, conn)
        return 0

    run_with(go)
    typer.echo(told.getvalue(), nl=False)


async def require_shop(conn: Connection, organization_id: UUID, shop_id: UUID) -> None:
    """Raise `NotKnown`, naming which id is wrong, unless the organization has this shop. Operator login."""
    from cartwake.tenants.model import ShopScope
    from cartwake.tenants.organizations import read_organization, read_shop

    async def has(organization: UUID, shop: UUID) -> bool:
        with contextlib.suppress(NotKnown):
            return bool(await read_shop(conn, ShopScope(organization, shop)))
        return False

    if await has(organization_id, shop_id):
        return
    if await has(shop_id, organization_id):
        raise NotKnown("The ids are the wrong way round: the organization's comes first, then the shop's.")
    try:
        await read_organization(conn, organization_id)
    except NotKnown:
        raise NotKnown(f"There is no organization {organization_id}.") from None
    raise NotKnown(f"The organization is known, but it has no shop {shop_id}.")


def shown(text: str) -> str:
    """A stranger's words for a terminal, which must not act on what is in them."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def fail(message: str, status: int = 1) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(status)
