"""Carriers: asking what became of a text, by its words and by its id."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    CannotAsk,
    Found,
    MessageStatus,
)
from cartwake.carriers.sandbox import Recipient
from conformance.bench import (
    ACCOUNT,
    ONA,
    SID,
    START,
    VIKTOR,
    Bench,
    Peculiar,
    a_text,
    listening,
)


async def test_a_text_that_still_waits_at_the_carrier_is_found(bench: Bench) -> None:
    bench.peer.state.recipients[ONA] = Recipient(delay_ms=60_000)
    bench.peer.state.options = replace(bench.peer.state.options, sent_after_ms=60_000)
    text = a_text()
    assert isinstance(await bench.carrier.send(text), Accepted)
    found = await bench.carrier.find(text, START)
    assert isinstance(found, Found) and found.report.status is MessageStatus.ACCEPTED


async def test_a_found_text_tells_what_became_of_it(bench: Bench) -> None:
    bench.peer.state.recipients[ONA] = Recipient(outcome="undelivered", error_code=30005)
    text = a_text()
    result = await bench.carrier.send(text)
    await bench.peer.settled()
    found = await bench.carrier.find(text, START)
    assert isinstance(result, Accepted) and isinstance(found, Found)
    assert (found.report.sid, found.report.status, found.report.error_code) == (
        result.sid,
        MessageStatus.UNDELIVERED,
        30005,
    )


async def test_another_text_is_not_mistaken_for_it(bench: Bench) -> None:
    text = a_text()
    assert isinstance(await bench.carrier.send(text), Accepted)
    since = bench.clock.advance(hours=24)
    assert await bench.carrier.find(text, since) == Absent(), "yesterday's text with the same words"
    for other in (a_text(body=text.body, to=VIKTOR), a_text(body=text.body, sender="+37061000002"), a_text()):
        assert isinstance(await bench.carrier.send(other), Accepted)
    assert await bench.carrier.find(text, since) == Absent()
    assert isinstance(await bench.carrier.send(text), Accepted)
    assert isinstance(await bench.carrier.find(text, since), Found)


async def test_texts_between_other_numbers_in_the_answer_are_not_mistaken_for_it(bench: Bench) -> None:
    """A carrier that does not know the filters lists everything."""
    text = a_text()
    record = {"sid": SID, "to": text.to, "from": text.sender, "body": text.body, "status": "sent"}
    for changes, kind in (({}, Found), ({"to": VIKTOR}, Absent), ({"from": "+37061000002"}, Absent)):
        listed = Peculiar(200, json.dumps({"messages": [record | changes], "next_page_uri": None}))
        async with listening(listed.answer) as url:
            carrier = bench.make_carrier(url)
            assert isinstance(await carrier.find(text, START), kind), changes
            await carrier.close()


async def test_it_is_found_behind_many_newer_ones(bench: Bench) -> None:
    text = a_text()
    await bench.carrier.send(text)
    await asyncio.gather(*(bench.carrier.send(a_text()) for _ in range(230)))
    assert isinstance(await bench.carrier.find(text, START), Found)
    assert await bench.carrier.find(a_text(), START) == Absent()


async def test_a_carrier_that_cannot_be_asked_says_so(bench: Bench) -> None:
    for peculiar in (Peculiar(500, ""), Peculiar(401, '{"code": 20003}'), Peculiar(200, "<html>"), Peculiar(200, "{}")):
        async with listening(peculiar.answer) as url:
            carrier = bench.make_carrier(url)
            assert isinstance(await carrier.find(a_text(), START), CannotAsk)
            await carrier.close()


async def test_what_is_said_of_another_text_is_no_answer(bench: Bench) -> None:
    """A cache in between, or a bug: what it says of that text must not end this one."""
    other = Peculiar(200, f'{{"sid": "{SID}", "status": "delivered"}}')
    async with listening(other.answer) as url:
        carrier = bench.make_carrier(url)
        assert isinstance(await carrier.look_up(SID, a_text().attempt_id), Found)
        assert isinstance(await carrier.look_up("SM" + "1" * 32, a_text().attempt_id), CannotAsk)
        await carrier.close()


async def test_a_list_without_an_end_is_not_read_for_ever(bench: Bench) -> None:
    page = f'{{"messages": [], "next_page_uri": "/2010-04-01/Accounts/{ACCOUNT}/Messages.json?Page=1"}}'
    endless = Peculiar(200, page)
    async with listening(endless.answer) as url:
        carrier = bench.make_carrier(url)
        assert isinstance(await carrier.find(a_text(), START), CannotAsk)
        await carrier.close()
    assert len(endless.requests) < 30
