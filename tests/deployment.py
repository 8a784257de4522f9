"""A whole deployment in one process, for stories: real HTTP in both directions, a clock that the story moves.

Web, worker, scheduler and the sandbox carrier are the real ones; only their loops are replaced by
`Deployment.pass_time` and `Deployment.jump`, so that a story can say "an hour later" and look at what
holds then. `pass_time` goes there step by step, `jump` at once: whatever was due on the way happens late.

Every move of a message is noted by the database itself, and at the end of each story all of them must
have been moves of the table, and every invariant must hold.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest
import uvicorn
from psycopg import sql

from cartwake.carriers.open import INBOUND_PATH, STATUS_PATH, open_carrier
from cartwake.carriers.protocol import Carrier, SendResult
from cartwake.carriers.sandbox.server import Sandbox, running_sandbox
from cartwake.carriers.sandbox.state import Options
from cartwake.invariants import broken_invariants
from cartwake.jobs import periodic
from cartwake.kit.clock import ManualClock
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, OPERATOR, Database, rows
from cartwake.kit.ids import Ids
from cartwake.kit.runtime import Runtime
from cartwake.messages.dispatch import Attempt, Calls, send_batch
from cartwake.messages.model import TRANSITIONS, MessageState
from cartwake.scheduler import TASKS, run_due
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind
from cartwake.web.app import create_app
from cartwake.worker import deliver, dispatch_once, work_off_events
from ports import free_port
from world import TICKED, Caller, MerchantClient, ShopClient, World

Json = dict[str, Any]
Arrow = tuple[str, str]
T = TypeVar("T")
STEP = timedelta(minutes=5)  # the abandonment scan's pace
# Transactions of this database that wait for another's lock.
LOCK_WAITERS = (
    "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"
)


@dataclass
class Deployment:
    """Everything that runs, and the clock that all of it shares."""

    world: World
    runtime: Runtime
    clock: ManualClock
    carrier: Carrier
    sandbox: Sandbox
    http: httpx.AsyncClient
    database_url: str
    _seeds: itertools.count[int] = field(default_factory=lambda: itertools.count(8))

    # --- people ----------------------------------------------------------------------------------

    async def merchant(self, name: str = "Lino Namai", plan: str = "PRO", credits: int = 100) -> MerchantClient:
        return await self.world.merchant(name, plan, credits)

    async def shop(self, name: str = "Lino Namai", **facts: Any) -> ShopClient:
        return await self.world.shop(name, **facts)

    async def reply(self, phone: str, body: str, to: str | None = None) -> None:
        """The shopper answers the last text (or writes to `to`), and we work that off."""
        answer = await self.http.post(
            f"{self.sandbox.url}/sandbox/replies", json={"from": phone, "body": body} | ({"to": to} if to else {})
        )
        assert answer.status_code == 201, answer.text
        await self.settle()

    async def script(self, phone: str, **outcome: Any) -> None:
        """What the carrier will do with texts to this phone."""
        answer = await self.http.put(f"{self.sandbox.url}/sandbox/recipients/{phone}", json=outcome)
        assert answer.status_code == 200, answer.text

    async def faults(self, **rates: Any) -> None:
        """What goes wrong at the carrier from now on; without arguments nothing does."""
        answer = await self.http.put(f"{self.sandbox.url}/sandbox/faults", json=rates)
        assert answer.status_code == 200, answer.text

    async def receipts(self, shop: ShopClient, *statuses: str, external_id: str = "cart-1", **more: str) -> None:
        """The carrier reports about the cart's text, in this order; nobody has worked it off yet."""
        (message,) = await self.messages(shop, external_id)
        attempt_id: UUID = message["attempt_id"]
        sid = message["carrier_sid"] or "SM" + attempt_id.hex
        for status in statuses:
            form = {"MessageSid": sid, "MessageStatus": status, "AccountSid": "AC" + "0" * 32} | more
            answer = await self.world.carrier_posts(f"{STATUS_PATH}?attempt={attempt_id.hex}", form)
            assert answer.status_code == 204, answer.text

    async def carrier_says(self, shop: ShopClient, *statuses: str, external_id: str = "cart-1", **more: str) -> None:
        """The carrier reports about the cart's text, and we work that off."""
        await self.receipts(shop, *statuses, external_id=external_id, **more)
        await self.settle()

    async def add_sender(self, shop: ShopClient, address: str, **facts: Any) -> None:
        """Give a shop a sender, with a pace of its own perhaps."""
        path = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/senders"
        await self.world.operator.call("POST", path, {"address": address} | facts)

    async def change_plan(self, merchant: MerchantClient, plan: str) -> None:
        """The merchant subscribes to something else."""
        await self.world.operator.call("PUT", f"/v1/organizations/{merchant.organization_id}/plan", {"plan": plan})

    async def leave_credits(self, merchant: MerchantClient, credits: int) -> None:
        """The month's credits have come and gone: exactly so many are left."""
        await run_due(self.runtime, self.carrier)
        left = (await merchant.credits())["available_credits"]
        if credits != left:
            await merchant.add_credits(credits - left)

    async def phone_shows(self, phone: str) -> list[Json]:
        """The texts that reached a phone's carrier, oldest first."""
        answer = await self.http.get(f"{self.sandbox.url}/sandbox/messages", params={"to": phone})
        found: list[Json] = answer.json()["messages"]
        return found[::-1]

    async def tap(self, url: str, **options: Any) -> httpx.Response:
        """Open a link from a text, without following it further."""
        return await self.http.get(url, **options)

    # --- time ------------------------------------------------------------------------------------

    async def pass_time(self, *, until: datetime | None = None, **delta: float) -> None:
        """Let time pass, in the scan's steps: whatever is due on the way happens when it is due."""
        end = until or self.clock.now() + timedelta(**delta)
        while self.clock.now() < end:
            self.clock.set(min(self.clock.now() + STEP, end))
            await self.work()

    async def outlast_a_cart(self) -> None:
        """Fifty minutes pass: half an hour makes a cart an abandoned one, and a quarter later its text goes out."""
        for minutes in (30, 15, 5):
            await self.jump(minutes=minutes)

    async def pass_until(self, local: str, zone: str) -> None:
        """Let time pass until the next moment that clocks in `zone` show `local` (HH:MM)."""
        await self.pass_time(until=self.next_time(local, zone))

    async def jump(self, *, until: datetime | None = None, carrier: Carrier | None = None, **delta: float) -> None:
        """Go there at once, and do what is due by then; `carrier`: as somebody else reaches it."""
        self.clock.set(until or self.clock.now() + timedelta(**delta))
        await self.work(carrier=carrier)

    async def jump_until(self, local: str, zone: str) -> None:
        """Go at once to the next moment that clocks in `zone` show `local` (HH:MM)."""
        await self.jump(until=self.next_time(local, zone))

    def next_time(self, local: str, zone: str) -> datetime:
        """The next moment that clocks in `zone` show `local` (HH:MM)."""
        here = self.clock.now().astimezone(ZoneInfo(zone))
        hour, minute = map(int, local.split(":"))
        then = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if then <= here:
            then = (here + timedelta(days=1)).replace(hour=hour, minute=minute, second=0, microsecond=0)
        return then.astimezone(self.clock.now().tzinfo)

    async def work(self, *, carrier: Carrier | None = None) -> None:
        """What scheduler and worker do now."""
        await run_due(self.runtime, carrier or self.carrier)
        await self.dispatch(carrier=carrier)
        await self.settle()

    async def dispatch(self, runtime: Runtime | None = None, carrier: Carrier | None = None) -> None:
        """Send whatever is due; `runtime` is another worker's."""
        worker = runtime or self.runtime
        while (claimed := await dispatch_once(worker)).more:
            if claimed.attempts:
                await self._in_turn(deliver(worker, carrier or self.carrier, claimed.attempts), claimed.attempts)

    async def send(self, attempts: Sequence[Attempt]) -> list[tuple[Attempt, SendResult]]:
        """The network alone: what a worker does between its two transactions."""
        return await self._in_turn(send_batch(self.carrier, self.clock, attempts, Calls(len(attempts))), attempts)

    async def _in_turn(self, sending: Awaitable[T], attempts: Sequence[Attempt]) -> T:
        """Time moves on to each attempt's slot: a sender takes only so many segments per second."""
        task = asyncio.ensure_future(sending)
        for slot in sorted({attempt.slot for attempt in attempts}):
            self.clock.set(max(slot, self.clock.now()))
            await asyncio.sleep(0)
        return await task

    async def settle(self) -> None:
        """Let the carrier finish, and work off what it said."""
        await self.sandbox.settled()
        while await work_off_events(self.runtime, 500):
            pass

    # --- more processes --------------------------------------------------------------------------

    @asynccontextmanager
    async def another_process(self, **settings: Any) -> AsyncIterator[Runtime]:
        """A second worker or scheduler: connections and ids of its own, the same clock and database."""
        database = Database(self.database_url, self.runtime.vault)
        changed = self.runtime.settings.model_copy(update=settings)
        try:
            yield Runtime(changed, self.clock, Ids(seed=next(self._seeds)), self.runtime.vault, database)
        finally:
            await database.close()

    @asynccontextmanager
    async def carrier_with(self, **settings: Any) -> AsyncIterator[Carrier]:
        """The carrier as a process with other settings reaches it."""
        carrier = open_carrier(self.runtime.settings.model_copy(update=settings))
        yield carrier
        await carrier.close()

    # --- looking ---------------------------------------------------------------------------------

    async def trace(self, shop: ShopClient, external_id: str = "cart-1") -> list[str]:
        """Why the cart was or was not texted: each decision as "gate outcome reason"."""
        decisions = (await shop.session(external_id))["decisions"]
        return [f"{each['gate']} {each['outcome']} {each['reason']}" for each in decisions]

    async def held_until(self, shop: ShopClient, external_id: str = "cart-1") -> datetime:
        """Until when the cart's last decision holds its text."""
        last = (await shop.session(external_id))["decisions"][-1]
        assert last["outcome"] == "hold", last
        return datetime.fromisoformat(last["until"])

    async def rows(self, query: str, *params: object) -> list[Json]:
        """Straight from the database, across all tenants."""
        async with self.runtime.db.transaction(ENGINE) as conn:
            return await rows(conn, query, params)

    async def messages(self, shop: ShopClient, external_id: str = "cart-1") -> list[Json]:
        """The message rows of a cart: never more than one."""
        return await self.rows(
            "SELECT m.* FROM sms_messages m JOIN checkout_sessions s USING (organization_id, shop_id, session_id)"
            " WHERE m.shop_id = %s AND s.external_id = %s",
            shop.shop_id,
            external_id,
        )

    async def waits_for_a_lock_or_ends(self, task: asyncio.Task[Any], waiting: int = 1) -> None:
        """Return once so many transactions wait for a lock, or the task is done without having to."""
        with psycopg.connect(self.database_url, autocommit=True) as owner:
            while not task.done() and len(owner.execute(LOCK_WAITERS).fetchall()) < waiting:
                await asyncio.sleep(0)

    async def walked(self) -> set[Arrow]:
        """Every move that a message has made, as the database saw it."""
        found = await self.rows("SELECT DISTINCT source, target FROM walked_arrows")
        return {(each["source"], each["target"]) for each in found}

    async def sound(self) -> None:
        """No invariant is broken, and no message moved where the table does not lead."""
        async with self.runtime.db.transaction(ENGINE) as conn:
            assert await broken_invariants(conn, self.clock.now()) == []
        assert {arrow for arrow in await self.walked() if not leads(*arrow)} == set()


