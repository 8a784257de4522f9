"""The `cartwake` command."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer

from cartwake import __version__
from cartwake.kit.config import ConfigError, Settings, load_settings
from cartwake.kit.db import ENGINE, OPERATOR, Connection
from cartwake.kit.errors import CartwakeError
from cartwake.kit.logs import configure_logs
from cartwake.kit.runtime import Runtime, open_runtime, vault_of

app = typer.Typer(
    name="cartwake",
    help="Self-hosted SMS cart recovery: wake the cart, never the customer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
org_app = typer.Typer(help="Organizations.", no_args_is_help=True)
shop_app = typer.Typer(help="Shops.", no_args_is_help=True)
key_app = typer.Typer(help="API keys.", no_args_is_help=True)
number_app = typer.Typer(help="Senders.", no_args_is_help=True)
credits_app = typer.Typer(help="Credits.", no_args_is_help=True)
for name, group in (
    ("org", org_app),
    ("shop", shop_app),
    ("key", key_app),
    ("number", number_app),
    ("credits", credits_app),
):
    app.add_typer(group, name=name)

Uuid = Annotated[UUID, typer.Argument()]


def main() -> None:
    """Run the command line; a mistake ends in one clear line and status 1 or 2, never in a stack trace."""
    try:
        app()
    except ConfigError as error:
        _fail(f"The configuration is wrong:\n{error}", 2)
    except CartwakeError as error:
        _fail(error.detail)


# --- processes ---------------------------------------------------------------------------------------


@app.command()
def demo(
    once: Annotated[bool, typer.Option(help="Play every story to its end, check it, and exit.")] = False,
) -> None:
    """Play a week of cross-border traffic on a virtual clock, with everything running on this machine."""
    from cartwake.demo.director import run_demo

    raise typer.Exit(run_demo(_settings(), once=once))


@app.command()
def up() -> None:
    """Start database, web, worker, scheduler and sandbox carrier on this machine, until Ctrl-C."""
    from cartwake.cluster import run_up

    raise typer.Exit(run_up(_settings()))


@app.command()
def serve() -> None:
    """Run a web process: API, webhooks, short links."""
    from cartwake.web.server import run

    settings = _settings()
    with _database(settings) as url:
        run(settings, url)


@app.command()
def worker() -> None:
    """Run a worker process: sends what is due, works off what the carrier reports."""
    from cartwake.jobs.trigger import PostgresTrigger
    from cartwake.worker import run_worker

    async def work(runtime: Runtime, stop: asyncio.Event) -> None:
        async with _carrier(runtime.settings) as carrier:
            trigger = PostgresTrigger(runtime.db, runtime.clock)
            try:
                await run_worker(runtime, carrier, trigger, stop)
            finally:
                await trigger.close()

    _run_until_signal(work)


@app.command()
def scheduler() -> None:
    """Run a scheduler process: the abandonment scan and everything else that is periodic."""
    from cartwake.scheduler import run_scheduler

    async def schedule(runtime: Runtime, stop: asyncio.Event) -> None:
        async with _carrier(runtime.settings) as carrier:
            await run_scheduler(runtime, carrier, stop)

    _run_until_signal(schedule)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def sandbox(context: typer.Context) -> None:
    """Run the sandbox: a Twilio-compatible carrier in memory (`cartwake sandbox --help`)."""
    from cartwake.carriers.sandbox.__main__ import main as run_sandbox

    configure_logs(_settings())
    sys.argv = ["cartwake sandbox", *context.args]
    run_sandbox()


@app.command()
def migrate() -> None:
    """Bring the database to this version's schema, and set the passwords of its logins."""
    from cartwake.kit.schema import expected_revision
    from cartwake.kit.schema import migrate as run_migrations

    settings = _settings()
    with _database(settings) as url:
        run_migrations(url, vault_of(settings))
        typer.echo(f"The database is at revision {expected_revision()}.")


# --- looking -----------------------------------------------------------------------------------------


