"""Carriers: strange answers, each from a peer that a test puts in the carrier's place."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from cartwake.carriers.errors import classify
from cartwake.carriers.protocol import (
    Absent,
    CannotAsk,
    ErrorClass,
    Found,
    Rejected,
    SendResult,
    Throttled,
    Unknown,
)
from cartwake.carriers.transport import Transport
from conformance.bench import ACCOUNT, SID, START, VIKTOR, MakeCarrier, Peculiar, a_text, listening


async def test_retry_after_belongs_to_its_own_call(make_carrier: MakeCarrier) -> None:
    """Many at once: each gets the header of its own answer, not of the last one."""

    async def answer(request: web.Request) -> web.Response:
        wanted = dict(parse_qsl((await request.read()).decode()))["Body"]
        await asyncio.sleep(int(wanted) % 7 / 1000)
        return web.json_response({"code": 20429, "message": "slow down"}, status=429, headers={"Retry-After": wanted})

    async with listening(answer) as url:
        carrier = make_carrier(url)
        results = await asyncio.gather(*(carrier.send(a_text(body=str(n))) for n in range(1, 65)))
        await carrier.close()
    assert results == [Throttled(20429, float(n)) for n in range(1, 65)]


@pytest.mark.parametrize(
    ("header", "wait_s"), [("Wed, 21 Oct 2026 07:28:00 GMT", 5.0), ("-3", 5.0), ("9" * 40, 5.0), ("99999999", 3600.0)]
)
async def test_a_strange_retry_after_does_no_harm(make_carrier: MakeCarrier, header: str, wait_s: float) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"code": 20429}, status=429, headers={"Retry-After": header})

    async with listening(answer) as url:
        carrier = make_carrier(url)
        assert await carrier.send(a_text()) == Throttled(20429, wait_s)
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
    make_carrier: MakeCarrier, status: int, body: str, outcome: type[SendResult]
) -> None:
    peculiar = Peculiar(status, body)
    async with listening(peculiar.answer) as url:
        carrier = make_carrier(url)
        assert isinstance(await carrier.send(a_text()), outcome)
        await carrier.close()
    assert len(peculiar.requests) == 1


async def test_a_redirect_is_not_followed_with_our_credentials(make_carrier: MakeCarrier) -> None:
    peculiar = Peculiar(307, "", {"Location": "/elsewhere"})
    async with listening(peculiar.answer) as url:
        carrier = make_carrier(url)
        assert isinstance(await carrier.send(a_text()), Rejected)
        await carrier.close()
    assert len(peculiar.requests) == 1


async def test_the_base_address_may_have_a_path(make_carrier: MakeCarrier) -> None:
    peculiar = Peculiar(500, "")
    async with listening(peculiar.answer) as url:
        carrier = make_carrier(url + "/proxy/twilio/")
        await carrier.send(a_text())
        await carrier.close()
    assert peculiar.requests == [f"/proxy/twilio/2010-04-01/Accounts/{ACCOUNT}/Messages.json"]


async def test_nothing_is_ever_sent_to_another_host() -> None:
    transport = Transport(api_base="http://127.0.0.1:9", timeout_s=1, concurrency=1)
    with pytest.raises(ValueError, match="not the carrier's API"):
        await transport.request("POST", "https://api.twilio.com.example.com/2010-04-01/x")
    await transport.close()


async def test_a_refused_connection_may_be_tried_again(make_carrier: MakeCarrier) -> None:
    async with listening(Peculiar(500, "").answer) as url:
        pass  # nobody listens there any more
    carrier = make_carrier(url)
    result = await carrier.send(a_text())
    assert isinstance(result, Throttled) and result.code is None and result.retry_after_s > 0
    assert isinstance(await carrier.find(a_text(), START), CannotAsk)
    await carrier.close()


async def test_texts_between_other_numbers_in_the_answer_are_not_mistaken_for_it(make_carrier: MakeCarrier) -> None:
    """A carrier that does not know the filters lists everything."""
    text = a_text()
    record = {"sid": SID, "to": text.to, "from": text.sender, "body": text.body, "status": "sent"}
    for changes, kind in (({}, Found), ({"to": VIKTOR}, Absent), ({"from": "+37061000002"}, Absent)):
        listed = Peculiar(200, json.dumps({"messages": [record | changes], "next_page_uri": None}))
        async with listening(listed.answer) as url:
            carrier = make_carrier(url)
            assert isinstance(await carrier.find(text, START), kind), changes
            await carrier.close()


async def test_a_carrier_that_cannot_be_asked_says_so(make_carrier: MakeCarrier) -> None:
    for peculiar in (Peculiar(500, ""), Peculiar(401, '{"code": 20003}'), Peculiar(200, "<html>"), Peculiar(200, "{}")):
        async with listening(peculiar.answer) as url:
            carrier = make_carrier(url)
            assert isinstance(await carrier.find(a_text(), START), CannotAsk)
            await carrier.close()


async def test_what_is_said_of_another_text_is_no_answer(make_carrier: MakeCarrier) -> None:
    """A cache in between, or a bug: what it says of that text must not end this one."""
    other = Peculiar(200, f'{{"sid": "{SID}", "status": "delivered"}}')
    async with listening(other.answer) as url:
        carrier = make_carrier(url)
        assert isinstance(await carrier.look_up(SID, a_text().attempt_id), Found)
        assert isinstance(await carrier.look_up("SM" + "1" * 32, a_text().attempt_id), CannotAsk)
        await carrier.close()


async def test_a_list_without_an_end_is_not_read_for_ever(make_carrier: MakeCarrier) -> None:
    page = f'{{"messages": [], "next_page_uri": "/2010-04-01/Accounts/{ACCOUNT}/Messages.json?Page=1"}}'
    endless = Peculiar(200, page)
    async with listening(endless.answer) as url:
        carrier = make_carrier(url)
        assert isinstance(await carrier.find(a_text(), START), CannotAsk)
        await carrier.close()
    assert len(endless.requests) < 30


@pytest.mark.parametrize(
    ("code", "http_status", "error_class"),
    [
        (None, 400, ErrorClass.ACCOUNT),
        (29999, 400, ErrorClass.ACCOUNT),
        (29999, 429, ErrorClass.THROTTLE),
        (29999, 503, ErrorClass.UNKNOWN_OUTCOME),
        (21211, 500, ErrorClass.UNKNOWN_OUTCOME),
        (None, 408, ErrorClass.UNKNOWN_OUTCOME),
        (29999, 200, ErrorClass.RECIPIENT_SOFT),
        (30036, 200, ErrorClass.EXPIRED),
        (30007, 200, ErrorClass.CONTENT),
    ],
)
def test_unknown_codes_have_a_safe_class(code: int | None, http_status: int, error_class: ErrorClass) -> None:
    assert classify(code, http_status) is error_class
