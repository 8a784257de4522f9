"""The deployment of one story, put together: processes that come and go, people, the carrier, the database."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import time, timedelta
from typing import Any
from uuid import UUID

import httpx

from cartwake.carriers.protocol import Carrier
from cartwake.jobs import periodic
from cartwake.jobs.trigger import Wake
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, OPERATOR
from cartwake.kit.ids import Ids
from cartwake.kit.runtime import Runtime
from cartwake.scheduler import TASKS, Task, refill_plans, run_scheduler
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind
from cartwake.web.app import create_app
from cartwake.worker import run_worker
from simulation.acts import Merchant, Shop
from simulation.books import Books
from simulation.carrier import StoryCarrier
from simulation.database import StoryDatabase, Transaction
from simulation.director import Director
from simulation.people import Owner, People, Shopper, phones
from simulation.process import CURRENT, Process, StoryTrigger
from simulation.witness import Witness

WINDOWS = (("10:00", "19:00"), ("10:00", "19:00"), ("12:00", "18:00"))
# Periodic work comes at a slower pace, which leaves more steps for what matters.
SLOWER = {
    "abandonment_scan": "*/10 * * * *",
    "unknown_outcomes": "*/10 * * * *",
    "stale_sweep": "*/20 * * * *",
    "consent_sealing": "*/10 * * * *",
}


def _watched(task: Task, books: Books) -> Task:
    """The task, at the story's pace; whoever looks can see that a process is at it, and that it has ended well."""
    noted = books.refilling if task.run is refill_plans else nullcontext

    async def run(runtime: Runtime, carrier: Carrier) -> None:
        process = CURRENT.get()
        assert process is not None
        with process.busy("in a task"), noted():
            await task.run(runtime, carrier)
        process.director.coverage.tasks[task.name] += 1

    return replace(task, cron=SLOWER.get(task.name, task.cron), run=run)


CREDITS = (0, 15, 60, 1000)
# Seconds until a cart is abandoned, and until its text is due. Most shops are quick, so that a story has many texts.
DELAYS_S = ((60, 120), (60, 300), (300, 600), (1800, 2700))
PAYMENT_TIMEOUTS_S = (120, 900, 3600)


class WebProcess:
    """One web process, called without a network."""

    def __init__(self, process: Process, runtime: Runtime, carrier: StoryCarrier) -> None:
        self.process = process
        app = create_app(runtime, carrier)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """The answer; None when the process died before it answered."""
        with self.process.busy("in a webhook" if path.startswith("/hooks") else "in a request"):
            task = self.process.task(self._http.request(method, path, **options))
            await asyncio.wait([task])
        return None if task.cancelled() else task.result()


