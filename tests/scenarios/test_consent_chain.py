"""G10 in the database: whatever is written is sealed once and in order, and whoever tampers with it is noticed."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from cartwake.carriers.protocol import Carrier
from cartwake.consent.chain_store import Place
from cartwake.consent.events import grant
from cartwake.consent.invariants import CHAINS
from cartwake.consent.model import Channel, ConsentChange, Evidence
from cartwake.consent.sealing import seal_batch
from cartwake.consent.verify import BadExportError
from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE, WEB, Connection, rows
from cartwake.kit.phones import hash_phone
from cartwake.kit.runtime import Runtime
from cartwake.scheduler import TASKS, enrol, run_due
from chains import EXPORT, as_owner, audit, exported, lines_of, say, seal, verified
from world import AINO, JONAS, RUTA, TICKED, UNTICKED, ShopClient, World

SHOPPERS = [f"+3706100{number:04}" for number in range(40)]


class CrashError(Exception):
    """The process ends here."""


async def heads(runtime: Runtime) -> list[dict[str, Any]]:
    async with runtime.db.transaction(ENGINE) as conn:
        return await rows(conn, "SELECT * FROM consent_chains ORDER BY organization_id, shop_id")


async def counts(runtime: Runtime) -> tuple[int, int, int]:
    """Events, links, and what awaits sealing."""
    async with runtime.db.transaction(ENGINE) as conn:
        found = await rows(
            conn,
            "SELECT (SELECT count(*) FROM consent_events) AS events, (SELECT count(*) FROM consent_links) AS links,"
            " (SELECT count(*) FROM consent_unsealed) AS waiting",
        )
    return found[0]["events"], found[0]["links"], found[0]["waiting"]


# --- sealing ---------------------------------------------------------------------------------------------------


async def test_what_a_shopper_says_is_sealed_within_a_minute_and_can_be_shown(
    world: World, carrier: Carrier, clock: ManualClock
) -> None:
    shop = await world.shop()
    await enrol(world.runtime, TASKS)
    await run_due(world.runtime, carrier)
    await shop.put_session(consent=TICKED)
    clock.advance(seconds=1)
    await shop.put_session(consent=UNTICKED)
    assert (await shop.call("GET", "/v1/consent-chain"))["position"] == 0
    clock.advance(minutes=1)
    await run_due(world.runtime, carrier)
    found = verified(await exported(shop))
    assert (found.position, found.proven, found.waiting) == (2, 2, 0)
    head = await shop.call("GET", "/v1/consent-chain")
    assert (head["position"], head["head"]) == (2, found.head.hex())
    given, taken = [line for line in lines_of(await exported(shop)) if line["type"] == "event"]
    assert given["action"] == "granted" and given["proof"]["evidence"]["wording"] == TICKED["wording"]
    assert taken["action"] == "withdrawn"
    assert {line["proof"]["evidence"]["phone"] for line in (given, taken)} == {RUTA}, "the second knew only its hash"
    assert await audit(world.runtime) == []


async def test_many_shops_are_sealed_in_few_windows_and_each_has_its_own_chain(world: World) -> None:
    merchant = await world.merchant()
    shops = [await merchant.shop(f"Shop {number}", sender=None) for number in range(6)]
    for number, shop in enumerate(shops):
        await say(world.runtime, shop, SHOPPERS[: number * 3 + 1])
    written, _, _ = await counts(world.runtime)
    assert await seal(world.runtime, limit=4) == written, "a window ends in the middle of shops"
    assert await seal(world.runtime) == 0
    for number, shop in enumerate(shops):
        assert verified(await exported(shop)).position == number * 3 + 1
    assert len({head["head"] for head in await heads(world.runtime)}) == 6
    assert await audit(world.runtime) == []


async def test_what_one_phone_said_is_chained_in_the_order_in_which_it_was_said(world: World) -> None:
    shop = await world.shop()
    for yes in (True, False, True, False):  # all in the same millisecond: the clock stands still
        await say(world.runtime, shop, [RUTA, AINO], yes=yes)
    await seal(world.runtime, limit=3)
    events = [line for line in lines_of(await exported(shop)) if line["type"] == "event"]
    for phone in (RUTA, AINO):
        said = [each["action"] for each in events if each["proof"]["evidence"]["phone"] == phone]
        assert said == ["granted", "withdrawn"] * 2


async def test_an_event_whose_transaction_commits_late_is_not_left_out(world: World, clock: ManualClock) -> None:
    runtime, shop = world.runtime, await world.shop()
    scope, early = shop.scope, runtime.moment()
    change = ConsentChange(scope.organization_id, scope.shop_id, hash_phone(runtime.vault, RUTA), Evidence(phone=RUTA))
    async with runtime.db.transaction(ENGINE) as slow:
        await grant(slow, early, Channel.CHECKBOX, [change])
        clock.advance(seconds=30)
        await say(runtime, shop, [AINO])
        assert await seal(runtime) == 1
    assert await seal(runtime) == 1
    first, second = [line for line in lines_of(await exported(shop)) if line["type"] == "event"]
    assert first["at"] > second["at"], "in the order of sealing"
    assert verified(await exported(shop)).position == 2 and await audit(runtime) == []


async def test_of_two_sealers_one_leaves_to_the_other_what_it_holds(world: World) -> None:
    runtime, now = world.runtime, world.runtime.clock.now()
    held, free = await world.shop("Lino Namai"), await world.shop("Knygos")
    await say(runtime, held, SHOPPERS[:3])
    await seal(runtime)
    await say(runtime, held, SHOPPERS[3:6])
    async with asyncio.timeout(10), runtime.db.transaction(ENGINE) as first:
        assert (await seal_batch(first, now, Place())).events == 3
        await say(runtime, held, SHOPPERS[6:8])
        await say(runtime, free, SHOPPERS[:4])
        async with runtime.db.transaction(ENGINE) as second:
            assert (await seal_batch(second, now, Place())).events == 4, "the other shop's"
    assert await seal(runtime) == 2
    assert verified(await exported(held)).position == 8 and verified(await exported(free)).position == 4
    assert await audit(runtime) == []


async def test_writers_and_sealers_at_once_lose_nothing_and_seal_nothing_twice(world: World) -> None:
    runtime = world.runtime
    merchant = await world.merchant()
    shops = [await merchant.shop(f"Shop {number}", sender=None) for number in range(3)]
    writing = True

    async def write(shop: ShopClient) -> None:
        for first in range(0, len(SHOPPERS), 4):
            await say(runtime, shop, SHOPPERS[first : first + 4])
            await say(runtime, shop, SHOPPERS[first : first + 2], yes=False)

    async def sealing() -> int:
        count = 0
        while writing:
            count += await seal(runtime, limit=9)
        return count

    sealers = [asyncio.create_task(sealing()) for _ in range(2)]
    await asyncio.gather(*map(write, shops))
    writing = False
    sealed = sum(await asyncio.gather(*sealers)) + await seal(runtime)
    assert sealed == 3 * 60 and await counts(runtime) == (180, 180, 0)
    for shop in shops:
        assert verified(await exported(shop)).position == 60
    assert await audit(runtime) == []


async def test_a_sealer_that_dies_anywhere_leaves_the_chain_right(world: World) -> None:
    runtime, shop = world.runtime, await world.shop()
    await say(runtime, shop, SHOPPERS[:3])
    await seal(runtime)
    await say(runtime, shop, SHOPPERS[3:7])
    before = (await heads(runtime), await counts(runtime))
    died_at = 0
    while True:
        died_at += 1
        try:
            async with runtime.db.transaction(ENGINE) as conn:
                with dying(conn, died_at):
                    await seal_batch(conn, runtime.clock.now(), Place())
            break  # it got to its end
        except CrashError:
            assert (await heads(runtime), await counts(runtime)) == before
            assert await audit(runtime) == [] and verified(await exported(shop)).waiting == 4
    assert died_at > 6, "it died between every two statements"
    assert await counts(runtime) == (7, 7, 0)
    assert verified(await exported(shop)).position == 7 and await audit(runtime) == []


class dying:  # noqa: N801 - reads as a verb
    """The process ends before its n-th statement."""

    def __init__(self, conn: Connection, number: int) -> None:
        self._conn, self._left = conn, number

    def __enter__(self) -> None:
        execute = self._conn.execute

        async def execute_or_die(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if not self._left:
                raise CrashError
            return await execute(*args, **options)

        self._conn.execute = execute_or_die  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        del self._conn.execute


# --- whose it is -----------------------------------------------------------------------------------------------


async def test_a_key_sees_its_own_shops_chain_alone(world: World) -> None:
    lino, knygos = await world.shop("Lino Namai"), await world.shop("Knygos")
    sibling = await lino.merchant.shop("Lino Sodas")
    await say(world.runtime, lino, [RUTA, AINO])
    await seal(world.runtime)
    await say(world.runtime, lino, [JONAS])
    for other in (knygos, sibling):
        found = verified(await exported(other))
        assert (found.position, found.waiting) == (0, 0) and found.shop_id == str(other.shop_id)
        assert (await other.call("GET", "/v1/consent-chain"))["position"] == 0
        assert verified(await exported(other, phone=RUTA)).position == 0
    assert (verified(await exported(lino)).position, verified(await exported(lino)).waiting) == (2, 1)


async def test_the_web_login_can_neither_chain_nor_unchain(world: World) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA])
    await seal(world.runtime)
    for statement in (
        "UPDATE consent_chains SET position = 0",
        "INSERT INTO consent_links SELECT * FROM consent_links",
        "DELETE FROM consent_links",
        "DELETE FROM consent_unsealed",
        "UPDATE consent_events SET action = 'granted'",
    ):
        async with world.runtime.db.transaction(WEB) as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await conn.execute(statement)
            await conn.rollback()


# --- one shopper -----------------------------------------------------------------------------------------------


async def test_one_shoppers_export_proves_theirs_and_tells_nothing_of_others(world: World) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA, AINO, JONAS])
    await say(world.runtime, shop, [RUTA], yes=False)
    await seal(world.runtime)
    await say(world.runtime, shop, [RUTA, AINO])
    export = await exported(shop, phone="0612 34567")
    found = verified(export)
    assert (found.position, found.proven, found.others, found.waiting) == (4, 2, 2, 1)
    assert found.head == verified(await exported(shop)).head
    text = export.decode()
    assert RUTA in text and AINO not in text and JONAS not in text
    assert [line["action"] for line in lines_of(export) if "action" in line] == ["granted", "granted", "withdrawn"]
    assert verified(await exported(shop, phone="+37069999999")).others == 4


async def test_a_wrong_phone_is_refused_before_the_file_begins(world: World) -> None:
    shop = await world.shop()
    answer = await shop.api("GET", EXPORT, params={"phone": "call me"})
    assert answer.status_code == 400 and answer.json()["type"] == "/problems/invalid-phone"


# --- receipts --------------------------------------------------------------------------------------------------


async def test_a_head_on_a_receipt_is_found_in_every_later_export(world: World) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA, AINO])
    await seal(world.runtime)
    receipt = (await shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA}))["chain"]
    assert receipt["position"] == 2 and receipt["sealed_at"] == "2026-11-24T08:15:00Z"
    await say(world.runtime, shop, [JONAS])
    await seal(world.runtime)
    assert verified(await exported(shop), receipt["head"]).noted == {receipt["head"]: 2}
    assert verified(await exported(shop), "ab" * 32).noted == {}


# --- erasure ---------------------------------------------------------------------------------------------------


async def test_what_is_erased_is_gone_and_the_chain_still_verifies(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA, AINO, JONAS])
    await seal(world.runtime)
    whole = verified(await exported(shop))
    victim = next(line for line in lines_of(await exported(shop, phone=AINO)) if line["type"] == "event")
    with as_owner(fresh_url) as owner:
        owner.execute("DELETE FROM consent_evidence WHERE event_id = %s", [victim["event_id"]])
    found = verified(await exported(shop))
    assert (found.head, found.proven, found.erased) == (whole.head, 2, 1)
    (erased,) = [line for line in lines_of(await exported(shop)) if line.get("proof", "") is None]
    assert erased["event_id"] == victim["event_id"] and erased["commitment"] == victim["commitment"]
    # Nobody can say any more whose it was, so it is in everybody's file: or a no would be missing after a yes.
    assert erased in lines_of(await exported(shop, phone=RUTA))
    assert verified(await exported(shop, phone=RUTA)).erased == 1
    assert await audit(world.runtime) == []
    # Whoever guesses the phone and the wording right cannot know it: the salt was nowhere else.
    with psycopg.connect(fresh_url) as owner:
        tables = owner.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in tables.fetchall():
            kept = str(
                owner.execute(
                    psycopg.sql.SQL("SELECT t::text FROM {} t").format(psycopg.sql.Identifier(table))
                ).fetchall()
            )
            assert victim["proof"]["salt"] not in kept, table


# --- whoever owns the database -----------------------------------------------------------------------------------

TAMPERED = {
    "a public field": "UPDATE consent_events SET action = 'withdrawn' WHERE event_id = %(event)s",
    "its time": "UPDATE consent_events SET at = at - interval '1 day' WHERE event_id = %(event)s",
    "its channel": "UPDATE consent_events SET channel = 'api' WHERE event_id = %(event)s",
    "a commitment": "UPDATE consent_events SET commitment = sha256(commitment) WHERE event_id = %(event)s",
    "a link": "UPDATE consent_links SET link = sha256(link) WHERE event_id = %(event)s",
    "its sealing": "UPDATE consent_links SET sealed_at = sealed_at - interval '1 day' WHERE event_id = %(event)s",
    "which event a link is of": ("UPDATE consent_links SET event_id = gen_random_uuid() WHERE event_id = %(event)s"),
    "the head": "UPDATE consent_chains SET head = sha256(head)",
    "the head's place": "UPDATE consent_chains SET position = position - 1",
    "an old head": (
        "UPDATE consent_chains SET (position, head) = (SELECT position, link FROM consent_links WHERE position = 1)"
    ),
    "a removed event": "DELETE FROM consent_events WHERE event_id = %(event)s",
    "a removed link": "DELETE FROM consent_links WHERE event_id = %(event)s",
    "a removed last link": "DELETE FROM consent_links WHERE position = 4",
    "a removed chain": "DELETE FROM consent_chains",
    "two swapped links": "UPDATE consent_links SET position = (ARRAY[1, 9, 2, 4])[position]",
    "a salt": "UPDATE consent_evidence SET salt = %(other)s WHERE event_id = %(event)s",
    "sealed evidence": "UPDATE consent_evidence SET evidence_sealed = '\\x00' WHERE event_id = %(event)s",
    "another's evidence": (
        "UPDATE consent_evidence e SET salt = o.salt, evidence_sealed = o.evidence_sealed, phone_hash = o.phone_hash"
        " FROM consent_evidence o WHERE e.event_id = %(event)s AND o.event_id <> %(event)s"
    ),
}


@pytest.mark.thorough
async def test_the_hourly_look_goes_through_the_chains_of_all_shops_that_grew(world: World, fresh_url: str) -> None:
    """So many shops at a time; the shop that was tampered with is the last of them."""
    merchant = await world.merchant()
    for number in range(CHAINS + 1):
        await say(world.runtime, await merchant.shop(f"Shop {number}"), [RUTA])
    assert await seal(world.runtime) == CHAINS + 1
    assert await audit(world.runtime) == []
    with as_owner(fresh_url) as owner:
        last = "(SELECT shop_id FROM consent_chains ORDER BY organization_id, shop_id DESC LIMIT 1)"
        owner.execute(f"UPDATE consent_events SET action = 'withdrawn' WHERE shop_id = {last}")
    assert "newest_consents_chain" in await audit(world.runtime)


@pytest.mark.parametrize("what", TAMPERED)
async def test_whoever_tampers_in_the_database_is_noticed_by_audit_and_by_export(
    world: World, fresh_url: str, what: str
) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, SHOPPERS[:4])
    await seal(world.runtime)
    assert await audit(world.runtime) == [] and verified(await exported(shop)).proven == 4
    victim = [line for line in lines_of(await exported(shop)) if line["type"] == "event"][1]["event_id"]
    with as_owner(fresh_url) as owner:
        owner.execute(TAMPERED[what], {"event": victim, "other": b"x" * 16})
    assert await audit(world.runtime) != []
    with pytest.raises(BadExportError):
        verified(await exported(shop))


async def test_evidence_that_is_laid_under_another_phone_is_noticed(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA, AINO])
    await seal(world.runtime)
    with as_owner(fresh_url) as owner:
        owner.execute("UPDATE consent_evidence SET phone_hash = (SELECT min(phone_hash) FROM consent_evidence)")
    assert await audit(world.runtime) == ["consents_chain"]


async def test_an_event_that_was_kept_from_the_chain_is_noticed(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    await say(world.runtime, shop, [RUTA])
    with as_owner(fresh_url) as owner:
        owner.execute("DELETE FROM consent_unsealed")
    assert await audit(world.runtime) == ["every_consent_is_chained"]


async def test_history_that_is_written_anew_from_the_start_is_noticed_by_a_receipt(
    world: World, fresh_url: str
) -> None:
    """The owner of the database can forge a chain that verifies. Not one that has a head which somebody noted."""
    shop = await world.shop()
    await say(world.runtime, shop, SHOPPERS[:4])
    await seal(world.runtime)
    noted = (await shop.call("GET", "/v1/consent-chain"))["head"]
    with as_owner(fresh_url) as owner:
        owner.execute(
            "DELETE FROM consent_evidence WHERE event_id = (SELECT event_id FROM consent_links WHERE position = 2)"
        )
        owner.execute(
            "DELETE FROM consent_events WHERE event_id = (SELECT event_id FROM consent_links WHERE position = 2)"
        )
        owner.execute("DELETE FROM consent_links")
        owner.execute("DELETE FROM consent_chains")
        owner.execute("INSERT INTO consent_unsealed SELECT organization_id, shop_id, at, event_id FROM consent_events")
    await seal(world.runtime)
    assert await audit(world.runtime) == [] and verified(await exported(shop)).position == 3
    assert verified(await exported(shop), noted).noted == {}
