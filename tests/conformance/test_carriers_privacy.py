"""Carriers: nothing personal in logs, and whom an adapter talks to."""

from __future__ import annotations

import logging
from datetime import timedelta
from urllib.parse import urlencode, urlsplit

import pytest

from cartwake.carriers.errors import classify, describe
from cartwake.carriers.open import open_carrier
from cartwake.carriers.protocol import (
    Accepted,
    CannotAsk,
    ErrorClass,
    Found,
    Rejected,
)
from cartwake.carriers.twilio import TwilioCarrier
from cartwake.kit.config import load_settings
from cartwake.kit.errors import BadInput
from conformance.bench import (
    ACCOUNT,
    ONA,
    SHOP,
    SID,
    START,
    TOKEN,
    Bench,
    Peculiar,
    a_text,
    listening,
    until,
)


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