@dataclass
class Stage:
    """Everything that plays in one story."""

    director: Director
    database_url: str
    settings: Settings
    vault: Vault
    witness: Witness = field(init=False)
    carrier: StoryCarrier = field(init=False)
    tasks: tuple[Task, ...] = field(init=False)
    people: People = field(init=False)
    crowd: Process = field(init=False)  # the people's own process, which nobody kills
    operator_key: str = ""
    webs: dict[str, WebProcess] = field(default_factory=dict)
    engines: dict[str, tuple[Process, asyncio.Event]] = field(default_factory=dict)  # workers and schedulers
    triggers: dict[Process, StoryTrigger] = field(default_factory=dict)
    wrote: bool = False  # whether anything was committed since the last look

    def __post_init__(self) -> None:
        chaos = self.director.chaos
        self.witness = Witness(self.director, self.vault)
        self.tasks = tuple(_watched(task, self.witness.books) for task in TASKS)
        self.carrier = StoryCarrier(Process("carrier", self.director), chaos, self.settings, self.witness)
        self.carrier.serve(self.some_web)
        self.crowd = Process("people", self.director)
        self.people = People(self)

    # --- processes ----------------------------------------------------------------------------------------

    @property
    def mortals(self) -> list[str]:
        """The names of the processes that may die."""
        return sorted([*self.webs, *self.engines])

    def process(self, name: str) -> Process:
        """The process of that name, which lives."""
        return self.webs[name].process if name in self.webs else self.engines[name][0]

    def some_web(self) -> WebProcess | None:
        """One of the web processes that listen, as a balancer would choose."""
        names = sorted(self.webs)
        return self.webs[self.director.chaos.dice("balancer").choice(names)] if names else None

    def start(self, name: str) -> None:
        """Start a process; the first part of its name says of what kind."""
        kind = name.partition("-")[0]
        process = Process(name, self.director)
        runtime = self._runtime(process)
        self.director.tell(name, "starts")
        if kind == "web":
            self.webs[name] = WebProcess(process, runtime, self.carrier)
            return
        stop = asyncio.Event()
        self.engines[name] = process, stop
        if kind == "worker":
            self.triggers[process] = StoryTrigger(process)
            process.start(run_worker(runtime, self.carrier, self.triggers[process], stop))
        else:
            process.start(run_scheduler(runtime, self.carrier, stop, self.tasks))

    def kill(self, name: str) -> None:
        """Kill a process by its name."""
        self.director.tell(name, "dies")
        process = self.process(name)
        self.webs.pop(name, None)
        self.engines.pop(name, None)
        self.triggers.pop(process, None)
        self.director.kill(process)

    def retire(self, name: str) -> None:
        """Ask a worker or scheduler to stop; what it has in flight it finishes, while its successor works already."""
        self.director.tell(name, "is asked to stop")
        _, stop = self.engines.pop(name)
        stop.set()

    def _runtime(self, process: Process) -> Runtime:
        database = StoryDatabase(self.database_url, self.vault, process, self._committed)
        ids = Ids(seed=self.director.chaos.dice("ids").getrandbits(64))
        return Runtime(self.settings, process.clock, ids, self.vault, database)

    def _committed(self, transaction: Transaction) -> None:
        self.wrote |= transaction.wrote
        self.witness.committed(transaction)
        for query, params in transaction.statements:
            if "pg_notify" in str(query):
                self._announce(Wake(params[0]))

    def _announce(self, wake: Wake) -> None:
        for process, trigger in self.triggers.items():
            if process.alive and not self.director.chaos.strikes("lost_wakeup"):
                trigger.hear(wake)

    # --- setting up ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the processes, make the merchants and their shops, and send the people on their way."""
        plan, dice = self.director.chaos.plan, self.director.chaos.dice("stage")
        for number in range(plan.webs):
            self.start(f"web-{number + 1}")
        self._act(self._prepare())
        owners = [self._act(self._merchant(number)) for number in range(plan.merchants)]
        for kind, count in (("worker", plan.workers), ("scheduler", plan.schedulers)):
            for number in range(count):
                self.start(f"{kind}-{number + 1}")
        for owner in owners:
            self.crowd.start(owner.live())
            self.crowd.start(owner.tune())
        for number, phone in enumerate(phones(dice, plan.shoppers, plan.countries), 1):
            name = f"shopper-{number}"
            self.crowd.start(Shopper(self.people, name, phone, self.director.chaos.dice(name)).live())
        self.director.settle()

    def _act(self, work: Any) -> Any:
        return self.director.act(self.crowd, work)

    async def _prepare(self) -> None:
        runtime = self._runtime(Process("set-up", self.director))
        async with runtime.db.transaction(OPERATOR) as conn:
            self.operator_key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
        async with runtime.db.transaction(ENGINE) as conn:
            await periodic.enrol(conn, runtime.clock.now(), [task.name for task in self.tasks])
        await runtime.db.close()

    async def _merchant(self, number: int) -> Owner:
        dice = self.director.chaos.dice(f"merchant-{number}")
        made = await self._operate("/v1/organizations", {"name": f"Merchant {number}", "plan": "PRO"})
        merchant = Merchant(UUID(made["organization_id"]))
        self.witness.merchants.append(merchant)
        self.witness.answered([self.witness.act(merchant.acts, "PRO")])
        if credits := dice.choice(CREDITS):
            act = self.witness.act(merchant.acts, "credits", credits)
            path = f"/v1/organizations/{merchant.organization_id}/credit-adjustments"
            await self._operate(path, {"credits": credits, "note": "the beginning"})
            self.witness.answered([act])
        shops = [await self._shop(merchant, f"{number}{index}") for index in range(dice.randint(1, 2))]
        return Owner(self.people, merchant, shops, dice)

    async def _shop(self, merchant: Merchant, digits: str) -> Shop:
        dice = self.director.chaos.dice(f"shop-{digits}")
        opens, closes = dice.choice(WINDOWS)
        config: dict[str, Any] = {"enabled": True, "window_opens": opens, "window_closes": closes}
        config |= {"spread_s": dice.choice([0, 900]), "cycle_cap": dice.choice([100, 100, 2])}
        config["idle_s"], config["text_delay_s"] = dice.choice(DELAYS_S)
        config["payment_timeout_s"] = dice.choice(PAYMENT_TIMEOUTS_S)
        base = f"/v1/organizations/{merchant.organization_id}/shops"
        facts = {"name": f"Shop {digits}", "default_country": "LT", "default_locale": dice.choice(["en", "lt", "ru"])}
        made = await self._operate(base, facts | {"sms_config": config})
        number = dice.choice([f"+370610000{digits}", f"+120155501{digits}"])
        senders = [number, f"Shop{digits}"] if dice.random() < 0.5 else [number]
        for address in senders:
            await self._operate(f"{base}/{made['shop_id']}/senders", {"address": address})
        shop = Shop(
            merchant,
            UUID(made["shop_id"]),
            made["secret_key"],
            number,
            time.fromisoformat(opens),
            time.fromisoformat(closes),
            config["cycle_cap"],
            timedelta(seconds=config["text_delay_s"]),
            timedelta(seconds=config["payment_timeout_s"]),
        )
        self.witness.shops[shop.shop_id] = shop
        return shop

    async def _operate(self, path: str, json: dict[str, Any]) -> Any:
        web = self.some_web()
        assert web is not None
        answer = await web.request("POST", path, json=json, headers={"Authorization": f"Bearer {self.operator_key}"})
        assert answer is not None and answer.is_success, answer and answer.text
        return answer.json()
