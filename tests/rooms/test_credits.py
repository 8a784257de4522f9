"""Credits: nobody spends what is not there, every credit is accounted for, everything settles once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from cartwake.credits import invariants, store
from cartwake.credits.balance import adjust, open_account, purchase, read_balance, read_ledger
from cartwake.credits.ledger import lock_balances
from cartwake.credits.model import PACKS, PLANS, Balance, ReserveRequest, plan_allows_sms
from cartwake.credits.pricing import COUNTRY_MULTIPLIERS, price
from cartwake.credits.refills import refill
from cartwake.credits.reservations import confirm, refund_delivery, release, reserve
from cartwake.credits.reserver import FLUSH_MAX_REQUESTS, Reserver
from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE, OPERATOR, WEB, Database
from cartwake.kit.errors import BadInput, Conflict, NotKnown
from cartwake.kit.ids import Ids


class Till:
    """The room's verbs, each in a transaction of its own, as an edge would call them."""

    def __init__(self, db: Database, clock: ManualClock, ids: Ids) -> None:
        self.db, self.clock, self.ids = db, clock, ids

    def new_id(self) -> UUID:
        return self.ids.new(self.clock.now())

    def ask(self, organization_id: UUID, credits: int) -> ReserveRequest:
        return ReserveRequest(organization_id, self.new_id(), self.new_id(), credits)

    async def merchant(self, credits: int) -> UUID:
        """An organization with so many purchased credits."""
        organization_id, now = self.new_id(), self.clock.now()
        async with self.db.transaction(OPERATOR) as conn:
            await conn.execute(
                "INSERT INTO organizations (organization_id, name, plan, created_at) VALUES (%s, 'Juniper', 'PRO', %s)",
                [organization_id, now],
            )
            await open_account(conn, now, organization_id)
            if credits:
                await purchase(conn, now, organization_id, credits, reference="opening")
        return organization_id

    async def reserve(self, *requests: ReserveRequest) -> set[UUID]:
        async with self.db.transaction(ENGINE) as conn:
            return await reserve(conn, self.clock.now(), requests)

    async def confirm(self, *requests: ReserveRequest) -> set[UUID]:
        async with self.db.transaction(ENGINE) as conn:
            return await confirm(conn, self.clock.now(), keys(requests))

    async def release(self, *requests: ReserveRequest) -> set[UUID]:
        async with self.db.transaction(ENGINE) as conn:
            return await release(conn, self.clock.now(), keys(requests))

    async def refund_delivery(self, *requests: ReserveRequest) -> set[UUID]:
        async with self.db.transaction(ENGINE) as conn:
            return await refund_delivery(conn, self.clock.now(), keys(requests))

    async def balance(self, organization_id: UUID) -> tuple[int, int]:
        async with self.db.transaction(ENGINE) as conn:
            found = await read_balance(conn, organization_id)
        return found.available_credits, found.reserved_credits

    async def history(self, organization_id: UUID) -> list[tuple[str, int, int]]:
        """Oldest first: type, credits, balance after."""
        async with self.db.transaction(ENGINE) as conn:
            entries = await read_ledger(conn, organization_id, limit=1000)
        return [(entry.entry_type.value, entry.credits, entry.balance_after) for entry in reversed(entries)]

    async def assert_sound(self) -> None:
        async with self.db.transaction(ENGINE) as conn:
            assert await invariants.balances_off_ledger(conn) == []
            assert await invariants.broken_chains(conn) == []
            assert await invariants.reservations_off_ledger(conn) == []


@pytest.fixture
def till(db: Database, clock: ManualClock, ids: Ids) -> Till:
    return Till(db, clock, ids)


def keys(requests: tuple[ReserveRequest, ...]) -> list[tuple[UUID, UUID]]:
    return [(request.organization_id, request.reservation_id) for request in requests]


# --- prices, plans and packs


