"""Carriers: nothing personal in logs, and whom an adapter talks to, whatever goes wrong meanwhile."""

from __future__ import annotations

import logging
from dataclasses import replace
from urllib.parse import urlencode, urlsplit

import pytest

from cartwake.carriers.open import open_carrier
from cartwake.kit.config import load_settings
from cartwake.kit.errors import BadInput
from conformance.bench import ACCOUNT, ONA, SHOP, SID, START, TOKEN, Peculiar, a_text, listening
from conformance.trial import Trial


async def test_no_phone_number_and_no_body_in_logs_reprs_or_errors(
    trial: Trial, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "a secret offer"
    bench, carrier = trial.bench, trial.carrier
    seen: list[object] = [carrier]
    echo = Peculiar(500, f"{ONA} {SHOP} {secret}")
    for status in (200, 201, 400, 404, 500):
        echo.status = status
        async with listening(echo.answer) as url:
            other = bench.make_carrier(url)
            seen += [await other.send(a_text(body=secret)), await other.find(a_text(body=secret), START)]
            await other.close()
    text = a_text(body=secret)
    seen += [text, await carrier.send(text), await carrier.find(text, START)]
    seen += [await carrier.send(a_text(to=to, body=secret)) for to in ("+15005550001", "+3706", "+37061234567x")]
    await bench.peer.settled()
    inbound = urlencode({"MessageSid": SID, "From": ONA, "To": SHOP, "Body": secret}).encode()
    seen.append(carrier.read_inbound(inbound))
    for body in (inbound + b"&From=%2B37061234569", inbound.replace(b"MessageSid", b"Sid")):
        with pytest.raises(BadInput) as refused:
            carrier.read_inbound(body)
        seen += [refused.value, refused.value.detail]
    written = "".join(capfd.readouterr()) + caplog.text + "".join(f"{thing!r} {thing!s}" for thing in seen)
    for word in (ONA, ONA[1:], SHOP[1:], "15005550001", secret, TOKEN):
        assert word not in written, word


async def test_the_settings_open_a_carrier_that_names_our_address(trial: Trial) -> None:
    settings = load_settings(
        twilio_api_base=trial.bench.peer.url,
        twilio_account_sid=ACCOUNT,
        twilio_auth_token=TOKEN,
        twilio_timeout_s=trial.trouble.timeout_s,
        public_url=trial.bench.receiver.url,
    )
    carrier = open_carrier(settings)
    text = a_text()
    if taken := await replace(trial, carrier=carrier).hand_over(text):
        where = urlsplit(taken.status_callback or "")
        assert (where.path, where.query) == ("/hooks/twilio/status", f"attempt={text.attempt_id.hex}")
    await carrier.close()


async def test_the_environment_cannot_change_the_carriers_host(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    carrier = trial.bench.make_carrier(timeout_s=trial.trouble.timeout_s)
    await replace(trial, carrier=carrier).hand_over(a_text())
    await carrier.close()
