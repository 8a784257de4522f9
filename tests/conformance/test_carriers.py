"""What every `Carrier` must do, over real HTTP: one suite for all adapters.

An adapter is tested against a peer that behaves like its carrier and lets a test decide what goes
wrong; `Bench` is what the suite needs of the two. So far there is one: Twilio on the sandbox.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from aiohttp import ClientSession, web

from cartwake.carriers.errors import CODES, classify, describe
from cartwake.carriers.open import open_carrier
from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    CannotAsk,
    Carrier,
    ErrorClass,
    Found,
    MessageStatus,
    OutboundText,
    Rejected,
    SendResult,
    Throttled,
    Unknown,
)
from cartwake.carriers.sandbox import Faults, Options, Recipient, Sandbox, running_sandbox
from cartwake.carriers.transport import Transport
from cartwake.carriers.twilio import TwilioCarrier
from cartwake.kit.clock import ManualClock
from cartwake.kit.config import load_settings
from cartwake.kit.errors import BadInput

ACCOUNT, TOKEN = "AC" + "7" * 32, "the-token-of-the-tests"

# Ona leaves carts in Vilnius; Viktor answers STOP to everything; the shop texts from a Lithuanian number.
ONA, VIKTOR, SHOP = "+37061234567", "+37061234568", "+37061000001"

START = datetime(2026, 11, 24, 8, 15, 30, tzinfo=UTC)


@dataclass
class Webhook:
    """One request that our web received."""

    url: str
    body: bytes
    headers: dict[str, str]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query))


@dataclass
class Receiver:
    """Our web, as small as can be: it keeps what the carrier posts."""

    url: str = ""
    received: list[Webhook] = field(default_factory=list)

    async def keep(self, request: web.Request) -> web.Response:
        url = str(request.url)
        self.received.append(Webhook(url, await request.read(), dict(request.headers)))
        return web.Response(status=204)


@dataclass
class Bench:
    """A carrier, its peer, and our web."""

    carrier: Carrier
    peer: Sandbox
    receiver: Receiver
    clock: ManualClock
    make_carrier: Callable[..., Carrier]

    def go_wrong(self, **faults: Any) -> None:
        self.peer.state.faults = Faults(**faults)

    def taken(self, body: str) -> int:
        """How many texts with that body the peer took: what shoppers would get."""
        return sum(text.body == body for text in self.peer.state.texts.values())


@contextlib.asynccontextmanager
async def listening(handler: Any) -> AsyncIterator[str]:
    """A server on a free loopback port that answers everything with `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def twilio_on_sandbox() -> AsyncIterator[Bench]:
    receiver, clock = Receiver(), ManualClock(START)
    async with listening(receiver.keep) as our_web:
        receiver.url = our_web
        options = Options(
            account_sid=ACCOUNT,
            auth_token=TOKEN,
            inbound_url=our_web + "/hooks/twilio/inbound",
            sent_after_ms=0,
            delivered_after_ms=0,
        )
        async with running_sandbox(options, clock) as sandbox:

            def make_carrier(api_base: str = sandbox.url, timeout_s: float = 5, concurrency: int = 64) -> Carrier:
                return TwilioCarrier(
                    api_base=api_base,
                    account_sid=ACCOUNT,
                    auth_token=TOKEN,
                    callback_url=our_web + "/hooks/twilio/status",
                    timeout_s=timeout_s,
                    concurrency=concurrency,
                )

            carrier = make_carrier()
            yield Bench(carrier, sandbox, receiver, clock, make_carrier)
            await carrier.close()


@pytest.fixture(params=[twilio_on_sandbox], ids=["twilio"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with request.param() as made:
        yield made


def a_text(**changes: Any) -> OutboundText:
    text = OutboundText(
        attempt_id=uuid.uuid4(),
        sender=SHOP,
        to=ONA,
        body=f"Your cart waits: https://s.example.com/r/{uuid.uuid4().hex[:8]}",
        validity_s=3600,
    )
    return replace(text, **changes)


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; fail after a while."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# Sending


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


# Unknown outcomes: never repeated, and found out afterwards


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


class Peculiar:
    """A carrier that answers every request in one peculiar way, and counts them."""

    def __init__(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.body, self.headers = status, body, headers or {}
        self.requests: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        await request.read()
        if self.status == 0:  # hang up in the middle of an answer
            assert request.transport is not None
            request.transport.write(b'HTTP/1.1 201 Created\r\nContent-Length: 900\r\n\r\n{"sid": "SM')
            request.transport.close()
        return web.Response(status=self.status or 500, text=self.body, headers=self.headers)


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


# Finding


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


async def test_a_list_without_an_end_is_not_read_for_ever(bench: Bench) -> None:
    page = f'{{"messages": [], "next_page_uri": "/2010-04-01/Accounts/{ACCOUNT}/Messages.json?Page=1"}}'
    endless = Peculiar(200, page)
    async with listening(endless.answer) as url:
        carrier = bench.make_carrier(url)
        assert isinstance(await carrier.find(a_text(), START), CannotAsk)
        await carrier.close()
    assert len(endless.requests) < 30


# Receipts and replies


@pytest.mark.parametrize(
    ("outcome", "statuses", "error_code"),
    [
        ("delivered", [MessageStatus.SENT, MessageStatus.DELIVERED], None),
        ("undelivered", [MessageStatus.SENT, MessageStatus.UNDELIVERED], 30003),
        ("unsubscribed", [MessageStatus.SENT, MessageStatus.UNSUBSCRIBED], None),
        ("failed", [MessageStatus.FAILED], 30008),
    ],
)
async def test_receipts_are_signed_and_lead_back_to_their_attempt(
    bench: Bench, outcome: Any, statuses: list[MessageStatus], error_code: int | None
) -> None:
    bench.peer.state.recipients[ONA] = Recipient(outcome=outcome)
    text = a_text()
    result = await bench.carrier.send(text)
    await bench.peer.settled()
    reports = []
    for webhook in bench.receiver.received:
        assert bench.carrier.verify(webhook.url, webhook.body, webhook.headers)
        reports.append(bench.carrier.read_status(webhook.body, webhook.query))
    assert isinstance(result, Accepted)
    assert [report.status for report in reports if report] == statuses
    assert {(report.sid, report.attempt_id) for report in reports if report} == {(result.sid, text.attempt_id)}
    assert reports[-1] is not None and reports[-1].error_code == error_code


async def test_a_webhook_that_is_not_exactly_what_was_signed_is_refused(bench: Bench) -> None:
    await bench.carrier.send(a_text())
    await bench.peer.settled()
    webhook = bench.receiver.received[-1]
    verify, url, body, headers = bench.carrier.verify, webhook.url, webhook.body, webhook.headers
    signature = headers["X-Twilio-Signature"]

    def signed(value: str) -> dict[str, str]:
        return {"X-Twilio-Signature": value}

    assert verify(url, body, {"x-twilio-SIGNATURE": signature})
    assert not verify(url, body.replace(b"delivered", b"undelivered"), headers)
    assert not verify(url, body + b"&Extra=1", headers)
    assert not verify(url, body + b"&Extra=", headers), "blank fields are signed too"
    assert not verify(url, b"", headers)
    assert not verify(url, b"\xff\xfe", headers)
    assert not verify(url, b"&".join(b"a=1" for _ in range(1000)), headers)
    assert not verify(url.replace("attempt=", "attempt=0"), body, headers)
    assert not verify(url.replace("http://", "https://"), body, headers)
    assert not verify(url.replace("/status", "/inbound"), body, headers)
    assert not verify("not an address", body, headers)
    assert not verify("http://host:port/", body, headers)
    for forged in ("", " ", "garbage", "ą" * 28, signature[:-1], signature + "=", signature.swapcase()):
        assert not verify(url, body, signed(forged)), forged
    assert not verify(url, body, {})
    assert not verify(url, body, signed(signature) | {"x-twilio-signature": "garbage"})
    other = hmac.new(b"another token", url.encode() + b"".join(_signed(body)), hashlib.sha1).digest()
    assert not verify(url, body, signed(base64.b64encode(other).decode()))


def _signed(body: bytes) -> list[bytes]:
    return [(name + value).encode() for name, value in sorted(parse_qsl(body.decode(), keep_blank_values=True))]


async def test_a_signature_holds_behind_a_proxy_with_and_without_the_port(bench: Bench) -> None:
    body = b"MessageSid=SM1&Body="
    for signed_url in ("https://sms.example.com/hooks?attempt=1", "https://sms.example.com:443/hooks?attempt=1"):
        digest = hmac.new(TOKEN.encode(), signed_url.encode() + b"".join(_signed(body)), hashlib.sha1).digest()
        headers = {"X-Twilio-Signature": base64.b64encode(digest).decode()}
        assert bench.carrier.verify("https://sms.example.com/hooks?attempt=1", body, headers)


SID = "SM" + "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["queued", "accepted", "scheduled", "sending"], MessageStatus.ACCEPTED),
        (["sent"], MessageStatus.SENT),
        (["delivered", "read"], MessageStatus.DELIVERED),
        (["undelivered"], MessageStatus.UNDELIVERED),
        (["failed", "canceled"], MessageStatus.FAILED),
        (["unsubscribed"], MessageStatus.UNSUBSCRIBED),
        (["receiving", "received", "partially_delivered", "teleported"], None),
    ],
)
async def test_statuses_are_translated(bench: Bench, words: list[str], status: MessageStatus | None) -> None:
    for word in words:
        report = bench.carrier.read_status(urlencode({"MessageSid": SID, "MessageStatus": word}).encode(), {})
        assert (report.status if report else None) is status, word


@pytest.mark.parametrize(
    ("attempt", "code", "read"),
    [
        ("0" * 31 + "a", "30003", (uuid.UUID(int=10), 30003)),
        ("", "", (None, None)),
        ("not-an-id", "many", (None, None)),
        ("0" * 32 + "\n", "30003\n", (None, None)),
        ("0" * 31 + "A", "-1", (None, None)),
    ],
)
async def test_attempt_and_error_code_are_read_or_left_out(
    bench: Bench, attempt: str, code: str, read: tuple[uuid.UUID | None, int | None]
) -> None:
    body = urlencode({"MessageSid": SID, "MessageStatus": "failed", "ErrorCode": code, "New": "field"}).encode()
    report = bench.carrier.read_status(body, {"attempt": attempt})
    assert report is not None and (report.attempt_id, report.error_code) == read


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"MessageStatus=sent",
        b"MessageSid=&MessageStatus=sent",
        b"MessageSid=SM1%0A&MessageStatus=sent",
        b"MessageSid=" + b"S" * 65 + b"&MessageStatus=sent",
        b"MessageSid=SM1",
        b"MessageSid=SM1&MessageStatus=sent&MessageStatus=delivered",
        b"MessageSid=SM1&MessageStatus=sent&X=\xff",
        b"&".join([b"MessageSid=SM1", b"MessageStatus=sent", *[b"a=1"] * 300]),
    ],
)
async def test_a_receipt_that_cannot_be_read_is_bad_input(bench: Bench, body: bytes) -> None:
    with pytest.raises(BadInput):
        bench.carrier.read_status(body, {})


async def test_a_repeated_field_with_the_same_value_is_read(bench: Bench) -> None:
    body = f"MessageSid={SID}&MessageSid={SID}&MessageStatus=sent".encode()
    report = bench.carrier.read_status(body, {})
    assert report is not None and report.sid == SID


async def test_a_shoppers_reply_arrives_signed_and_word_for_word(bench: Bench) -> None:
    await bench.carrier.send(a_text())
    words = "Ačiū, bet ne! 👋 1+1=2 & more"
    reply = await post(bench, "/sandbox/replies", {"from": ONA, "body": words})
    assert reply["to"] == SHOP and reply["webhook"]["http_status"] == 204
    (webhook,) = [w for w in bench.receiver.received if w.url.endswith("/inbound")]
    assert bench.carrier.verify(webhook.url, webhook.body, webhook.headers)
    inbound = bench.carrier.read_inbound(webhook.body)
    assert (inbound.sid, inbound.sender, inbound.to, inbound.body) == (reply["sid"], ONA, SHOP, words)
    assert inbound.opt_out_type is None


async def test_an_inbound_text_may_be_classified_or_empty(bench: Bench) -> None:
    form = {"MessageSid": SID, "From": ONA, "To": SHOP, "Body": "Stop", "OptOutType": "stop"}
    assert bench.carrier.read_inbound(urlencode(form).encode()).opt_out_type == "STOP"
    form = {"MessageSid": SID, "From": ONA, "To": SHOP, "Body": ""}
    assert bench.carrier.read_inbound(urlencode(form).encode()).body == ""
    for missing in ("MessageSid", "From", "To"):
        with pytest.raises(BadInput):
            bench.carrier.read_inbound(urlencode({k: v for k, v in form.items() if k != missing}).encode())


async def test_a_stop_blocks_that_sender_until_start(bench: Bench) -> None:
    to_viktor = a_text(to=VIKTOR)
    assert isinstance(await bench.carrier.send(to_viktor), Accepted)
    await post(bench, "/sandbox/replies", {"from": VIKTOR, "body": " stop "})
    refused = await bench.carrier.send(a_text(to=VIKTOR))
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.error_class) == (21610, ErrorClass.OPTED_OUT)
    assert isinstance(await bench.carrier.send(a_text(to=ONA)), Accepted)
    assert isinstance(await bench.carrier.send(a_text(to=VIKTOR, sender="+37061000002")), Accepted)
    await post(bench, "/sandbox/replies", {"from": VIKTOR, "to": SHOP, "body": "START"})
    assert isinstance(await bench.carrier.send(a_text(to=VIKTOR)), Accepted)


async def post(bench: Bench, path: str, document: dict[str, str]) -> Any:
    async with ClientSession() as client, client.post(bench.peer.url + path, json=document) as answer:
        assert answer.status == 201
        return await answer.json()


# Privacy, and the rest


async def test_no_phone_number_and_no_body_in_logs_reprs_or_errors(
    bench: Bench, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "a secret offer"
    seen: list[object] = [bench.carrier]
    echo = Peculiar(500, f"{ONA} {SHOP} {secret}")
    for status in (200, 201, 400, 404, 500):
        echo.status = status
        async with listening(echo.answer) as url:
            carrier = bench.make_carrier(url)
            seen += [await carrier.send(a_text(body=secret)), await carrier.find(a_text(body=secret), START)]
            await carrier.close()
    text = a_text(body=secret)
    seen += [text, await bench.carrier.send(text), await bench.carrier.find(text, START)]
    seen += [await bench.carrier.send(a_text(to=to, body=secret)) for to in ("+15005550001", "+3706", "+37061234567x")]
    await bench.peer.settled()
    inbound = urlencode({"MessageSid": SID, "From": ONA, "To": SHOP, "Body": secret}).encode()
    seen.append(bench.carrier.read_inbound(inbound))
    for body in (inbound + b"&From=%2B37061234569", inbound.replace(b"MessageSid", b"Sid")):
        with pytest.raises(BadInput) as refused:
            bench.carrier.read_inbound(body)
        seen += [refused.value, refused.value.detail]
    written = "".join(capfd.readouterr()) + caplog.text + "".join(f"{thing!r} {thing!s}" for thing in seen)
    for word in (ONA, ONA[1:], SHOP[1:], "15005550001", secret, TOKEN):
        assert word not in written, word


async def test_the_settings_open_a_carrier(bench: Bench) -> None:
    settings = load_settings(
        twilio_api_base=bench.peer.url,
        twilio_account_sid=ACCOUNT,
        twilio_auth_token=TOKEN,
        public_url=bench.receiver.url,
    )
    carrier = open_carrier(settings)
    text = a_text()
    assert isinstance(await carrier.send(text), Accepted)
    await until(lambda: bool(bench.receiver.received))
    assert urlsplit(bench.receiver.received[0].url).path == "/hooks/twilio/status"
    assert bench.receiver.received[0].query == {"attempt": text.attempt_id.hex}
    await carrier.close()


async def test_wrong_credentials_are_the_accounts_fault(bench: Bench) -> None:
    carrier = TwilioCarrier(
        api_base=bench.peer.url,
        account_sid=ACCOUNT,
        auth_token="wrong",
        callback_url="http://127.0.0.1:9/",
        timeout_s=5,
        concurrency=1,
    )
    assert await carrier.send(a_text()) == Rejected(20003, ErrorClass.ACCOUNT, describe(20003, 401))
    assert isinstance(await carrier.find(a_text(), START), CannotAsk)
    await carrier.close()


async def test_the_environment_cannot_change_the_carriers_host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    carrier = bench.make_carrier()
    assert isinstance(await carrier.send(a_text()), Accepted)
    await carrier.close()


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


async def test_the_validity_of_a_found_text_does_not_depend_on_small_clock_differences(bench: Bench) -> None:
    """The carrier's dates have whole seconds, and its clock may be a little behind ours."""
    text = a_text()
    await bench.carrier.send(text)
    assert isinstance(await bench.carrier.find(text, START + timedelta(seconds=30)), Found)