@pytest.mark.parametrize(
    ("segments", "country", "credits"),
    [(1, "LT", 1), (2, "LT", 2), (1, "DE", 3), (2, "DE", 6), (1, "US", 1), (1, "GB", 2), (1, "CH", 3), (3, "JP", 9)],
)
def test_a_price_is_segments_times_the_country(segments: int, country: str, credits: int) -> None:
    assert price(segments, country) == credits


def test_prices_of_23_countries_are_known_and_the_rest_pay_the_most() -> None:
    assert len(COUNTRY_MULTIPLIERS) == 23
    assert price(1, "ZZ") == max(COUNTRY_MULTIPLIERS.values())


def test_a_text_without_segments_has_no_price() -> None:
    with pytest.raises(ValueError, match="at least one segment"):
        price(0, "LT")


def test_plans_and_packs_are_the_published_ones() -> None:
    assert {name: plan.monthly_credits for name, plan in PLANS.items()} == {"FREE": 0, "PRO": 100, "ULTRA": 500}
    assert [plan_allows_sms(name) for name in PLANS] == [False, True, True]
    assert {name: (pack.credits, pack.price_cents) for name, pack in PACKS.items()} == {
        "Starter": (100, 300),
        "Standard": (500, 1250),
        "Large": (2000, 4000),
    }


# --- reserving


async def test_two_shops_of_one_merchant_cannot_both_spend_thirty_of_fifty(till: Till) -> None:
    merchant = await till.merchant(50)
    first, second = till.ask(merchant, 30), till.ask(merchant, 30)
    answers = await asyncio.gather(till.reserve(first), till.reserve(second))
    assert sorted(map(len, answers)) == [0, 1]
    assert await till.balance(merchant) == (20, 30)
    await till.assert_sound()


async def test_a_text_too_dear_does_not_stop_cheaper_ones_after_it(till: Till) -> None:
    merchant = await till.merchant(10)
    small, dear, fits, nothing_left = (till.ask(merchant, credits) for credits in (4, 7, 6, 1))
    granted = await till.reserve(small, dear, fits, nothing_left)
    assert granted == {small.reservation_id, fits.reservation_id}
    assert await till.history(merchant) == [("PURCHASE", 10, 10), ("SEND_RESERVE", -4, 6), ("SEND_RESERVE", -6, 0)]
    await till.assert_sound()


async def test_each_merchant_pays_for_itself(till: Till) -> None:
    rich, poor, unknown = await till.merchant(100), await till.merchant(1), till.new_id()
    requests = [till.ask(merchant, 2) for merchant in (rich, poor, unknown, rich)]
    assert await till.reserve(*requests) == {requests[0].reservation_id, requests[3].reservation_id}
    assert [await till.balance(merchant) for merchant in (rich, poor, unknown)] == [(96, 4), (1, 0), (0, 0)]


async def test_an_attempt_that_asks_again_takes_nothing_more(till: Till) -> None:
    merchant = await till.merchant(10)
    attempt = till.ask(merchant, 3)
    assert await till.reserve(attempt, attempt) == {attempt.reservation_id}
    assert await till.reserve(attempt) == set()
    await till.release(attempt)
    assert await till.reserve(attempt) == set()
    assert await till.balance(merchant) == (10, 0)
    await till.assert_sound()


def test_nothing_is_not_reserved(till: Till) -> None:
    with pytest.raises(ValueError, match="at least one credit"):
        till.ask(till.new_id(), 0)


async def test_batches_over_the_same_merchants_in_any_order_do_not_deadlock(till: Till) -> None:
    merchants = [await till.merchant(1000) for _ in range(4)]
    batches = [
        [till.ask(merchant, 1) for merchant in (merchants if turn % 2 else reversed(merchants))] for turn in range(20)
    ]
    granted = await asyncio.gather(*(till.reserve(*batch) for batch in batches))
    assert all(len(ids_granted) == 4 for ids_granted in granted)
    settlings = [till.confirm if turn % 3 else till.release for turn in range(20)]
    settled = await asyncio.gather(*(settle(*batch) for settle, batch in zip(settlings, batches, strict=True)))
    assert all(len(ids_settled) == 4 for ids_settled in settled)
    await till.assert_sound()


