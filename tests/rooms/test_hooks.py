"""The carrier's webhooks: what it did not sign changes nothing, what it signed is stored before it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest

from cartwake.kit.coalescer import Coalescer
from cartwake.kit.db import ENGINE, rows
from world import RUTA, World, sign

ATTEMPT = UUID("01936f2a-7d33-7cc0-8000-000000000001")
STATUS = f"/hooks/twilio/status?attempt={ATTEMPT.hex}"
INBOUND = "/hooks/twilio/inbound"
SID = "SM" + "0" * 32
DELIVERED = {"MessageSid": SID, "MessageStatus": "delivered", "AccountSid": "AC" + "0" * 32, "To": RUTA}
STOP = {"MessageSid": SID, "From": RUTA, "To": "+37061000001", "Body": "Stop, ačiū", "OptOutType": "STOP"}


async def stored(world: World) -> list[tuple[str, dict[str, Any]]]:
    """What lies in the inbox, opened."""
    async with world.runtime.db.transaction(ENGINE) as conn:
        found = await rows(conn, "SELECT kind, payload_sealed FROM carrier_events ORDER BY event_id")
    vault = world.runtime.vault
    return [(each["kind"], json.loads(vault.open(each["payload_sealed"], "carrier-event"))) for each in found]


async def test_a_receipt_is_stored_and_answered(world: World) -> None:
    answer = await world.carrier_posts(STATUS, DELIVERED | {"MessageStatus": "undelivered", "ErrorCode": "30003"})
    assert answer.status_code == 204 and answer.content == b""
    payload = {"sid": SID, "attempt_id": str(ATTEMPT), "status": "undelivered", "error_code": 30003}
    assert await stored(world) == [("status", payload)]


async def test_a_receipt_without_our_attempt_is_stored_too(world: World) -> None:
    await world.carrier_posts("/hooks/twilio/status", DELIVERED)
    assert await stored(world) == [
        ("status", {"sid": SID, "attempt_id": None, "status": "delivered", "error_code": None})
    ]


async def test_a_status_that_means_nothing_to_us_is_answered_and_not_stored(world: World) -> None:
    assert (await world.carrier_posts(STATUS, DELIVERED | {"MessageStatus": "receiving"})).status_code == 204
    assert await stored(world) == []


async def test_a_shopper_s_text_is_stored_sealed_and_answered_with_silence(world: World) -> None:
    answer = await world.carrier_posts(INBOUND, STOP)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/xml") and answer.text.endswith("<Response/>")
    payload = {"sid": SID, "sender": RUTA, "to": "+37061000001", "body": "Stop, ačiū", "opt_out_type": "STOP"}
    assert await stored(world) == [("inbound", payload)]
    async with world.runtime.db.transaction(ENGINE) as conn:
        assert "61234567" not in str(await rows(conn, "SELECT e::text FROM carrier_events e"))


async def test_duplicates_are_stored_each_time(world: World) -> None:
    for _ in range(3):
        assert (await world.carrier_posts(STATUS, DELIVERED)).status_code == 204
    assert len(await stored(world)) == 3


async def test_what_the_carrier_did_not_sign_changes_nothing(world: World) -> None:
    good = sign(world.runtime, STATUS, DELIVERED)
    other_body = sign(world.runtime, STATUS, DELIVERED | {"MessageStatus": "failed"})
    other_address = sign(world.runtime, "/hooks/twilio/status", DELIVERED)
    other_hook = sign(world.runtime, INBOUND, DELIVERED)
    for signature in ("", "forged", good[:-2] + "A=", good.lower(), other_body, other_address, other_hook):
        answer = await world.carrier_posts(STATUS, DELIVERED, signature=signature)
        assert answer.status_code == 403 and answer.json()["type"] == "/problems/bad-signature"
    unsigned = await world.http.post(STATUS, data=DELIVERED)
    assert unsigned.status_code == 403
    twice = [("X-Twilio-Signature", good), ("X-Twilio-Signature", good)]
    assert (await world.http.post(STATUS, data=DELIVERED, headers=twice)).status_code == 403
    altered_query = await world.http.post(
        STATUS.replace("1", "2"), data=DELIVERED, headers={"X-Twilio-Signature": good}
    )
    assert altered_query.status_code == 403
    assert await stored(world) == []


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b"=&=&=", b"a=1&" * 300])
async def test_an_unsigned_body_of_any_shape_is_refused_unread(world: World, body: bytes) -> None:
    for path in (STATUS, INBOUND):
        answer = await world.http.post(path, content=body, headers={"X-Twilio-Signature": "x"})
        assert answer.status_code == 403
    assert await stored(world) == []


async def test_a_signed_body_that_lacks_what_is_needed_is_a_problem(world: World) -> None:
    for path, form in (
        (STATUS, {"MessageStatus": "sent"}),
        (STATUS, {"MessageSid": SID}),
        (STATUS, DELIVERED | {"MessageSid": "x y"}),
        (INBOUND, {"MessageSid": SID, "To": RUTA}),
        (INBOUND, {}),
    ):
        answer = await world.carrier_posts(path, form)
        assert answer.status_code == 400 and answer.json()["type"] == "/problems/bad-webhook", (path, form)
    assert await stored(world) == []


async def test_a_large_body_is_refused(world: World) -> None:
    for path in (STATUS, INBOUND):
        answer = await world.carrier_posts(path, DELIVERED | {"Body": "x" * 70_000})
        assert answer.status_code == 413 and answer.json()["type"] == "/problems/body-too-large"
    assert await stored(world) == []


async def test_only_posts_are_webhooks(world: World) -> None:
    assert (await world.http.get(STATUS)).status_code == 405


async def test_many_at_once_are_all_stored(world: World) -> None:
    forms = [DELIVERED | {"MessageSid": f"SM{number:032x}"} for number in range(200)]
    answers = await asyncio.gather(*(world.carrier_posts(STATUS, form) for form in forms))
    assert {answer.status_code for answer in answers} == {204}
    assert sorted(payload["sid"] for _, payload in await stored(world)) == sorted(form["MessageSid"] for form in forms)


async def test_it_is_answered_only_once_it_is_stored(world: World, fresh_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(fresh_url) as blocker:
        await blocker.execute("LOCK TABLE carrier_events IN EXCLUSIVE MODE")
        answering = asyncio.create_task(world.carrier_posts(STATUS, DELIVERED))
        await asyncio.sleep(0.2)
        assert not answering.done()
        await blocker.rollback()
        assert (await answering).status_code == 204
    assert len(await stored(world)) == 1


async def test_what_cannot_be_stored_is_not_answered_2xx(world: World, fresh_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute("REVOKE INSERT ON carrier_events FROM cartwake_web")
        refused = await asyncio.gather(*(world.carrier_posts(STATUS, DELIVERED) for _ in range(3)))
        assert {answer.status_code for answer in refused} == {500}
        await owner.execute("GRANT INSERT ON carrier_events TO cartwake_web")
    assert (await world.carrier_posts(STATUS, DELIVERED)).status_code == 204
    assert len(await stored(world)) == 1


# --- the coalescer -------------------------------------------------------------------------------


class Recorder:
    """A flush that remembers its batches, waits when told to, and fails on `bad` items."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: Sequence[int]) -> None:
        self.batches.append(list(items))
        await self.gate.wait()
        if -1 in items:
            raise ValueError("bad item")