@app.command()
def audit() -> None:
    """Check every invariant; exit 1 and show the rows when one does not hold."""
    from cartwake.invariants import INVARIANTS, broken_invariants

    async def look(runtime: Runtime) -> int:
        async with runtime.db.transaction(ENGINE) as conn:
            broken = await broken_invariants(conn, runtime.clock.now())
        for each in broken:
            typer.echo(f"BROKEN {each.name} ({each.guarantee}): {len(each.rows)} rows, of which")
            for row in each.rows[:5]:
                typer.echo("  " + ", ".join(f"{name}={value}" for name, value in row.items()))
        typer.echo(f"{len(INVARIANTS)} invariants checked, {len(broken)} broken.")
        return 1 if broken else 0

    raise typer.Exit(_run(look))


@app.command()
def explain(organization_id: Uuid, shop_id: Uuid, external_id: str) -> None:
    """Why was this cart (not) texted? EXTERNAL_ID is the storefront's id of the checkout."""
    from cartwake.explain import explain_session
    from cartwake.tenants.model import ShopScope
    from cartwake.tenants.scope import tenant_transaction

    async def look(runtime: Runtime) -> int:
        scope = ShopScope(organization_id, shop_id)
        async with tenant_transaction(runtime.db, scope) as conn:
            found = await explain_session(conn, runtime.vault, scope, external_id)
        typer.echo(found.verdict)
        for line in found.decisions:
            until = f" until {line.until:%Y-%m-%d %H:%M} UTC" if line.until else ""
            typer.echo(f"  {line.at:%Y-%m-%d %H:%M:%S}  {line.gate:<12} {line.outcome:<9} {line.reason}{until}")
        return 0

    raise typer.Exit(_run(look))