# --- settling


async def test_confirmed_credits_are_spent_and_released_ones_come_back(till: Till) -> None:
    merchant = await till.merchant(10)
    accepted, rejected = till.ask(merchant, 3), till.ask(merchant, 2)
    await till.reserve(accepted, rejected)
    assert await till.confirm(accepted) == {accepted.reservation_id}
    assert await till.release(rejected) == {rejected.reservation_id}
    assert await till.balance(merchant) == (7, 0)
    assert (await till.history(merchant))[1:] == [
        ("SEND_RESERVE", -3, 7),
        ("SEND_RESERVE", -2, 5),
        ("SEND_CONFIRM", 0, 5),
        ("SEND_REFUND", 2, 7),
    ]
    await till.assert_sound()


async def test_a_reservation_settles_once_however_many_try(till: Till) -> None:
    merchant = await till.merchant(10)
    attempt = till.ask(merchant, 3)
    await till.reserve(attempt)
    tries = [till.confirm, till.release, till.confirm, till.release, till.confirm, till.release]
    settled = await asyncio.gather(*(settle(attempt) for settle in tries))
    assert sorted(map(len, settled)) == [0, 0, 0, 0, 0, 1]
    is_released = any(settled[1::2])
    assert await till.balance(merchant) == (10 if is_released else 7, 0)
    await till.assert_sound()


async def test_a_text_that_did_not_arrive_is_refunded_once(till: Till) -> None:
    merchant = await till.merchant(10)
    attempt = till.ask(merchant, 3)
    await till.reserve(attempt)
    assert await till.refund_delivery(attempt) == set(), "it is not confirmed yet"
    await till.confirm(attempt)
    refunds = await asyncio.gather(*(till.refund_delivery(attempt, attempt) for _ in range(5)))
    assert sorted(map(len, refunds)) == [0, 0, 0, 0, 1]
    assert await till.balance(merchant) == (10, 0)
    assert (await till.history(merchant))[-1] == ("DELIVERY_REFUND", 3, 10)
    await till.assert_sound()


async def test_what_was_released_is_not_refunded_too(till: Till) -> None:
    merchant = await till.merchant(10)
    attempt = till.ask(merchant, 3)
    await till.reserve(attempt)
    await till.release(attempt)
    assert await till.refund_delivery(attempt) == set()
    assert await till.balance(merchant) == (10, 0)


async def test_one_merchant_cannot_settle_anothers_reservation(till: Till) -> None:
    owner, other = await till.merchant(10), await till.merchant(10)
    attempt = till.ask(owner, 3)
    await till.reserve(attempt)
    forged = ReserveRequest(other, attempt.reservation_id, attempt.subject_id, 3)
    assert await till.release(forged) == set()
    assert await till.balance(owner) == (7, 3)


async def test_a_transaction_of_several_verbs_locks_everybody_first(till: Till) -> None:
    merchants = sorted([await till.merchant(10), await till.merchant(10)])
    one, two = till.ask(merchants[0], 1), till.ask(merchants[1], 1)
    three, four = till.ask(merchants[0], 1), till.ask(merchants[1], 1)
    await till.reserve(one, two, three, four)

    async def record(accepted: ReserveRequest, rejected: ReserveRequest) -> None:
        async with till.db.transaction(ENGINE) as conn:
            await lock_balances(conn, merchants)
            await confirm(conn, till.clock.now(), keys((accepted,)))
            await asyncio.sleep(0.01)
            await release(conn, till.clock.now(), keys((rejected,)))

    await asyncio.gather(record(one, two), record(four, three))
    assert [await till.balance(merchant) for merchant in merchants] == [(9, 0), (9, 0)]
    await till.assert_sound()


# --- balances by hand, by money and by plan