@pytest.fixture
async def deployment(
    db: Database, clock: ManualClock, ids: Ids, vault: Vault, fresh_url: str
) -> AsyncIterator[Deployment]:
    """A deployment on a fresh database; at the end every invariant must hold, whatever the story was."""
    public_url = f"http://127.0.0.1:{free_port()}"
    options = Options(sent_after_ms=0, delivered_after_ms=0, inbound_url=public_url + INBOUND_PATH)
    async with running_sandbox(options, clock) as sandbox, plain_http() as http:
        settings = Settings(public_url=public_url, twilio_api_base=sandbox.url)
        runtime = Runtime(settings, clock, ids, vault, db)
        carrier = open_carrier(settings)
        app = create_app(runtime, carrier)
        async with db.transaction(OPERATOR) as conn:
            key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
        async with db.transaction(ENGINE) as conn:
            await periodic.enrol(conn, clock.now(), [task.name for task in TASKS])
        async with serving(app, public_url), plain_http(public_url) as api:
            world = World(app, runtime, api, Caller(api, key))
            made = Deployment(world, runtime, clock, carrier, sandbox, http, fresh_url)
            yield made
            await made.settle()
            await made.sound()
        await carrier.close()


async def leave_cart(shop: ShopClient, external_id: str = "cart-1", **news: Any) -> None:
    """Somebody ticks the box, fills the cart and goes away."""
    await shop.put_session(external_id, consent=TICKED, **news)


