"""Carriers: what becomes of a text that is handed over, whatever goes wrong meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from cartwake.carriers.errors import CODES, describe
from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    ErrorClass,
    Found,
    Rejected,
    Throttled,
    Unknown,
)
from cartwake.carriers.sandbox import Recipient
from conformance.bench import ONA, SHOP, START, VIKTOR, Bench, a_text
from conformance.trial import Trial, texts

WORDS = "Labas, Ona! 50% nuolaida & dovana + „krepšelis“ https://s.example.com/r/a?b=1#c"


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


async def test_a_text_that_was_not_taken_can_be_handed_over_again_and_is_taken_once(trial: Trial) -> None:
    handed = texts()
    results = await trial.send(handed)
    trial.end_trouble()
    again = [text for text, result in zip(handed, results, strict=True) if isinstance(result, Throttled)]
    assert all(isinstance(result, Accepted) for result in await trial.send(again))
    for text, result in zip(handed, results, strict=True):
        if isinstance(result, Accepted | Throttled):
            assert len(trial.taken(text)) == 1


async def test_the_seed_decides_who_is_struck(trial: Trial) -> None:
    """The same texts come to the same again: what was found once can be looked at again."""
    handed = texts()
    first = [type(result) for result in await trial.send(handed)]
    trial.bench.peer.state.reset()
    trial.bench.go_wrong(**trial.trouble.faults)
    assert [type(result) for result in await trial.send(handed)] == first


async def test_a_text_arrives_as_it_was_written(trial: Trial) -> None:
    if taken := await trial.hand_over(a_text(body=WORDS)):
        assert (taken.to, taken.sender, taken.body, taken.validity_s) == (ONA, SHOP, WORDS, 3600)


async def test_validity_is_capped_at_what_the_carrier_allows(trial: Trial) -> None:
    if taken := await trial.hand_over(a_text(validity_s=100_000)):
        assert taken.validity_s == 36_000


async def test_a_text_whose_time_is_over_is_not_handed_over(trial: Trial) -> None:
    result = await trial.carrier.send(a_text(validity_s=0))
    assert isinstance(result, Rejected) and result.error_class is ErrorClass.EXPIRED
    assert trial.posts == []


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
    trial: Trial, changes: dict[str, str], code: int, error_class: ErrorClass
) -> None:
    handed = [a_text(**changes) for _ in range(4)]
    for text, result in zip(handed, await trial.send(handed), strict=True):
        trial.refused(text, result, code, error_class)
        assert text.to not in repr(result) and text.sender not in repr(result)


async def test_every_known_code_becomes_the_outcome_of_its_class(trial: Trial) -> None:
    handed = dict(zip(sorted(CODES), texts(len(CODES)), strict=True))
    for code, text in handed.items():
        trial.bench.peer.state.recipients[text.to] = Recipient(outcome="rejected", error_code=code)
    for code, result in zip(handed, await trial.send(list(handed.values())), strict=True):
        assert trial.taken(handed[code]) == [], code
        if trial.explains(result):
            continue
        if CODES[code][0] is ErrorClass.THROTTLE:
            assert isinstance(result, Throttled) and result.code == code and result.retry_after_s > 0, code
        elif CODES[code][0] is ErrorClass.UNKNOWN_OUTCOME:
            assert isinstance(result, Unknown), code
        else:
            assert result == Rejected(code, CODES[code][0], describe(code, 400)), code


async def test_a_full_sender_queue_is_a_throttle(trial: Trial) -> None:
    text = a_text(sender="+15005550008")
    result = await trial.carrier.send(text)
    assert trial.taken(text) == []
    if not trial.explains(result):
        assert isinstance(result, Throttled) and result.code == 21611 and result.retry_after_s > 0


async def test_wrong_credentials_are_the_accounts_fault_whatever_else_is_wrong(trial: Trial) -> None:
    stranger = trial.bench.make_carrier(auth_token="wrong")
    assert await stranger.send(a_text()) == Rejected(20003, ErrorClass.ACCOUNT, describe(20003, 401))
    assert trial.bench.peer.state.accepted == 0
    await stranger.close()


# Each of these sets a trouble of its own.


async def test_a_throttled_text_says_when_to_come_back(bench: Bench) -> None:
    bench.go_wrong(throttle_rate=1, retry_after_s=7)
    assert await bench.carrier.send(a_text()) == Throttled(20429, 7.0)


@pytest.mark.parametrize(
    ("error_before_rate", "is_there"), [(0, True), (1, False)], ids=["too slow, taken", "too slow, not taken"]
)
async def test_a_text_that_was_not_answered_in_time_is_found_out_later(
    bench: Bench, error_before_rate: int, is_there: bool
) -> None:
    bench.go_wrong(latency_ms=30_000, error_before_rate=error_before_rate)
    carrier = bench.make_carrier(timeout_s=0.2)
    text = a_text()
    assert isinstance(await carrier.send(text), Unknown)
    bench.go_wrong()
    bench.clock.advance(minutes=30)
    assert isinstance(await carrier.find(text, START), Found if is_there else Absent)
    assert bench.taken(text.body) == is_there
    await carrier.close()


async def test_a_text_that_waited_in_vain_for_a_free_connection_was_not_sent(bench: Bench) -> None:
    bench.go_wrong(latency_ms=30_000)
    carrier = bench.make_carrier(timeout_s=0.3, concurrency=1)
    handed = [a_text(), a_text(to=VIKTOR)]
    results = await asyncio.gather(*(carrier.send(text) for text in handed))
    assert isinstance(results[0], Unknown) and isinstance(results[1], Throttled)
    assert [bench.taken(text.body) for text in handed] == [1, 0]
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
    handed = texts(300)
    results = await asyncio.gather(*(carrier.send(text) for text in handed))
    assert {type(result) for result in results} == {Accepted, Throttled, Unknown}
    bench.go_wrong()
    for text, result in zip(handed, results, strict=True):
        taken = bench.taken(text.body)
        assert taken <= 1
        assert not (isinstance(result, Accepted) and not taken)
        assert not (isinstance(result, Throttled) and taken)
        assert isinstance(await carrier.find(text, START), Found if taken else Absent)
    await carrier.close()
