"""The ledger against a model of a dozen lines: whatever is done, in whatever order and however much at once.

Hypothesis invents the steps; PostgreSQL and the model take them side by side and must agree after each.
The invariants of the room are asked after each step too.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from cartwake.credits import invariants
from cartwake.credits.balance import adjust, purchase, read_balance
from cartwake.credits.model import PLANS, Balance, ReserveRequest
from cartwake.credits.refills import refill
from cartwake.credits.reservations import confirm, refund_delivery, release, reserve
from cartwake.credits.reserver import Reserver
from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE, OPERATOR, Connection, Database
from cartwake.kit.errors import Conflict
from cartwake.kit.ids import Ids

T = TypeVar("T")
Verb = Callable[..., Awaitable[set[UUID]]]
VERBS: dict[str, Verb] = {"confirm": confirm, "release": release, "refund_delivery": refund_delivery}

MERCHANTS = 3
MERCHANT = st.integers(0, MERCHANTS - 1)
CREDITS = st.integers(1, 40)
ASKS = st.lists(st.tuples(MERCHANT, CREDITS), min_size=1, max_size=6)
# Which reservations to settle: positions in a history that differs from run to run, so taken modulo.
PICKS = st.lists(st.integers(0, 1000), min_size=1, max_size=5)


@dataclass
class Model:
    """What should be true, kept the simplest way there is."""

    available: dict[UUID, int] = field(default_factory=dict)
    state: dict[UUID, str] = field(default_factory=dict)  # by reservation
    requests: list[ReserveRequest] = field(default_factory=list)  # granted ones
    references: set[tuple[UUID, str]] = field(default_factory=set)

    def reserve(self, request: ReserveRequest) -> bool:
        if request.credits > self.available[request.organization_id]:
            return False
        self.take(request)
        return True

    def take(self, request: ReserveRequest) -> None:
        self.available[request.organization_id] -= request.credits
        self.state[request.reservation_id] = "reserved"
        self.requests.append(request)

    def settle(self, verb: str, request: ReserveRequest) -> bool:
        before, after = {
            "confirm": ("reserved", "confirmed"),
            "release": ("reserved", "released"),
            "refund_delivery": ("confirmed", "refunded"),
        }[verb]
        if self.state[request.reservation_id] != before:
            return False
        self.state[request.reservation_id] = after
        if verb != "confirm":
            self.available[request.organization_id] += request.credits
        return True

    def reserve_all(self, requests: list[ReserveRequest]) -> set[UUID]:
        return {request.reservation_id for request in requests if self.reserve(request)}

    def settle_all(self, verb: str, requests: list[ReserveRequest]) -> set[UUID]:
        return {request.reservation_id for request in requests if self.settle(verb, request)}

    def reserved(self, organization_id: UUID) -> int:
        mine = [request for request in self.requests if request.organization_id == organization_id]
        return sum(request.credits for request in mine if self.state[request.reservation_id] == "reserved")


class LedgerMachine(RuleBasedStateMachine):
    """Runs in a thread of its own; everything asynchronous happens in the test's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, db: Database, clock: ManualClock, ids: Ids) -> None:
        super().__init__()
        self.loop, self.db, self.clock, self.ids = loop, db, clock, ids
        self.model = Model()
        self.merchants: list[UUID] = []

    @initialize(opening=st.lists(st.integers(0, 100), min_size=MERCHANTS, max_size=MERCHANTS))
    def open_merchants(self, opening: list[int]) -> None:
        self.merchants = [self.new_id() for _ in range(MERCHANTS)]
        self.model.available = dict.fromkeys(self.merchants, 0)
        self.await_(self.insert_merchants())
        for merchant, credits in zip(self.merchants, opening, strict=True):
            if credits:
                self.buy(self.merchants.index(merchant), credits, "opening")

    @rule(merchant=MERCHANT, credits=CREDITS, reference=st.sampled_from(["cs_1", "cs_2", "cs_3"]))
    def buy(self, merchant: int, credits: int, reference: str) -> None:
        who = self.merchants[merchant]
        if (who, reference) not in self.model.references:
            self.model.references.add((who, reference))
            self.model.available[who] += credits
        self.await_(self.alone(lambda conn: purchase(conn, self.clock.now(), who, credits, reference=reference)))

    @rule(merchant=MERCHANT, credits=st.integers(-60, 60).filter(bool))
    def adjust(self, merchant: int, credits: int) -> None:
        who = self.merchants[merchant]
        is_possible = self.model.available[who] + credits >= 0
        try:
            self.await_(self.alone(lambda conn: adjust(conn, self.clock.now(), who, credits)))
        except Conflict:
            assert not is_possible
        else:
            assert is_possible
            self.model.available[who] += credits

    @rule(plans=st.lists(st.sampled_from(sorted(PLANS)), min_size=MERCHANTS, max_size=MERCHANTS))
    def refill_twice_at_once(self, plans: list[str]) -> None:
        asked = list(zip(self.merchants, plans, strict=True))
        month = self.clock.now().strftime("%Y-%m")
        due = {who: PLANS[plan].monthly_credits for who, plan in asked if (who, month) not in self.model.references}
        due = {who: credits for who, credits in due.items() if credits}
        runs = self.at_once(*(self.alone(lambda conn: refill(conn, self.clock.now(), asked)) for _ in range(2)))
        assert sorted(runs[0] + runs[1]) == sorted(due)
        for who, credits in due.items():
            self.model.references.add((who, month))
            self.model.available[who] += credits

    @rule(days=st.integers(1, 20))
    def wait(self, days: int) -> None:
        self.clock.advance(days=days)

    @rule(asks=ASKS)
    def reserve_in_a_batch(self, asks: list[tuple[int, int]]) -> None:
        requests = [self.request(*ask) for ask in asks]
        assert self.await_(self.reserve(requests)) == self.model.reserve_all(requests)

    @rule(picks=PICKS)
    def reserve_the_same_again(self, picks: list[int]) -> None:
        assert self.await_(self.reserve(self.pick(picks))) == set()

    @rule(batches=st.lists(ASKS, min_size=2, max_size=5))
    def reserve_at_once(self, batches: list[list[tuple[int, int]]]) -> None:
        requests = [[self.request(*ask) for ask in batch] for batch in batches]
        granted = set[UUID]().union(*self.at_once(*map(self.reserve, requests)))
        self.check_race([request for batch in requests for request in batch], granted)

    @rule(asks=ASKS)
    def reserve_through_the_coalescer(self, asks: list[tuple[int, int]]) -> None:
        requests = [self.request(*ask) for ask in asks]
        answers = self.await_(self.coalesce(requests))
        granted = {request.reservation_id for request, answer in zip(requests, answers, strict=True) if answer}
        self.check_race(requests, granted)

    @rule(verb=st.sampled_from(sorted(VERBS)), picks=PICKS)
    def settle(self, verb: str, picks: list[int]) -> None:
        requests = self.pick(picks)
        assert self.await_(self.settle_alone(verb, requests)) == self.model.settle_all(verb, requests)

    @rule(first=PICKS, again=PICKS, verbs=st.lists(st.sampled_from(["confirm", "release"]), min_size=2, max_size=4))
    def settle_the_same_at_once(self, first: list[int], again: list[int], verbs: list[str]) -> None:
        requests = self.pick(first + again)
        open_before = {r.reservation_id for r in requests if self.model.state[r.reservation_id] == "reserved"}
        settled = self.at_once(*(self.settle_alone(verb, requests) for verb in verbs))
        assert sorted(open_before) == sorted(winner for winners in settled for winner in winners), "each once"
        self.follow(requests, verbs, settled)

    @rule(picks=PICKS)
    def refund_the_same_at_once(self, picks: list[int]) -> None:
        requests, verbs = self.pick(picks), ["refund_delivery"] * 3
        confirmed = {r.reservation_id for r in requests if self.model.state[r.reservation_id] == "confirmed"}
        settled = self.at_once(*(self.settle_alone(verb, requests) for verb in verbs))
        assert sorted(confirmed) == sorted(winner for winners in settled for winner in winners), "each once"
        self.follow(requests, verbs, settled)

    @rule(picks=PICKS, asks=ASKS, verb=st.sampled_from(sorted(VERBS)))
    def settle_while_others_reserve(self, picks: list[int], asks: list[tuple[int, int]], verb: str) -> None:
        old, new = self.pick(picks), [self.request(*ask) for ask in asks]
        happened = tuple(self.at_once(self.settle_alone(verb, old), self.reserve(new)))
        one, other = copy.deepcopy(self.model), copy.deepcopy(self.model)
        settled_first = one.settle_all(verb, old), one.reserve_all(new)
        reserved_first = tuple(reversed((other.reserve_all(new), other.settle_all(verb, old))))
        assert happened in (settled_first, reserved_first)
        self.model = one if happened == settled_first else other

    @invariant()
    def the_database_agrees(self) -> None:
        for merchant, balance in zip(self.merchants, self.await_(self.read_balances()), strict=True):
            assert balance.available_credits >= 0
            assert balance == Balance(self.model.available[merchant], self.model.reserved(merchant))

    @invariant()
    def the_ledger_is_sound(self) -> None:
        assert self.await_(self.find_contradictions()) == []

    # --- what the rules are made of

    def new_id(self) -> UUID:
        return self.ids.new(self.clock.now())

    def request(self, merchant: int, credits: int) -> ReserveRequest:
        return ReserveRequest(self.merchants[merchant], self.new_id(), self.new_id(), credits)

    def pick(self, picks: list[int]) -> list[ReserveRequest]:
        granted = self.model.requests
        return [granted[pick % len(granted)] for pick in picks] if granted else []

    def check_race(self, requests: list[ReserveRequest], granted: set[UUID]) -> None:
        """Who won is anybody's guess; but nobody overspent, and nobody was refused what is still there."""
        for request in requests:
            if request.reservation_id in granted:
                self.model.take(request)
        for request in requests:
            left = self.model.available[request.organization_id]
            assert left >= 0
            assert request.reservation_id in granted or request.credits > left

    def follow(self, requests: list[ReserveRequest], verbs: list[str], settled: list[set[UUID]]) -> None:
        """Let the model do what the database says happened."""
        for verb, winners in zip(verbs, settled, strict=True):
            for request in requests:
                if request.reservation_id in winners:
                    self.model.settle(verb, request)

    def await_(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=30)

    def at_once(self, *coroutines: Coroutine[Any, Any, T]) -> list[T]:
        """Each on a connection of its own, all at the same time."""

        async def gather() -> list[T]:
            return list(await asyncio.gather(*coroutines))

        return self.await_(gather())

    async def alone(self, verb: Callable[[Connection], Awaitable[T]]) -> T:
        async with self.db.transaction(ENGINE) as conn:
            return await verb(conn)

    async def reserve(self, requests: list[ReserveRequest]) -> set[UUID]:
        return await self.alone(lambda conn: reserve(conn, self.clock.now(), requests))

    async def settle_alone(self, verb: str, requests: list[ReserveRequest]) -> set[UUID]:
        keys = [(request.organization_id, request.reservation_id) for request in requests]
        return await self.alone(lambda conn: VERBS[verb](conn, self.clock.now(), keys))

    async def coalesce(self, requests: list[ReserveRequest]) -> list[bool]:
        reserver = Reserver(self.db, self.clock)
        answers = await asyncio.gather(*map(reserver.reserve, requests))
        await reserver.close()
        return answers

    async def insert_merchants(self) -> None:
        async with self.db.transaction(OPERATOR) as conn, conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO organizations (organization_id, name, plan, created_at) VALUES (%s, 'Linden', 'PRO', %s)",
                [(merchant, self.clock.now()) for merchant in self.merchants],
            )

    async def read_balances(self) -> list[Balance]:
        async with self.db.transaction(ENGINE) as conn:
            return [await read_balance(conn, merchant) for merchant in self.merchants]

    async def find_contradictions(self) -> list[Any]:
        async with self.db.transaction(ENGINE) as conn:
            return [
                *await invariants.balances_off_ledger(conn),
                *await invariants.broken_chains(conn),
                *await invariants.reservations_off_ledger(conn),
            ]


@pytest.mark.parametrize("examples", [10, pytest.param(60, marks=pytest.mark.thorough)])
async def test_the_ledger_follows_its_model(db: Database, clock: ManualClock, ids: Ids, examples: int) -> None:
    loop = asyncio.get_running_loop()
    bounds = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,  # races differ from run to run: an example kept from the last one proves little
    )

    def make_machine() -> LedgerMachine:
        return LedgerMachine(loop, db, clock, ids)

    # Its annotation wants a class; anything that makes a machine will do.
    await asyncio.to_thread(run_state_machine_as_test, make_machine, settings=bounds)  # type: ignore[arg-type]