async def test_adjustments_go_both_ways_but_never_below_zero(till: Till) -> None:
    merchant = await till.merchant(0)
    async with till.db.transaction(OPERATOR) as conn:
        assert await adjust(conn, till.clock.now(), merchant, 5, note="goodwill") == Balance(5, 0)
        assert await adjust(conn, till.clock.now(), merchant, -2, note="typo") == Balance(3, 0)
    with pytest.raises(Conflict, match="Only 3 credits"):
        async with till.db.transaction(OPERATOR) as conn:
            await adjust(conn, till.clock.now(), merchant, -4)
    assert await till.history(merchant) == [("ADJUSTMENT", 5, 5), ("ADJUSTMENT", -2, 3)]
    await till.assert_sound()


async def test_a_reference_counts_once(till: Till) -> None:
    merchant = await till.merchant(0)

    async def pay() -> Balance:
        async with till.db.transaction(ENGINE) as conn:
            return await purchase(conn, till.clock.now(), merchant, 500, reference="cs_1")

    assert await asyncio.gather(*(pay() for _ in range(5))) == [Balance(500, 0)] * 5
    async with till.db.transaction(OPERATOR) as conn:
        await adjust(conn, till.clock.now(), merchant, 7, reference="cs_1")  # another type: another thing
        assert await adjust(conn, till.clock.now(), merchant, 7, reference="cs_1") == Balance(507, 0)
    await till.assert_sound()


@pytest.mark.parametrize("credits", [0, 10**19, -(10**19)])
async def test_an_absurd_adjustment_is_refused(till: Till, credits: int) -> None:
    merchant = await till.merchant(1)
    with pytest.raises(BadInput):
        async with till.db.transaction(OPERATOR) as conn:
            await adjust(conn, till.clock.now(), merchant, credits)


async def test_an_unknown_organization_has_nothing_and_gets_nothing(till: Till) -> None:
    stranger = till.new_id()
    async with till.db.transaction(OPERATOR) as conn:
        assert await read_balance(conn, stranger) == Balance(0, 0)
        assert await read_ledger(conn, stranger, limit=10) == []
    with pytest.raises(NotKnown):
        async with till.db.transaction(OPERATOR) as conn:
            await adjust(conn, till.clock.now(), stranger, 5)


async def test_the_ledger_is_read_in_pages_newest_first(till: Till) -> None:
    merchant = await till.merchant(0)
    async with till.db.transaction(OPERATOR) as conn:
        for credits in range(1, 8):  # all at the same time: the clock stands still
            await adjust(conn, till.clock.now(), merchant, credits)
    seen, before = [], None
    async with till.db.transaction(OPERATOR) as conn:
        while page := await read_ledger(conn, merchant, limit=3, before=before):
            seen += [entry.credits for entry in page]
            before = page[-1].entry_no
    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_a_plan_refills_once_a_month_however_many_schedulers_run(till: Till) -> None:
    pro, ultra, free = await till.merchant(3), await till.merchant(0), await till.merchant(0)
    plans = [(free, "FREE"), (ultra, "ULTRA"), (pro, "PRO")]

    async def run() -> list[UUID]:
        async with till.db.transaction(ENGINE) as conn:
            return await refill(conn, till.clock.now(), plans)

    runs = await asyncio.gather(*(run() for _ in range(4)))
    assert sorted(map(len, runs)) == [0, 0, 0, 2]
    till.clock.advance(days=10)
    assert set(await run()) == {pro, ultra}, "a new month"
    assert await run() == []
    assert [(await till.balance(merchant))[0] for merchant in (pro, ultra, free)] == [203, 1000, 0]
    await till.assert_sound()


async def test_a_refill_opens_a_missing_account(till: Till) -> None:
    newcomer = till.new_id()
    async with till.db.transaction(OPERATOR) as conn:
        await conn.execute("INSERT INTO organizations VALUES (%s, 'Newcomer', 'PRO', %s)", [newcomer, till.clock.now()])
    async with till.db.transaction(ENGINE) as conn:
        assert await refill(conn, till.clock.now(), [(newcomer, "PRO")]) == [newcomer]
    assert await till.balance(newcomer) == (100, 0)


