"""What the chaos found, each as a test that needs none."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from cartwake.consent.events import read_consents_for_claim
from cartwake.invariants import TEXTED_WITHOUT_CONSENT
from cartwake.kit.clock import ManualClock
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, Database, row
from cartwake.kit.phones import hash_phone
from cartwake.kit.schema import NotReadyError, check_ready
from chaos.bulk import write_carts
from chaos.plan import Cart, Way
from simulation.database import QUIET_TABLES
from world import RUTA, TICKED, World

PATIENCE_S = 20.0
# Long enough for a request on loopback to reach the lock that it must wait for.
UNDER_WAY_S = 0.5


@pytest.mark.thorough
async def test_a_no_that_waited_for_a_claim_is_dated_after_it(world: World, clock: ManualClock) -> None:
    """Else the proof, and `cartwake audit`, would show a text that was claimed after the no."""
    shop = await world.shop()
    await shop.put_session(consent=TICKED)
    key = (shop.merchant.organization_id, shop.shop_id, hash_phone(world.runtime.vault, RUTA))
    async with world.runtime.db.transaction(ENGINE) as claim:
        await read_consents_for_claim(claim, [key])
        no = asyncio.create_task(shop.call("POST", "/v1/consent-withdrawals", {"phone": RUTA}))
        await asyncio.sleep(UNDER_WAY_S)
        assert not no.done()
        claimed_at = clock.advance(seconds=1)
    await no
    async with world.runtime.db.transaction(ENGINE) as conn:
        found = await row(conn, "SELECT at FROM consent_events WHERE action = 'withdrawn'")
    assert found and found["at"] >= claimed_at


@pytest.mark.thorough
def test_a_process_that_is_to_stay_waits_for_a_database_that_restarts(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it ends, and whoever supervises it may give up after a few of those."""
    connect, knocks = psycopg.connect, 0

    def knock(*arguments: Any, **options: Any) -> Any:
        nonlocal knocks
        knocks += 1
        if knocks < 4:
            raise psycopg.OperationalError("the database system is in recovery mode")
        return connect(*arguments, **options)

    monkeypatch.setattr(psycopg, "connect", knock)
    with pytest.raises(NotReadyError):
        check_ready(db)
    check_ready(db, PATIENCE_S)
    assert knocks == 4


@pytest.mark.thorough
def test_a_wrong_key_is_not_waited_for(fresh_url: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(NotReadyError):
        check_ready(Database(fresh_url, Vault([b"another deployment's secret, of full length"])), PATIENCE_S)
    assert time.monotonic() - began_s < PATIENCE_S


MESSAGES = """
INSERT INTO sms_messages (organization_id, shop_id, message_id, session_id, kind, step, state, due_at, attempt_id,
  attempted_at, phone_hash, created_at, updated_at)
SELECT organization_id, shop_id, session_id, session_id, 'cart_recovery', 1, 'delivered', %(now)s, session_id,
  %(now)s, phone_hash, %(now)s, %(now)s
FROM checkout_sessions ON CONFLICT DO NOTHING
"""
FEW = 400


@pytest.mark.thorough
async def test_consent_is_audited_at_one_pass_by_a_planner_without_statistics(world: World, fresh_url: str) -> None:
    """A database that has just recovered has none. Twice as many texts are twice as much to read, not four times."""
    shop = await world.shop()
    with psycopg.connect(fresh_url, autocommit=True, row_factory=dict_row) as conn:
        conn.execute(QUIET_TABLES)
        read = []
        for carts in (range(FEW), range(FEW, 2 * FEW)):
            await write_carts(
                fresh_url, world.runtime.moment(), [shop.scope] * FEW, [_cart(number) for number in carts]
            )
            conn.execute(MESSAGES, {"now": world.runtime.clock.now()})
            plan = conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {TEXTED_WITHOUT_CONSENT}").fetchone()
            assert plan is not None
            read.append(_rows_read(plan["QUERY PLAN"][0]["Plan"]))
    assert read[1] < 3 * read[0]


def _cart(number: int) -> Cart:
    return Cart(number, 0, 0, Way.BULK, "LT", "lt", 0, None, timedelta(0), "delivered", None)


def _rows_read(node: dict[str, Any]) -> float:
    """What a plan and all below it have looked at."""
    removed = sum(count for name, count in node.items() if name.startswith("Rows Removed"))
    return float((node["Actual Rows"] + removed) * node["Actual Loops"] + sum(map(_rows_read, node.get("Plans", []))))
