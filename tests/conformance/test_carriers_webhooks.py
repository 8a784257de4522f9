"""Carriers: receipts and replies, signed and read."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from cartwake.carriers.protocol import (
    Accepted,
    ErrorClass,
    MessageStatus,
    Rejected,
)
from cartwake.carriers.sandbox import Recipient
from cartwake.kit.errors import BadInput
from conformance.bench import (
    ONA,
    SHOP,
    SID,
    TOKEN,
    VIKTOR,
    Bench,
    a_text,
    post,
)


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