async def test_a_tenant_reads_its_own_balance_and_ledger_only(till: Till) -> None:
    mine, theirs = await till.merchant(10), await till.merchant(20)
    await till.reserve(till.ask(mine, 4), till.ask(theirs, 4))
    async with till.db.transaction(WEB) as conn:
        await conn.execute("SELECT set_config('cartwake.org', %s, true)", [str(mine)])
        assert await read_balance(conn, mine) == Balance(6, 4)
        assert await read_balance(conn, theirs) == Balance(0, 0)
        assert len(await read_ledger(conn, mine, limit=10)) == 2
        assert await read_ledger(conn, theirs, limit=10) == []


# --- the walls in the schema, for whoever comes with hand-written SQL


async def test_the_database_itself_refuses_a_negative_balance(till: Till) -> None:
    merchant = await till.merchant(1)
    with pytest.raises(psycopg.errors.CheckViolation):
        async with till.db.transaction(ENGINE) as conn:
            await conn.execute(
                "UPDATE org_sms_credit_balances SET available_credits = -1 WHERE organization_id = %s", [merchant]
            )


@pytest.mark.parametrize("kind", ["PURCHASE", "SEND_RESERVE", "SEND_CONFIRM"])
async def test_the_database_itself_refuses_an_entry_that_was_made_before(till: Till, kind: str) -> None:
    """A purchase by its reference, a reservation's entries by their kind."""
    merchant = await till.merchant(10)
    attempt = till.ask(merchant, 3)
    await till.reserve(attempt)
    await till.confirm(attempt)
    with pytest.raises(psycopg.errors.UniqueViolation, match="per_re"):
        async with till.db.transaction(ENGINE) as conn:
            await conn.execute(
                "INSERT INTO org_sms_credit_ledger (organization_id, account, entry_no, entry_type, credits,"
                " balance_after, reservation_id, reference, at)"
                " SELECT organization_id, account, 99, entry_type, credits,"
                " balance_after, reservation_id, reference, at FROM org_sms_credit_ledger WHERE entry_type = %s",
                [kind],
            )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE org_sms_credit_ledger SET credits = 1000",
        "DELETE FROM org_sms_credit_ledger",
        "TRUNCATE org_sms_credit_ledger",
    ],
)
async def test_history_cannot_be_rewritten_even_by_the_owner(fresh_url: str, till: Till, statement: str) -> None:
    await till.merchant(1)
    with psycopg.connect(fresh_url) as owner, pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(statement)


@pytest.mark.parametrize(
    "entry",
    ["'SEND_CONFIRM', 1", "'SEND_RESERVE', 1", "'PURCHASE', -1", "'ADJUSTMENT', 0", "'PURCHASE_REVERSAL', 1"],
)
async def test_an_entry_has_the_sign_of_its_type(till: Till, entry: str) -> None:
    merchant = await till.merchant(1)
    with pytest.raises(psycopg.errors.CheckViolation):
        async with till.db.transaction(ENGINE) as conn:
            await conn.execute(
                "INSERT INTO org_sms_credit_ledger (entry_type, credits, organization_id, account, entry_no,"
                f" balance_after, reference, at) VALUES ({entry}, %s, 'sms', 2, 1, 'r', '2026-11-24')",
                [merchant],
            )


# --- invariants notice what they are for


@pytest.mark.parametrize(
    ("damage", "noticed_by"),
    [
        ("UPDATE org_sms_credit_balances SET available_credits = available_credits + 1", "balances_off_ledger"),
        ("UPDATE org_sms_credit_balances SET last_entry_no = last_entry_no + 1", "balances_off_ledger"),
        ("DELETE FROM org_sms_credit_ledger WHERE entry_no = 2", "broken_chains"),
        ("UPDATE org_sms_credit_ledger SET balance_after = 9 WHERE entry_no = 2", "broken_chains"),
        ("UPDATE sms_credit_reservations SET state = 'released'", "reservations_off_ledger"),
        ("UPDATE sms_credit_reservations SET credits = 4 WHERE state = 'confirmed'", "reservations_off_ledger"),
        ("DELETE FROM org_sms_credit_ledger WHERE entry_type = 'SEND_CONFIRM'", "reservations_off_ledger"),
    ],
)
async def test_invariants_notice_damage(fresh_url: str, till: Till, damage: str, noticed_by: str) -> None:
    merchant = await till.merchant(10)
    attempt = till.ask(merchant, 3)
    await till.reserve(attempt)
    await till.confirm(attempt)
    await till.assert_sound()
    with psycopg.connect(fresh_url) as owner:
        owner.execute("SET session_replication_role = replica")  # past the guards
        owner.execute(damage)
    async with till.db.transaction(ENGINE) as conn:
        assert await getattr(invariants, noticed_by)(conn) != []


