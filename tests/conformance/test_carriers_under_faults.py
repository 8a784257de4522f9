"""What every `Carrier` must do whatever goes wrong: each property under each fault of the sandbox.

Who is right about what was taken is the peer's own record, never the adapter. Requests are counted on the wire.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from aiohttp import ClientSession

from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    Carrier,
    ErrorClass,
    Found,
    KeepsRecord,
    MessageStatus,
    OutboundText,
    Rejected,
    SendResult,
    StatusReport,
    Throttled,
    Unknown,
)
from cartwake.carriers.sandbox import Faults, Recipient
from cartwake.carriers.sandbox.__main__ import faults_in
from cartwake.carriers.sandbox.state import Text, attempt_key
from conformance.bench import ONA, SHOP, START, VIKTOR, Bench, a_text, post, tapped
from conformance.faults import (
    ALWAYS,
    CALM,
    FAULTS,
    NOW_AND_THEN,
    SHORT_TIMEOUT_S,
    TIMEOUT_S,
    TOO_SLOW,
    TROUBLES,
    Trouble,
    rates,
)

TEXTS = 12
FINAL = {
    "delivered": MessageStatus.DELIVERED,
    "undelivered": MessageStatus.UNDELIVERED,
    "failed": MessageStatus.FAILED,
    "unsubscribed": MessageStatus.UNSUBSCRIBED,
}
MAGIC = {
    "+15005550001": (21211, ErrorClass.RECIPIENT_PERMANENT),
    "+15005550002": (21612, ErrorClass.RECIPIENT_SOFT),
    "+15005550003": (21408, ErrorClass.ACCOUNT),
    "+15005550004": (21610, ErrorClass.OPTED_OUT),
    "+15005550009": (21614, ErrorClass.RECIPIENT_PERMANENT),
}


@dataclass
class Trial:
    """An adapter, the trouble that its carrier is in, and the wire between them."""

    bench: Bench
    carrier: Carrier
    trouble: Trouble
    posts: list[bytes]  # the address of every POST that went over the wire

    async def send(self, texts: Sequence[OutboundText]) -> list[SendResult]:
        """Hand all of them over at once."""
        return await asyncio.gather(*(self.carrier.send(text) for text in texts))

    def taken(self, text: OutboundText) -> list[Text]:
        """What the carrier's record has of an attempt: by its token, whatever else the text says."""
        return [t for t in self.bench.peer.state.texts.values() if t.key == text.attempt_id.hex and not t.inbound]

    def end_trouble(self) -> None:
        self.bench.go_wrong()

    async def receipts(self) -> list[StatusReport]:
        """What our web was told, verified and read, in order; once the carrier has no more to tell."""
        await self.bench.peer.settled()
        reports = []
        for webhook in self.bench.receiver.received:
            assert self.carrier.verify(webhook.url, webhook.body, webhook.headers)
            reports.append(self.carrier.read_status(webhook.body, webhook.query))
        return [report for report in reports if report is not None]


# One text struck and the next one not, and a wait for the timeout in each test: `make slow`.
@pytest.fixture(
    params=[pytest.param(t, marks=pytest.mark.slow) if t in (TOO_SLOW, *NOW_AND_THEN) else t for t in TROUBLES], ids=str
)
async def trial(request: pytest.FixtureRequest, bench: Bench) -> AsyncIterator[Trial]:
    async with tapped(bench.peer.url) as (url, posts):
        carrier = bench.make_carrier(url, timeout_s=SHORT_TIMEOUT_S if request.param is TOO_SLOW else TIMEOUT_S)
        await switch_faults(bench, request.param.faults)
        yield Trial(bench, carrier, request.param, posts)
        await carrier.close()


async def switch_faults(bench: Bench, faults: dict[str, Any]) -> None:
    """As an operator does who wants to see them: at the control endpoint."""
    async with ClientSession() as client, client.put(f"{bench.peer.url}/sandbox/faults", json=faults) as answer:
        assert answer.status == 200, await answer.text()


def texts(count: int = TEXTS) -> list[OutboundText]:
    """Texts to as many phones, with attempts that the seed strikes alike in every run."""
    return [a_text(to=f"+3706200{number:04}", attempt_id=UUID(int=number + 1)) for number in range(count)]


def test_no_fault_is_forgotten() -> None:
    assert set(ALWAYS) == set(FAULTS) == rates()
    assert all(any(name in setting for setting in trouble.faults) for name, trouble in ALWAYS.items())


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_a_file_and_the_control_endpoint_switch_the_same_faults(
    bench: Bench, trouble: Trouble, tmp_path: Path
) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps(trouble.faults), "utf-8")
    await switch_faults(bench, trouble.faults)
    assert bench.peer.state.faults == faults_in(str(file)) == Faults(**trouble.faults)


async def test_no_answer_quotes_the_number_or_the_text(trial: Trial) -> None:
    handed = texts()
    await trial.send(handed)
    for text, result in zip(handed, await trial.send(handed), strict=True):
        told = repr(result) + repr(await trial.carrier.find(text, START))
        assert text.to not in told and text.body not in told and text.to[1:] not in told


async def test_the_answer_is_of_a_kind_that_this_trouble_explains(trial: Trial) -> None:
    outcomes = {type(result) for result in await trial.send(texts())}
    assert outcomes <= set(trial.trouble.outcomes)
    if trial.trouble.faults.get("seed") and len(trial.trouble.outcomes) == 2:
        assert outcomes == set(trial.trouble.outcomes), "some are struck and some are not"


