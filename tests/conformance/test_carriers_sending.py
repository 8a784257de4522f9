"""Carriers: what becomes of a text that is handed over, when the answer is clear and when it is not."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from cartwake.carriers.errors import CODES, describe
from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    CannotAsk,
    ErrorClass,
    Found,
    Rejected,
    SendResult,
    Throttled,
    Unknown,
)
from cartwake.carriers.sandbox import Recipient
from cartwake.carriers.transport import Transport
from conformance.bench import (
    ACCOUNT,
    ONA,
    SHOP,
    START,
    VIKTOR,
    Bench,
    Peculiar,
    a_text,
    listening,
)


async def test_an_accepted_text_is_at_the_carrier_once_and_as_it_was_written(bench: Bench) -> None:
    text = a_text(body="Labas, Ona! 50% nuolaida & dovana + „krepšelis“ https://s.example.com/r/a?b=1#c")
    result = await bench.carrier.send(text)
    assert isinstance(result, Accepted)
    (taken,) = bench.peer.state.texts.values()
    assert (taken.sid, taken.to, taken.sender, taken.body) == (result.sid, ONA, SHOP, text.body)
    assert taken.validity_s == 3600


async def test_validity_is_capped_at_what_the_carrier_allows(bench: Bench) -> None:
    assert isinstance(await bench.carrier.send(a_text(validity_s=100_000)), Accepted)
    assert [text.validity_s for text in bench.peer.state.texts.values()] == [36_000]


async def test_a_text_whose_time_is_over_is_not_handed_over(bench: Bench) -> None:
    result = await bench.carrier.send(a_text(validity_s=0))
    assert isinstance(result, Rejected) and result.error_class is ErrorClass.EXPIRED
    assert bench.peer.state.accepted == 0


@pytest.mark.parametrize(
    ("changes", "code", "error_class"),
    [
        ({"to": "+15005550001"}, 21211, ErrorClass.RECIPIENT_PERMANENT),
        ({"to": "+15005550002"}, 21612, ErrorClass.RECIPIENT_SOFT),
        ({"to": "+15005550003"}, 21408, ErrorClass.ACCOUNT),
        ({"to": "+15005550004"}, 21610, ErrorClass.OPTED_OUT),
        ({"to": "+15005550009"}, 21614, ErrorClass.RECIPIENT_PERMANENT),
        ({"sender": "+15005550001"}, 21212, ErrorClass.ACCOUNT),
        ({"sender": "+15005550007"}, 21606, ErrorClass.ACCOUNT),
        ({"body": "x" * 1601}, 21617, ErrorClass.CONTENT),
        ({"body": ""}, 21602, ErrorClass.CONTENT),
    ],
)
async def test_a_refusal_has_its_code_and_class(
    bench: Bench, changes: dict[str, str], code: int, error_class: ErrorClass
) -> None:
    text = a_text(**changes)
    result = await bench.carrier.send(text)
    assert isinstance(result, Rejected)
    assert (result.code, result.error_class) == (code, error_class)
    assert text.to not in result.reason and text.sender not in result.reason
    assert bench.peer.state.accepted == 0


@pytest.mark.parametrize("code", sorted(CODES))
async def test_every_known_code_becomes_the_outcome_of_its_class(bench: Bench, code: int) -> None:
    bench.peer.state.recipients[ONA] = Recipient(outcome="rejected", error_code=code)
    result = await bench.carrier.send(a_text())
    if CODES[code][0] is ErrorClass.THROTTLE:
        assert isinstance(result, Throttled) and result.code == code and result.retry_after_s > 0
    elif CODES[code][0] is ErrorClass.UNKNOWN_OUTCOME:
        assert isinstance(result, Unknown)
    else:
        assert result == Rejected(code, CODES[code][0], describe(code, 400))


async def test_a_throttled_text_was_not_taken_and_says_when_to_come_back(bench: Bench) -> None:
    bench.go_wrong(throttle_rate=1, retry_after_s=7)
    text = a_text()
    assert await bench.carrier.send(text) == Throttled(20429, 7.0)
    assert await bench.carrier.find(text, START) == Absent()
    bench.go_wrong()
    assert isinstance(await bench.carrier.send(text), Accepted)
    assert bench.taken(text.body) == 1


async def test_a_full_sender_queue_is_a_throttle(bench: Bench) -> None:
    result = await bench.carrier.send(a_text(sender="+15005550008"))
    assert isinstance(result, Throttled) and result.code == 21611 and result.retry_after_s > 0


async def test_retry_after_belongs_to_its_own_call(bench: Bench) -> None:
    """Many at once: each gets the header of its own answer, not of the last one."""

    async def answer(request: web.Request) -> web.Response:
        wanted = dict(parse_qsl((await request.read()).decode()))["Body"]
        await asyncio.sleep(int(wanted) % 7 / 1000)
        return web.json_response({"code": 20429, "message": "slow down"}, status=429, headers={"Retry-After": wanted})

    async with listening(answer) as url:
        carrier = bench.make_carrier(url)
        results = await asyncio.gather(*(carrier.send(a_text(body=str(n))) for n in range(1, 65)))
        await carrier.close()
    assert results == [Throttled(20429, float(n)) for n in range(1, 65)]


@pytest.mark.parametrize(
    ("header", "wait_s"), [("Wed, 21 Oct 2026 07:28:00 GMT", 5.0), ("-3", 5.0), ("9" * 40, 5.0), ("99999999", 3600.0)]
)
async def test_a_strange_retry_after_does_no_harm(bench: Bench, header: str, wait_s: float) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"code": 20429}, status=429, headers={"Retry-After": header})

    async with listening(answer) as url:
        carrier = bench.make_carrier(url)
        assert await carrier.send(a_text()) == Throttled(20429, wait_s)
        await carrier.close()


@pytest.mark.parametrize(
    ("faults", "is_there"),
    [
        ({"error_before_rate": 1}, False),
        ({"error_after_rate": 1}, True),
        ({"drop_after_rate": 1}, True),
        ({"latency_ms": 30_000}, True),
        ({"latency_ms": 30_000, "error_before_rate": 1}, False),
    ],
    ids=["500 before", "500 after", "dropped after", "too slow, taken", "too slow, not taken"],
)
async def test_an_unknown_outcome_is_sent_once_and_found_out_later(
    bench: Bench, faults: dict[str, Any], is_there: bool
) -> None:
    bench.go_wrong(**faults)
    carrier = bench.make_carrier(timeout_s=0.2)
    text = a_text()
    assert isinstance(await carrier.send(text), Unknown)
    bench.go_wrong()
    bench.clock.advance(minutes=30)
    found = await carrier.find(text, START)
    if is_there:
        (taken,) = bench.peer.state.texts.values()
        assert isinstance(found, Found)
        assert (found.report.sid, found.report.attempt_id) == (taken.sid, text.attempt_id)
    else:
        assert found == Absent()
    assert bench.taken(text.body) == is_there
    await carrier.close()


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (201, "<html>", Unknown),
        (201, "", Unknown),
        (201, "[]", Unknown),
        (201, '{"sid": null, "status": "queued"}', Unknown),
        (201, '{"sid": "a b"}', Unknown),
        (0, "", Unknown),
        (408, "", Unknown),
        (500, '{"code": 21211, "message": "no"}', Unknown),
        (502, "<html>", Unknown),
        (503, "", Unknown),
        (503, '{"type": "t", "title": "t", "status": 400, "code": 21211}', Unknown),
        (504, '{"code": "x"}', Unknown),
        (400, "<html>", Rejected),
        (400, '{"type": "t", "title": "t", "status": 400, "code": 21211}', Rejected),
        (401, '{"code": 20003}', Rejected),
        (403, "", Rejected),
        (429, "<html>", Throttled),
    ],
)
async def test_a_peculiar_answer_is_read_safely_and_the_text_is_never_posted_twice(
    bench: Bench, status: int, body: str, outcome: type[SendResult]
) -> None:
    peculiar = Peculiar(status, body)
    async with listening(peculiar.answer) as url:
        carrier = bench.make_carrier(url)
        assert isinstance(await carrier.send(a_text()), outcome)
        await carrier.close()
    assert len(peculiar.requests) == 1


async def test_a_redirect_is_not_followed_with_our_credentials(bench: Bench) -> None:
    peculiar = Peculiar(307, "", {"Location": "/elsewhere"})
    async with listening(peculiar.answer) as url:
        carrier = bench.make_carrier(url)
        assert isinstance(await carrier.send(a_text()), Rejected)
        await carrier.close()
    assert len(peculiar.requests) == 1


async def test_the_base_address_may_have_a_path(bench: Bench) -> None:
    peculiar = Peculiar(500, "")
    async with listening(peculiar.answer) as url:
        carrier = bench.make_carrier(url + "/proxy/twilio/")
        await carrier.send(a_text())
        await carrier.close()
    assert peculiar.requests == [f"/proxy/twilio/2010-04-01/Accounts/{ACCOUNT}/Messages.json"]


async def test_nothing_is_ever_sent_to_another_host() -> None:
    transport = Transport(api_base="http://127.0.0.1:9", timeout_s=1, concurrency=1)
    with pytest.raises(ValueError, match="not the carrier's API"):
        await transport.request("POST", "https://api.twilio.com.example.com/2010-04-01/x")
    await transport.close()


async def test_a_refused_connection_may_be_tried_again(bench: Bench) -> None:
    async with listening(bench.receiver.keep) as url:
        pass  # nobody listens there any more
    carrier = bench.make_carrier(url)
    result = await carrier.send(a_text())
    assert isinstance(result, Throttled) and result.code is None and result.retry_after_s > 0
    assert isinstance(await carrier.find(a_text(), START), CannotAsk)
    await carrier.close()


async def test_a_text_that_waited_in_vain_for_a_free_connection_was_not_sent(bench: Bench) -> None:
    bench.go_wrong(latency_ms=30_000)
    carrier = bench.make_carrier(timeout_s=0.3, concurrency=1)
    texts = [a_text(), a_text(to=VIKTOR)]
    results = await asyncio.gather(*(carrier.send(text) for text in texts))
    assert isinstance(results[0], Unknown) and isinstance(results[1], Throttled)
    assert [bench.taken(text.body) for text in texts] == [1, 0]
    await carrier.close()


@pytest.mark.thorough
async def test_a_storm_of_faults_leaves_no_doubt_and_no_duplicate(bench: Bench) -> None:
    bench.go_wrong(
        seed=7,
        throttle_rate=0.1,
        error_before_rate=0.1,
        error_after_rate=0.1,
        drop_after_rate=0.1,
        latency_rate=0.1,
        latency_ms=3_000,
    )
    carrier = bench.make_carrier(timeout_s=2)
    texts = [a_text(to=f"+37062{n:06d}") for n in range(300)]
    results = await asyncio.gather(*(carrier.send(text) for text in texts))
    assert {type(result) for result in results} == {Accepted, Throttled, Unknown}
    bench.go_wrong()
    for text, result in zip(texts, results, strict=True):
        taken = bench.taken(text.body)
        assert taken <= 1
        assert not (isinstance(result, Accepted) and not taken)
        assert not (isinstance(result, Throttled) and taken)
        assert isinstance(await carrier.find(text, START), Found if taken else Absent)
    await carrier.close()
