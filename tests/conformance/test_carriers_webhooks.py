"""Carriers: receipts and replies, signed and read, whatever goes wrong meanwhile."""

from __future__ import annotations

import pytest

from cartwake.carriers.protocol import Accepted, ErrorClass, Found, MessageStatus
from cartwake.carriers.sandbox import Recipient
from conformance.bench import ONA, SHOP, VIKTOR, Webhook, a_text, post, signature_of
from conformance.trial import Trial, texts

SENT = MessageStatus.SENT
FINAL = {
    "delivered": MessageStatus.DELIVERED,
    "undelivered": MessageStatus.UNDELIVERED,
    "failed": MessageStatus.FAILED,
    "unsubscribed": MessageStatus.UNSUBSCRIBED,
}
# What a carrier in good health tells of each, and with which code.
TOLD = {
    "delivered": ([SENT, MessageStatus.DELIVERED], None),
    "undelivered": ([SENT, MessageStatus.UNDELIVERED], 30003),
    "failed": ([MessageStatus.FAILED], 30008),
    "unsubscribed": ([SENT, MessageStatus.UNSUBSCRIBED], None),
}


@pytest.mark.parametrize("outcome", FINAL)
async def test_receipts_and_questions_together_tell_the_truth(trial: Trial, outcome: str) -> None:
    handed = texts(4)
    for text in handed:
        trial.bench.peer.state.recipients[text.to] = Recipient.model_validate({"outcome": outcome})
    await trial.send(handed)
    reports = await trial.receipts()
    assert {report.attempt_id for report in reports} <= {text.attempt_id for text in handed}
    for text in handed:
        mine = [report for report in reports if report.attempt_id == text.attempt_id]
        taken = trial.taken(text)
        assert {report.sid for report in mine} <= {each.sid for each in taken}
        assert {report.status for report in mine} <= {SENT, FINAL[outcome]}, "nothing that was not so"
        if not taken:
            continue
        found = await trial.carrier.look_up(taken[0].sid, text.attempt_id)
        assert isinstance(found, Found)
        assert (found.report.status, found.report.error_code) == (FINAL[outcome], taken[0].error_code)
        told = [report for report in mine if report.status is FINAL[outcome]]
        assert all(report.error_code == taken[0].error_code for report in told)
        if "lost_callback_rate" not in trial.trouble.faults:
            assert told, "a receipt that is not lost comes in the end"


@pytest.mark.parametrize("outcome", TOLD)
async def test_receipts_come_in_the_way_of_this_trouble(trial: Trial, outcome: str) -> None:
    """The fault really strikes: else the other properties would hold of a carrier in good health."""
    (text,) = texts(1)
    trial.bench.peer.state.recipients[text.to] = Recipient.model_validate({"outcome": outcome})
    await trial.send([text])
    reports = await trial.receipts()
    if trial.trouble.receipts is None:
        return
    statuses, error_code = TOLD[outcome]
    if "late_callback_rate" in trial.trouble.faults:  # each on its own way
        reports.sort(key=lambda report: list(MessageStatus).index(report.status))
    assert [report.status for report in reports] == trial.trouble.receipts(statuses)
    assert {report.error_code for report in reports if report.status is not SENT} <= {error_code}


async def test_a_webhook_that_is_not_exactly_what_was_signed_is_refused(trial: Trial) -> None:
    """A shopper's reply always comes; a receipt with it, unless the trouble keeps it."""
    await trial.send([a_text()])
    await post(trial.bench, "/sandbox/replies", {"from": ONA, "to": SHOP, "body": "delivered?"})
    webhooks = await trial.webhooks()
    assert webhooks
    for webhook in webhooks:
        _refuses_all_but(trial, webhook)


def _refuses_all_but(trial: Trial, webhook: Webhook) -> None:
    verify, url, body, headers = trial.carrier.verify, webhook.url, webhook.body, webhook.headers
    signature = headers["X-Twilio-Signature"]

    def signed(value: str) -> dict[str, str]:
        return {"X-Twilio-Signature": value}

    assert verify(url, body, {"x-twilio-SIGNATURE": signature})
    assert not verify(url, body.replace(b"AC7", b"AC8"), headers)
    assert not verify(url, body[:-1], headers)
    assert not verify(url, body + b"&Extra=1", headers)
    assert not verify(url, body + b"&Extra=", headers), "blank fields are signed too"
    assert not verify(url, b"", headers)
    assert not verify(url, b"\xff\xfe", headers)
    assert not verify(url, b"&".join(b"a=1" for _ in range(1000)), headers)
    assert not verify(url + ("&" if "?" in url else "?") + "attempt=0", body, headers)
    assert not verify(url.partition("?")[0], body, headers) or "?" not in url
    assert not verify(url.replace("http://", "https://"), body, headers)
    assert not verify(url.replace("/hooks/", "/other/"), body, headers)
    assert not verify("not an address", body, headers)
    assert not verify("http://host:port/", body, headers)
    for forged in ("", " ", "garbage", "ą" * 28, signature[:-1], signature + "=", signature.swapcase()):
        assert not verify(url, body, signed(forged)), forged
    assert not verify(url, body, {})
    assert not verify(url, body, signed(signature) | {"x-twilio-signature": "garbage"})
    assert verify(url, body, signed(signature_of(url, body)))
    assert not verify(url, body, signed(signature_of(url, body, "another token")))


async def test_a_shoppers_reply_arrives_signed_and_word_for_word(trial: Trial) -> None:
    await trial.send([a_text()])
    words = "Ačiū, bet ne! 👋 1+1=2 & more"
    reply = await post(trial.bench, "/sandbox/replies", {"from": ONA, "to": SHOP, "body": words})
    assert reply["webhook"]["http_status"] == 204
    (webhook,) = [w for w in await trial.webhooks() if w.url.endswith("/inbound")]
    assert trial.carrier.verify(webhook.url, webhook.body, webhook.headers)
    inbound = trial.carrier.read_inbound(webhook.body)
    assert (inbound.sid, inbound.sender, inbound.to, inbound.body) == (reply["sid"], ONA, SHOP, words)
    assert inbound.opt_out_type is None


async def test_a_stop_blocks_that_sender_until_start(trial: Trial) -> None:
    trial.end_trouble()
    assert isinstance(await trial.carrier.send(a_text(to=VIKTOR)), Accepted)
    await post(trial.bench, "/sandbox/replies", {"from": VIKTOR, "body": " stop "})
    trial.bench.go_wrong(**trial.trouble.faults)
    unwanted = [a_text(to=VIKTOR) for _ in range(6)]
    for text, result in zip(unwanted, await trial.send(unwanted), strict=True):
        trial.refused(text, result, 21610, ErrorClass.OPTED_OUT)
    await trial.hand_over(a_text(to=ONA))
    await trial.hand_over(a_text(to=VIKTOR, sender="+37061000002"))
    trial.end_trouble()
    assert all(trial.taken(text) == [] for text in unwanted)
    await post(trial.bench, "/sandbox/replies", {"from": VIKTOR, "to": SHOP, "body": "START"})
    assert isinstance(await trial.carrier.send(a_text(to=VIKTOR)), Accepted)