@app.command()
def config() -> None:
    """List every setting: its name, what it means, its default, and whether it is set."""
    settings = _settings()
    for name, field in Settings.model_fields.items():
        value = "(set)" if name in settings.model_fields_set else f"default: {_shown(field.default)}"
        typer.echo(f"CARTWAKE_{name.upper()}  [{value}]\n    {field.description}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


# --- the operator's hand ------------------------------------------------------------------------------


@org_app.command("create")
def create_org(name: str, plan: Annotated[str, typer.Option(help="FREE, PRO or ULTRA.")] = "PRO") -> None:
    """Make an organization; prints its id and its API key."""
    from cartwake.credits.model import PLANS
    from cartwake.tenants.keys import create_key
    from cartwake.tenants.model import KeyKind, Scope
    from cartwake.tenants.organizations import create_organization

    if plan not in PLANS:
        _fail(f"The plan must be one of {', '.join(PLANS)}.", 2)

    async def create(runtime: Runtime, conn: Connection) -> None:
        moment = runtime.moment()
        organization_id = await create_organization(conn, moment, name=name, plan=plan)
        key = await create_key(conn, moment, KeyKind.ORGANIZATION, Scope(organization_id))
        typer.echo(f"organization_id {organization_id}\napi_key {key}")

    _as_operator(create)


@shop_app.command("create")
def create_shop_(
    organization_id: Uuid,
    name: str,
    country: Annotated[str, typer.Option(help="ISO 3166 alpha-2; reads national phone numbers.")],
    locale: Annotated[str, typer.Option(help="en, lt, de, fr, es, pl or ru.")] = "en",
    enable: Annotated[bool, typer.Option(help="Switch texts on at once.")] = True,
) -> None:
    """Make a shop; prints its id and its two keys."""
    from cartwake.messages.queue import open_queue
    from cartwake.tenants.keys import create_key
    from cartwake.tenants.model import KeyKind, Scope, ShopScope, SmsConfig
    from cartwake.tenants.organizations import create_shop

    async def create(runtime: Runtime, conn: Connection) -> None:
        moment = runtime.moment()
        shop = await create_shop(
            conn,
            moment,
            organization_id,
            name=name,
            default_country=country,
            default_locale=locale,
            config=SmsConfig(enabled=enable),
        )
        scope = Scope(organization_id, shop.shop_id)
        await open_queue(conn, moment, ShopScope(organization_id, shop.shop_id))
        typer.echo(f"shop_id {shop.shop_id}")
        for kind in (KeyKind.SHOP_SECRET, KeyKind.SHOP_PUBLISHABLE):
            typer.echo(f"{kind} {await create_key(conn, moment, kind, scope)}")

    _as_operator(create)


@key_app.command("operator")
def create_operator_key() -> None:
    """Make an operator key; it is shown once."""
    from cartwake.tenants.keys import create_key
    from cartwake.tenants.model import KeyKind

    async def create(runtime: Runtime, conn: Connection) -> None:
        typer.echo(await create_key(conn, runtime.moment(), KeyKind.OPERATOR))

    _as_operator(create)


@key_app.command("revoke")
def revoke(key_id: Uuid) -> None:
    """Revoke an organization's or shop's key; it opens nothing from the next request on."""
    from cartwake.tenants.keys import revoke_key

    async def act(runtime: Runtime, conn: Connection) -> None:
        await revoke_key(conn, runtime.clock.now(), key_id)

    _as_operator(act)


@number_app.command("add")
def add_number(
    organization_id: Uuid,
    shop_id: Uuid,
    address: Annotated[str, typer.Argument(help="A number like +37060000001, or an alphanumeric sender id.")],
    segments_per_s: Annotated[float | None, typer.Option(help="How fast the carrier takes segments from it.")] = None,
) -> None:
    """Give a shop a sender that you already have at the carrier."""
    from cartwake.numbers.senders import add_sender
    from cartwake.tenants.model import ShopScope
    from cartwake.tenants.organizations import read_shop

    async def add(runtime: Runtime, conn: Connection) -> None:
        scope = ShopScope(organization_id, shop_id)
        await read_shop(conn, scope)
        sender = await add_sender(conn, runtime.moment(), scope, address=address, segments_per_s=segments_per_s)
        typer.echo(f"sender_id {sender.sender_id}\nkind {sender.kind}\nsegments_per_s {sender.segments_per_s}")

    _as_operator(add)


@credits_app.command("adjust")
def adjust_credits(
    organization_id: Uuid,
    credits: int,
    note: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    reference: Annotated[str | None, typer.Option(help="Given twice, it counts once.")] = None,
) -> None:
    """Add credits to an organization, or take some away (`-- -20`)."""
    from cartwake.carts.abandonment import ask_again
    from cartwake.carts.model import Refusal
    from cartwake.credits.balance import adjust

    async def act(runtime: Runtime, conn: Connection) -> None:
        now = runtime.clock.now()
        balance = await adjust(conn, now, organization_id, credits, reference=reference, note=note)
        await ask_again(conn, now, organization_id, [Refusal.INSUFFICIENT_CREDITS])
        typer.echo(f"available_credits {balance.available_credits}")

    _as_operator(act)


# --- plumbing -----------------------------------------------------------------------------------------


def _settings() -> Settings:
    settings = load_settings()
    configure_logs(settings)
    return settings


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    """The address of the configured server, or of the embedded one while it is needed."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    from cartwake.kit.embedded import EmbeddedPostgresError, embedded_postgres

    try:
        with embedded_postgres(settings.data_dir) as server:
            yield server.url
    except EmbeddedPostgresError as error:
        _fail(str(error))


@asynccontextmanager
async def _carrier(settings: Settings) -> AsyncIterator[Any]:
    from cartwake.carriers.open import open_carrier

    carrier = open_carrier(settings)
    try:
        yield carrier
    finally:
        await carrier.close()


def _run(work: Callable[[Runtime], Awaitable[int]]) -> int:
    settings = _settings()

    async def go(url: str) -> int:
        async with open_runtime(settings, url) as runtime:
            return await work(runtime)

    with _database(settings) as url:
        return asyncio.run(go(url))


def _as_operator(work: Callable[[Runtime, Connection], Awaitable[None]]) -> None:
    async def go(runtime: Runtime) -> int:
        async with runtime.db.transaction(OPERATOR) as conn:
            await work(runtime, conn)
        return 0

    _run(go)


def _run_until_signal(work: Callable[[Runtime, asyncio.Event], Awaitable[None]]) -> None:
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

    with contextlib.suppress(KeyboardInterrupt):
        _run(go)


def _shown(default: Any) -> str:
    return "(development secret)" if "SecretStr" in repr(default) else repr(default)


def _fail(message: str, status: int = 1) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(status)
