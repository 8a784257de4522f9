"""Carriers: asking what became of a text, by its words and by its id, and for the whole record."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import cast

from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    CannotAsk,
    Found,
    KeepsRecord,
    MessageStatus,
)
from cartwake.carriers.sandbox import Recipient
from cartwake.carriers.sandbox.state import attempt_key
from conformance.bench import ONA, SHOP, START, VIKTOR, Bench, a_text, post
from conformance.faults import ALWAYS
from conformance.trial import Trial, texts


async def test_what_the_carrier_took_can_be_found_and_nothing_else_can(trial: Trial) -> None:
    handed = texts()
    await trial.send(handed)
    for is_over in (False, True):
        for text in handed:
            taken = trial.taken(text)
            found = await trial.carrier.find(text, START)
            if not taken:
                assert found == Absent()
                continue
            (there,) = taken
            assert isinstance(found, Found)
            assert (found.report.sid, found.report.attempt_id) == (there.sid, text.attempt_id)
            assert there.status_callback and attempt_key(there.status_callback, "", "") == text.attempt_id.hex
            by_id = await trial.carrier.look_up(there.sid, text.attempt_id)
            assert isinstance(by_id, Found) and by_id.report.sid == there.sid
        if not is_over:
            trial.end_trouble()
    assert await trial.carrier.look_up("SM" + "0" * 32, handed[0].attempt_id) == Absent()


async def test_a_text_that_still_waits_at_the_carrier_is_found(trial: Trial) -> None:
    trial.bench.peer.state.recipients[ONA] = Recipient(delay_ms=60_000)
    trial.bench.peer.state.options = replace(trial.bench.peer.state.options, sent_after_ms=60_000)
    text = a_text()
    taken = await trial.hand_over(text)
    found = await trial.found(text)
    assert (found and found.report.status) == (MessageStatus.ACCEPTED if taken else None)


async def test_a_found_text_tells_what_became_of_it(trial: Trial) -> None:
    trial.bench.peer.state.recipients[ONA] = Recipient(outcome="undelivered", error_code=30005)
    text = a_text()
    taken = await trial.hand_over(text)
    await trial.bench.peer.settled()
    found = await trial.found(text)
    if taken is None:
        assert found is None
        return
    assert found is not None
    assert (found.report.sid, found.report.status, found.report.error_code) == (
        taken.sid,
        MessageStatus.UNDELIVERED,
        30005,
    )


async def test_another_text_is_not_mistaken_for_it(trial: Trial) -> None:
    text = a_text()
    await trial.hand_over(text)
    since = trial.bench.clock.advance(hours=24)
    assert await trial.carrier.find(text, since) == Absent(), "yesterday's text with the same words"
    for other in (a_text(body=text.body, to=VIKTOR), a_text(body=text.body, sender="+37061000002"), a_text()):
        await trial.hand_over(other)
    assert await trial.carrier.find(text, since) == Absent()
    taken = await trial.hand_over(text)
    assert isinstance(await trial.carrier.find(text, since), Found if taken else Absent)


async def test_it_is_found_behind_many_newer_ones(trial: Trial) -> None:
    text = a_text()
    taken = await trial.hand_over(text)
    for _ in range(230):
        newer = trial.bench.peer.state.add(to=text.to, sender=text.sender, body=a_text().body, status="sent")
        newer.sent_at = trial.bench.clock.now()
    assert isinstance(await trial.carrier.find(text, START), Found if taken else Absent)
    assert await trial.carrier.find(a_text(), START) == Absent()


async def test_small_differences_of_clocks_do_not_hide_it(trial: Trial) -> None:
    """The carrier's dates have whole seconds, and its clock may be a little behind ours."""
    text = a_text()
    taken = await trial.hand_over(text)
    found = await trial.carrier.find(text, START + timedelta(seconds=30))
    assert isinstance(found, Found if taken else Absent)


async def test_history_lists_what_was_taken_each_text_once(trial: Trial) -> None:
    handed = texts()
    await trial.send(handed)
    await post(trial.bench, "/sandbox/replies", {"from": ONA, "to": SHOP, "body": "Kada veikia?"})
    listed = [text async for text in cast(KeepsRecord, trial.carrier).history(START)]
    record = trial.bench.peer.state.texts.values()
    assert sorted((t.sid, t.sender, t.to, t.body, t.inbound) for t in listed) == sorted(
        (t.sid, t.sender or "", t.to, t.body, t.inbound) for t in record
    )
    assert [text.body for text in listed if text.inbound] == ["Kada veikia?"]


async def test_wrong_credentials_are_no_answer_about_a_text(trial: Trial) -> None:
    text = a_text()
    await trial.hand_over(text)
    stranger = trial.bench.make_carrier(auth_token="wrong")
    assert isinstance(await stranger.find(text, START), CannotAsk)
    await stranger.close()


async def test_a_late_receipt_comes_after_the_carrier_knows_better(bench: Bench) -> None:
    bench.go_wrong(**ALWAYS["late_callback"].faults)
    text = a_text()
    assert isinstance(await bench.carrier.send(text), Accepted)
    while (found := await bench.carrier.find(text, START)) and isinstance(found, Found):
        if found.report.status is MessageStatus.DELIVERED:
            break
    assert bench.receiver.received == [], "it is delivered, and nobody has told us"
    await bench.peer.settled()
    assert len(bench.receiver.received) == 2
