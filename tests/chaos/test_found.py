"""What the chaos found, each as a test that needs none."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import pytest

from cartwake.consent.events import read_consents_for_claim
from cartwake.kit.clock import ManualClock
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, Database, row
from cartwake.kit.phones import hash_phone
from cartwake.kit.schema import NotReadyError, check_ready
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


def test_a_wrong_key_is_not_waited_for(fresh_url: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(NotReadyError):
        check_ready(Database(fresh_url, Vault([b"another deployment's secret, of full length"])), PATIENCE_S)
    assert time.monotonic() - began_s < PATIENCE_S