async def test_what_the_answer_says_of_the_text_is_so(trial: Trial) -> None:
    handed = texts()
    for text, result in zip(handed, await trial.send(handed), strict=True):
        taken = trial.taken(text)
        assert len(taken) <= 1
        if isinstance(result, Accepted):
            assert [each.sid for each in taken] == [result.sid]
        elif isinstance(result, Throttled | Rejected):
            assert taken == []
        if trial.trouble.is_taken is not None:
            assert len(taken) == trial.trouble.is_taken
        for each in taken:
            assert (each.to, each.sender, each.body) == (text.to, text.sender, text.body)


async def test_one_call_is_one_request_whatever_is_answered(trial: Trial) -> None:
    handed = texts()
    results = await trial.send(handed)
    assert len(trial.posts) == len(handed), "an unknown or a throttled text is not posted again by the adapter"
    trial.end_trouble()
    for text, result in zip(handed, results, strict=True):
        if isinstance(result, Unknown):
            await trial.carrier.find(text, START)
    assert len(trial.posts) == len(handed), "asking about it does not send it"
    assert all(len(trial.taken(text)) <= 1 for text in handed)


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


async def test_a_text_that_was_not_taken_can_be_handed_over_again_and_is_taken_once(trial: Trial) -> None:
    handed = texts()
    results = await trial.send(handed)
    trial.end_trouble()
    again = [text for text, result in zip(handed, results, strict=True) if isinstance(result, Throttled)]
    assert all(isinstance(result, Accepted) for result in await trial.send(again))
    for text, result in zip(handed, results, strict=True):
        if isinstance(result, Accepted | Throttled):
            assert len(trial.taken(text)) == 1


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
        assert {report.status for report in mine} <= {MessageStatus.SENT, FINAL[outcome]}, "nothing that was not so"
        if not taken:
            continue
        found = await trial.carrier.look_up(taken[0].sid, text.attempt_id)
        assert isinstance(found, Found)
        assert (found.report.status, found.report.error_code) == (FINAL[outcome], taken[0].error_code)
        told = [report for report in mine if report.status is FINAL[outcome]]
        assert all(report.error_code == taken[0].error_code for report in told)
        if "lost_callback_rate" not in trial.trouble.faults:
            assert told, "a receipt that is not lost comes in the end"


async def test_receipts_come_in_the_way_of_this_trouble(trial: Trial) -> None:
    """The fault really strikes: else the other properties would hold of a carrier in good health."""
    (text,) = texts(1)
    await trial.send([text])
    reports = [report.status for report in await trial.receipts()]
    if trial.trouble.receipts is not None:
        if "late_callback_rate" in trial.trouble.faults:  # each on its own way
            reports.sort(key=list(MessageStatus).index)
        assert reports == list(trial.trouble.receipts)


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


async def test_a_stop_is_respected_and_a_start_lifts_it(trial: Trial) -> None:
    trial.end_trouble()
    assert isinstance(await trial.carrier.send(a_text(to=VIKTOR)), Accepted)
    await post(trial.bench, "/sandbox/replies", {"from": VIKTOR, "body": "STOP"})
    trial.bench.go_wrong(**trial.trouble.faults)
    unwanted = [a_text(to=VIKTOR) for _ in range(6)]
    for text, result in zip(unwanted, await trial.send(unwanted), strict=True):
        assert trial.taken(text) == []
        _refused(trial, result, 21610, ErrorClass.OPTED_OUT)
    trial.end_trouble()
    for text in unwanted:
        assert trial.taken(text) == []
    await post(trial.bench, "/sandbox/replies", {"from": VIKTOR, "to": SHOP, "body": "START"})
    assert isinstance(await trial.carrier.send(a_text(to=VIKTOR)), Accepted)


@pytest.mark.parametrize("number", MAGIC)
async def test_a_magic_number_is_never_texted(trial: Trial, number: str) -> None:
    handed = [a_text(to=number) for _ in range(4)]
    for text, result in zip(handed, await trial.send(handed), strict=True):
        assert trial.taken(text) == []
        _refused(trial, result, *MAGIC[number])
        assert number not in repr(result)


def _refused(trial: Trial, result: SendResult, code: int, error_class: ErrorClass) -> None:
    """The text is refused for its own reason, or for that of the trouble."""
    if isinstance(result, Rejected):
        assert (result.code, result.error_class) == (code, error_class)
    else:
        assert not trial.trouble.refuses and isinstance(result, Throttled | Unknown)
        assert type(result) in trial.trouble.outcomes


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


async def test_the_seed_decides_who_is_struck(trial: Trial) -> None:
    """The same texts come to the same again: what was found once can be looked at again."""
    handed = texts()
    first = [type(result) for result in await trial.send(handed)]
    trial.bench.peer.state.reset()
    trial.bench.go_wrong(**trial.trouble.faults)
    assert [type(result) for result in await trial.send(handed)] == first


async def test_in_good_health_nothing_is_late_lost_or_repeated(bench: Bench) -> None:
    bench.go_wrong(**CALM.faults)
    assert isinstance(await bench.carrier.send(a_text()), Accepted)
    await bench.peer.settled()
    assert len(bench.receiver.received) == 2