async def test_reservations_left_open_are_noticed(till: Till) -> None:
    merchant = await till.merchant(10)
    forgotten, settled = till.ask(merchant, 3), till.ask(merchant, 1)
    await till.reserve(forgotten, settled)
    await till.confirm(settled)
    async with till.db.transaction(ENGINE) as conn:
        assert await invariants.reservations_open_longer_than(conn, till.clock.now(), 60) == []
        later = till.clock.now() + timedelta(seconds=61)
        found = await invariants.reservations_open_longer_than(conn, later, 60)
    assert [line["reservation_id"] for line in found] == [forgotten.reservation_id]


# --- the coalescer


async def test_500_callers_at_once_get_exactly_what_is_there(till: Till) -> None:
    merchant = await till.merchant(700)
    reserver = Reserver(till.db, till.clock)
    answers = await asyncio.gather(*(reserver.reserve(till.ask(merchant, 2)) for _ in range(500)))
    await reserver.close()
    assert answers.count(True) == 350
    assert await till.balance(merchant) == (0, 700)
    await till.assert_sound()


async def test_callers_share_commits_and_a_flush_is_bounded(fresh_url: str, till: Till) -> None:
    merchant, count = await till.merchant(5000), FLUSH_MAX_REQUESTS + 200
    reserver = Reserver(till.db, till.clock)
    await asyncio.gather(*(reserver.reserve(till.ask(merchant, 1)) for _ in range(count)))
    await reserver.close()
    with psycopg.connect(fresh_url) as owner:
        flushes = owner.execute("SELECT count(*) FROM org_sms_credit_ledger GROUP BY xmin").fetchall()
    assert sorted(size for (size,) in flushes) == [1, 200, FLUSH_MAX_REQUESTS]  # the purchase, and two flushes


async def test_a_failing_flush_fails_its_callers_only(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant = await till.merchant(10)
    reserver = Reserver(till.db, till.clock)
    with monkeypatch.context() as broken:
        broken.setattr(store, "INSERT_RESERVATIONS", "SELECT 1 / 0")
        lost = await asyncio.gather(
            *(reserver.reserve(till.ask(merchant, 2)) for _ in range(3)), return_exceptions=True
        )
    assert [type(error) for error in lost] == [psycopg.errors.DivisionByZero] * 3
    assert await reserver.reserve(till.ask(merchant, 2)) is True
    assert await till.balance(merchant) == (8, 2)


async def test_one_id_from_two_callers_is_granted_to_one(till: Till) -> None:
    attempt = till.ask(await till.merchant(10), 2)
    reserver = Reserver(till.db, till.clock)
    assert await asyncio.gather(*(reserver.reserve(attempt) for _ in range(3))) == [True, False, False]


async def test_closing_answers_everybody_first(till: Till) -> None:
    merchant = await till.merchant(10)
    reserver = Reserver(till.db, till.clock)
    *callers, gone = [asyncio.create_task(reserver.reserve(till.ask(merchant, 1))) for _ in range(5)]
    await asyncio.sleep(0)
    gone.cancel()
    await reserver.close()
    assert await asyncio.wait_for(asyncio.gather(*callers), 1) == [True] * 4
    assert await till.balance(merchant) == (6, 4), "who went away before the flush pays nothing"
    with pytest.raises(RuntimeError, match="closed"):
        await reserver.reserve(till.ask(merchant, 1))