async def due_cart(deployment: Deployment, **facts: Any) -> ShopClient:
    """Rūta left her cart 45 minutes ago; nobody has sent her text yet. `facts`: the shop's."""
    shop = await deployment.shop(**facts)
    await leave_cart(shop)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    return shop


def phone(number: int) -> str:
    """The number of one of many Lithuanian shoppers."""
    return f"+3706{number:07}"


def leads(source: str, target: str) -> bool:
    """Whether the table leads from one state to the other, in one step or, folded into one, in several."""
    seen: set[MessageState] = set()
    ahead = set(TRANSITIONS[MessageState(source)])
    while ahead - seen:
        seen |= ahead
        ahead = {target for state in seen for target in TRANSITIONS[state]}
    return target in seen


def plain_http(base_url: str = "") -> httpx.AsyncClient:
    """A client that reads no certificates, which takes longer than most stories here."""
    return httpx.AsyncClient(base_url=base_url, verify=False)


@contextmanager
def failing(url: str, table: str, words: str) -> Iterator[None]:
    """While the block lasts, every write to the table fails with an error that quotes `words`, as a constraint's
    quotes the row that it refused."""
    name, said = sql.Identifier(f"failing_{table}"), sql.Literal(f"Failing row contains ({words}).")
    raises = sql.SQL("BEGIN RAISE '%', {} USING ERRCODE = 'check_violation', DETAIL = {}; END").format(said, said)
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(
            sql.SQL(
                "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS {body};"
                "CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
            ).format(name=name, table=sql.Identifier(table), body=sql.Literal(raises.as_string(owner)))
        )
        yield
        owner.execute(sql.SQL("DROP FUNCTION {} CASCADE").format(name))


class serving:  # noqa: N801 - read as a verb
    """Serve an application at an address for as long as the block lasts."""

    def __init__(self, app: Any, url: str) -> None:
        config = uvicorn.Config(
            app, host="127.0.0.1", port=int(url.rpartition(":")[2]), log_level="error", access_log=False
        )
        self._server = uvicorn.Server(config)

    async def __aenter__(self) -> None:
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup()

    def unread(self) -> int:
        """Connections whose client does not take what it is sent."""
        connections: set[Any] = set(self._server.server_state.connections)
        return sum(connection.flow.write_paused for connection in connections)

    async def __aexit__(self, failed: type[BaseException] | None, *_: object) -> None:
        """What the server's own shutdown does, without the tenth of a second that it waits for clients to notice."""
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()
            if failed:  # whoever does not read would hold it, and the test that failed, for ever
                connection.transport.abort()
        await self._server.lifespan.shutdown()
