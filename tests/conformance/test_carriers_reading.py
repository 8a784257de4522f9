"""Carriers: what is read from a webhook; no carrier is asked."""

from __future__ import annotations

import uuid
from urllib.parse import urlencode

import pytest

from cartwake.carriers.protocol import Carrier, MessageStatus
from cartwake.kit.errors import BadInput
from conformance.bench import ONA, SHOP, SID, Bench, signature_of


@pytest.fixture
def carrier(bench: Bench) -> Carrier:
    """Asked to read and to verify; it has nobody to talk to. Of this file alone: the tests' web has its own."""
    return bench.carrier


async def test_a_signature_holds_behind_a_proxy_with_and_without_the_port(carrier: Carrier) -> None:
    body = b"MessageSid=SM1&Body="
    for signed_url in ("https://sms.example.com/hooks?attempt=1", "https://sms.example.com:443/hooks?attempt=1"):
        headers = {"X-Twilio-Signature": signature_of(signed_url, body)}
        assert carrier.verify("https://sms.example.com/hooks?attempt=1", body, headers)


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
async def test_statuses_are_translated(carrier: Carrier, words: list[str], status: MessageStatus | None) -> None:
    for word in words:
        report = carrier.read_status(urlencode({"MessageSid": SID, "MessageStatus": word}).encode(), {})
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
    carrier: Carrier, attempt: str, code: str, read: tuple[uuid.UUID | None, int | None]
) -> None:
    body = urlencode({"MessageSid": SID, "MessageStatus": "failed", "ErrorCode": code, "New": "field"}).encode()
    report = carrier.read_status(body, {"attempt": attempt})
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
async def test_a_receipt_that_cannot_be_read_is_bad_input(carrier: Carrier, body: bytes) -> None:
    with pytest.raises(BadInput):
        carrier.read_status(body, {})


async def test_a_repeated_field_with_the_same_value_is_read(carrier: Carrier) -> None:
    body = f"MessageSid={SID}&MessageSid={SID}&MessageStatus=sent".encode()
    report = carrier.read_status(body, {})
    assert report is not None and report.sid == SID


async def test_an_inbound_text_may_be_classified_or_empty(carrier: Carrier) -> None:
    form = {"MessageSid": SID, "From": ONA, "To": SHOP, "Body": "Stop", "OptOutType": "stop"}
    assert carrier.read_inbound(urlencode(form).encode()).opt_out_type == "STOP"
    form = {"MessageSid": SID, "From": ONA, "To": SHOP, "Body": ""}
    assert carrier.read_inbound(urlencode(form).encode()).body == ""
    for missing in ("MessageSid", "From", "To"):
        with pytest.raises(BadInput):
            carrier.read_inbound(urlencode({k: v for k, v in form.items() if k != missing}).encode())