async def test_what_arrives_during_a_flush_goes_out_together() -> None:
    flush = Recorder()
    flush.gate.clear()
    coalescer = Coalescer(flush, batch_max=3)
    callers = [asyncio.create_task(coalescer.submit(number)) for number in range(6)]
    await asyncio.sleep(0)
    late = asyncio.create_task(coalescer.submit(6))
    await asyncio.sleep(0.01)
    assert not any(caller.done() for caller in [*callers, late])
    flush.gate.set()
    await asyncio.gather(*callers, late)
    assert flush.batches == [[0, 1, 2], [3, 4, 5], [6]]


async def test_a_failed_flush_fails_its_own_callers_only() -> None:
    flush = Recorder()
    coalescer = Coalescer(flush, batch_max=2)
    results = await asyncio.gather(*(coalescer.submit(n) for n in (1, -1, 2, 3)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, ValueError, type(None), type(None)]
    await coalescer.submit(4)


async def test_a_caller_that_went_away_is_not_flushed() -> None:
    flush = Recorder()
    flush.gate.clear()
    coalescer = Coalescer(flush)
    first = asyncio.create_task(coalescer.submit(1))
    await asyncio.sleep(0.01)
    gone = asyncio.create_task(coalescer.submit(2))
    await asyncio.sleep(0)
    gone.cancel()
    flush.gate.set()
    await first
    assert flush.batches == [[1]]


async def test_closing_answers_what_was_taken_and_takes_no_more() -> None:
    flush = Recorder()
    flush.gate.clear()
    coalescer = Coalescer(flush)
    first = asyncio.create_task(coalescer.submit(1))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(coalescer.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    with pytest.raises(RuntimeError):
        await coalescer.submit(2)
    flush.gate.set()
    await closing
    assert first.done()
