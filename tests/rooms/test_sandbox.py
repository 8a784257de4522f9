"""The sandbox behaves like the carrier that it stands for, and goes wrong as it is told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import ClientSession, web

from cartwake.carriers.sandbox import Faults, Options, Recipient, Sandbox, running_sandbox
from cartwake.carriers.sandbox.callbacks import retry_rule, sign
from cartwake.carriers.sandbox.delivery import Step, plan
from cartwake.carriers.sandbox.encoding import segments
from cartwake.carriers.sandbox.state import State
from cartwake.kit.clock import ManualClock, VirtualClock

ACCOUNT, TOKEN = "AC" + "7" * 32, "the-token-of-the-tests"
API = f"/2010-04-01/Accounts/{ACCOUNT}"
START = datetime(2026, 11, 24, 8, 15, 30, tzinfo=UTC)


def basic(account: str, token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{account}:{token}".encode()).decode()}


# Ona is texted; Viktor says STOP; the shop texts from a Lithuanian number.
ONA, VIKTOR, SHOP = "+37061234567", "+37061234568", "+37061000001"


@dataclass
class Shore:
    """A sandbox, a client with its credentials, and our web, which answers with `statuses` in turn, then 204."""

    sandbox: Sandbox
    client: ClientSession
    clock: ManualClock
    our_web: str = ""
    statuses: list[int] = field(default_factory=list)
    received: list[dict[str, str]] = field(default_factory=list)

    async def hear(self, request: web.Request) -> web.Response:
        form = dict(parse_qsl((await request.read()).decode(), keep_blank_values=True))
        self.received.append({**form, "path": request.path, "attempt": request.query.get("attempt", "")})
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def call(self, method: str, path: str, expect: int, **kwargs: Any) -> Any:
        async with self.client.request(method, self.sandbox.url + path, **kwargs) as answer:
            body = await answer.read()
            assert answer.status == expect, body
            return await answer.json() if body else None

    async def send(self, expect: int = 201, /, **changes: str | None) -> Any:
        form = {
            "To": ONA,
            "From": SHOP,
            "Body": "Your cart waits",
            "StatusCallback": f"{self.our_web}/status?attempt={uuid.uuid4().hex}",
            **changes,
        }
        given = {name: value for name, value in form.items() if value is not None}
        return await self.call("POST", f"{API}/Messages.json", expect, data=given)

    def go_wrong(self, **faults: Any) -> None:
        self.sandbox.state.faults = Faults(**faults)


@contextlib.asynccontextmanager
async def shore_with(**options: Any) -> AsyncIterator[Shore]:
    clock = ManualClock(START)
    values: dict[str, Any] = {"account_sid": ACCOUNT, "auth_token": TOKEN, "sent_after_ms": 0, "delivered_after_ms": 0}
    set_up = Options(**values | options)
    async with (
        running_sandbox(set_up, clock) as sandbox,
        ClientSession(headers=basic(ACCOUNT, TOKEN)) as client,
    ):
        shore = Shore(sandbox, client, clock)
        app = web.Application()
        app.router.add_post("/{path:.*}", shore.hear)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        shore.our_web = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield shore
        await runner.cleanup()


@pytest.fixture
async def shore() -> AsyncIterator[Shore]:
    async with shore_with() as made:
        yield made


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# Twilio's door: texts


async def test_without_the_right_credentials_nothing_opens(shore: Shore) -> None:
    for headers in ({}, basic(ACCOUNT, "wrong"), basic("AC" + "8" * 32, TOKEN), {"Authorization": "Bearer ą"}):
        async with ClientSession(headers=headers) as stranger:
            for method, path in (("POST", "/Messages.json"), ("GET", "/Messages.json"), ("GET", "/nothing")):
                async with stranger.request(method, shore.sandbox.url + API + path) as answer:
                    assert answer.status == 401
                    assert (await answer.json())["code"] == 20003
    await shore.call("GET", f"/2010-04-01/Accounts/{'AC' + '8' * 32}/Messages.json", 404)


async def test_an_accepted_text_is_a_full_resource(shore: Shore) -> None:
    text = await shore.send(Body="ą" * 71, ValidityPeriod="60")
    assert re.fullmatch(r"SM[0-9a-f]{32}", text["sid"])
    assert parsedate_to_datetime(text["date_created"]) == START
    shown = {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "body": "ą" * 71,
        "date_sent": None,
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": SHOP,
        "messaging_service_sid": None,
        "num_media": "0",
        "num_segments": "2",
        "price": None,
        "price_unit": "USD",
        "status": "queued",
        "to": ONA,
        "uri": f"{API}/Messages/{text['sid']}.json",
    }
    assert {name: text[name] for name in shown} == shown
    await shore.sandbox.settled()
    later = await shore.call("GET", text["uri"], 200)
    assert later["status"] == "delivered" and parsedate_to_datetime(later["date_sent"]) == START
    assert (await shore.call("GET", f"{API}/Messages/SM{'0' * 32}.json", 404))["code"] == 20404


async def test_a_messaging_service_knows_neither_sender_nor_segments_at_first(shore: Shore) -> None:
    text = await shore.send(From=None, MessagingServiceSid="MG" + "1" * 32)
    assert (text["from"], text["num_segments"], text["status"]) == (None, "0", "accepted")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"To": None}, 21604),
        ({"To": ""}, 21604),
        ({"From": None}, 21603),
        ({"Body": None}, 21602),
        ({"Body": ""}, 21602),
        ({"Body": "x" * 1601}, 21617),
        ({"To": "37061234567"}, 21211),
        ({"To": "+3706123456789012"}, 21211),
        ({"To": "+37061234567\n"}, 21211),
        ({"From": "A name too long"}, 21212),
        ({"ValidityPeriod": "0"}, 90007),
        ({"ValidityPeriod": "36001"}, 90007),
        ({"ValidityPeriod": "1.5"}, 90014),
        ({"StatusCallback": "ftp://example.com"}, 21609),
        ({"StatusCallback": "http://our_web.example.com/"}, 21609),
        ({"StatusCallback": "nonsense"}, 21609),
        ({"To": "+15005550001"}, 21211),
        ({"To": "+15005550009"}, 21614),
        ({"From": "+15005550008"}, 21611),
    ],
)
async def test_what_twilio_refuses_is_refused(shore: Shore, changes: dict[str, str | None], code: int) -> None:
    refusal = await shore.send(400, **changes)
    assert refusal["code"] == code and refusal["status"] == 400 and refusal["message"]
    assert (await shore.call("GET", "/sandbox/counts", 200))["accepted"] == 0


async def test_what_twilio_takes_is_taken(shore: Shore) -> None:
    for changes in ({"From": "+15005550006"}, {"From": "Kava UAB"}, {"From": "12345"}, {"Body": "x" * 1600}):
        await shore.send(**changes)
    await shore.send(StatusCallback=None, ValidityPeriod="36000")


async def test_lists_filter_and_page_newest_first(shore: Shore) -> None:
    for n in range(7):
        await shore.send(Body=str(n))
    await shore.send(To=VIKTOR, Body="to Viktor")
    await shore.send(From="Kava", Body="from Kava")
    bodies, path = [], f"{API}/Messages.json?To=%2B37061234567&From=%2B37061000001&PageSize=3"
    for expected in (3, 3, 1):
        page = await shore.call("GET", path, 200)
        assert len(page["messages"]) == expected
        bodies += [text["body"] for text in page["messages"]]
        await shore.send(Body="newer than the first page")  # must not shift the pages behind it
        path = page["next_page_uri"]
    assert path is None and bodies == list("6543210")
    assert len((await shore.call("GET", f"{API}/Messages.json?From=Kava", 200))["messages"]) == 1
    assert len((await shore.call("GET", f"{API}/Messages.json", 200))["messages"]) == 12


async def test_date_filters_see_only_texts_that_were_sent(shore: Shore) -> None:
    await shore.send(Body="yesterday")
    await shore.sandbox.settled()
    shore.clock.advance(days=1)
    await shore.send(Body="today")
    await shore.sandbox.settled()
    shore.sandbox.state.recipients[ONA] = Recipient(delay_ms=60_000)
    shore.sandbox.state.options = Options(account_sid=ACCOUNT, auth_token=TOKEN, sent_after_ms=60_000)
    await shore.send(Body="still queued")

    async def bodies(name: str, value: str) -> list[str]:
        page = await shore.call("GET", f"{API}/Messages.json", 200, params={name: value})
        return [text["body"] for text in page["messages"]]

    assert await bodies("DateSent", "2026-11-24") == ["yesterday"]
    assert await bodies("DateSent>", "2026-11-25") == ["today"]
    assert await bodies("DateSent>", "2026-11-24") == ["today", "yesterday"]
    assert await bodies("DateSent<", "2026-11-24") == ["yesterday"]
    assert await bodies("DateSent>", "2026-11-25T08:15:31Z") == []
    await shore.call("GET", f"{API}/Messages.json?DateSent=soon", 400)
    await shore.call("GET", f"{API}/Messages.json?PageToken=PAx", 400)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("", 1),
        ("x" * 160, 1),
        ("x" * 161, 2),
        ("x" * 306, 2),
        ("x" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("ą" * 70, 1),
        ("ą" * 71, 2),
        ("👋" * 35, 1),
        ("👋" * 36, 2),
        ("ą" * 66 + "👋" + "ą" * 66, 3),
    ],
)
def test_segments(body: str, parts: int) -> None:
    assert segments(body) == parts


# Delivery and callbacks


async def test_callbacks_tell_the_story_in_order(shore: Shore) -> None:
    text = await shore.send(StatusCallback=f"{shore.our_web}/status?attempt=abc#rc=5&rp=all")
    await shore.sandbox.settled()
    sent, delivered = shore.received
    assert sent == {
        "AccountSid": ACCOUNT,
        "ApiVersion": "2010-04-01",
        "From": SHOP,
        "MessageSid": text["sid"],
        "MessageStatus": "sent",
        "SmsSid": text["sid"],
        "SmsStatus": "sent",
        "To": ONA,
        "path": "/status",
        "attempt": "abc",
    }
    assert (delivered["MessageStatus"], delivered["RawDlrDoneDate"]) == ("delivered", "2611240815")
    (shown,) = (await shore.call("GET", "/sandbox/messages", 200))["messages"]
    assert [(c["status"], c["http_status"]) for c in shown["callbacks"]] == [("sent", 204), ("delivered", 204)]


def test_the_signature_is_twilios() -> None:
    """The worked example of Twilio's documentation on validating requests."""
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    assert sign("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", fields) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("fragment", "statuses", "tries"),
    [
        ("", [503, 204], 1),
        ("#rc=5&rp=all", [503, 404, 204], 3),
        ("#rc=1&rp=5xx", [503, 503, 204], 2),
        ("#rc=3&rp=4xx", [404, 503, 204], 2),
        ("#rc=0&rp=all", [503, 204], 1),
    ],
)
async def test_our_web_is_asked_again_as_the_address_says(
    shore: Shore, fragment: str, statuses: list[int], tries: int
) -> None:
    shore.statuses = statuses
    shore.sandbox.state.recipients[ONA] = Recipient(outcome="failed")
    await shore.send(StatusCallback=f"{shore.our_web}/status{fragment}")
    await shore.sandbox.settled()
    assert len(shore.received) == tries


async def test_a_web_that_is_away_for_a_moment_is_told_when_it_is_back(shore: Shore) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        shore.sandbox.state.recipients[ONA] = Recipient(outcome="failed")
        await shore.send(StatusCallback=f"http://127.0.0.1:{port}/status#rc=5&rp=all")
        await asyncio.sleep(0.1)
    app = web.Application()
    app.router.add_post("/status", shore.hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    await shore.sandbox.settled()
    assert len(shore.received) == 1
    await runner.cleanup()


@pytest.mark.parametrize(
    ("fragment", "retries", "retried"),
    [
        ("", 1, {"ct"}),
        ("rc=99&rp=5xx,rt", 5, {"5xx", "rt"}),
        ("rc=-1&rp=", 1, {"ct"}),
        ("rc=²", 1, {"ct"}),
    ],
)
def test_retry_rules_are_bounded(fragment: str, retries: int, retried: set[str]) -> None:
    assert retry_rule(fragment) == (retries, frozenset(retried))


FAST = Options(sent_after_ms=100, delivered_after_ms=400)


@pytest.mark.parametrize(
    ("recipient", "validity_s", "speed", "steps"),
    [
        (Recipient(), 60, 1, [Step(0.1, "sent"), Step(0.4 - 0.1, "delivered")]),
        (Recipient(delay_ms=0), 60, 1, [Step(0, "sent"), Step(0, "delivered")]),
        (Recipient(outcome="undelivered"), 60, 1, [Step(0.1, "sent"), Step(0.4 - 0.1, "undelivered", 30003)]),
        (Recipient(outcome="failed", error_code=30001), 60, 1, [Step(0.4, "failed", 30001)]),
        (Recipient(delay_ms=2_000), 1, 1, [Step(1, "failed", 30036)]),
        (Recipient(), 60, 300, [Step(0.2, "failed", 30036)]),
        (Recipient(), 120, 300, [Step(0.1, "sent"), Step(0.4 - 0.1, "delivered")]),
    ],
)
def test_the_life_of_a_text(recipient: Recipient, validity_s: int, speed: float, steps: list[Step]) -> None:
    assert plan(recipient, validity_s, speed, FAST) == steps


async def test_validity_is_counted_on_the_clock_of_the_deployment(tmp_path: Path) -> None:
    clock = VirtualClock.create(tmp_path / "clock", START, speed=100_000)
    options = Options(account_sid=ACCOUNT, auth_token=TOKEN, sent_after_ms=50, delivered_after_ms=100)
    async with running_sandbox(options, clock) as sandbox, ClientSession(headers=basic(ACCOUNT, TOKEN)) as client:
        form = {"To": ONA, "From": SHOP, "Body": "an hour is 36 milliseconds here", "ValidityPeriod": "3600"}
        async with client.post(f"{sandbox.url}{API}/Messages.json", data=form) as answer:
            assert answer.status == 201
        await sandbox.settled()
        (text,) = sandbox.state.texts.values()
        assert (text.status, text.error_code, text.sent_at) == ("failed", 30036, None)


@pytest.mark.parametrize(
    ("faults", "statuses"),
    [
        ({"lost_callback_rate": 1}, []),
        ({"duplicate_callback_rate": 1}, ["sent", "sent", "delivered", "delivered"]),
        ({"reordered_callback_rate": 1}, ["delivered", "sent"]),
        ({"late_callback_rate": 1, "late_callback_ms": 50}, ["sent", "delivered"]),
    ],
)
async def test_callbacks_go_wrong_as_told(shore: Shore, faults: dict[str, Any], statuses: list[str]) -> None:
    shore.go_wrong(**faults)
    text = await shore.send()
    await shore.sandbox.settled()
    assert sorted(form["MessageStatus"] for form in shore.received) == sorted(statuses)
    if "late_callback_rate" not in faults:
        assert [form["MessageStatus"] for form in shore.received] == statuses
    assert (await shore.call("GET", text["uri"], 200))["status"] == "delivered"


async def test_a_seed_strikes_the_same_texts_in_any_order(shore: Shore) -> None:
    shore.go_wrong(seed=3, throttle_rate=0.3)
    attempts = [uuid.UUID(int=n).hex for n in range(60)]

    async def struck(attempt: str) -> bool:
        form = {"To": ONA, "From": SHOP, "Body": "x", "StatusCallback": f"{shore.our_web}/s?attempt={attempt}#rc=1"}
        async with shore.client.post(f"{shore.sandbox.url}{API}/Messages.json", data=form) as answer:
            assert answer.status in (201, 429)
            assert ("Retry-After" in answer.headers) == (answer.status == 429)
            return answer.status == 429

    in_turn = [await struck(attempt) for attempt in attempts]
    at_once = await asyncio.gather(*(struck(attempt) for attempt in reversed(attempts)))
    assert in_turn == at_once[::-1]
    assert 5 < sum(in_turn) < 35
    shore.go_wrong(seed=4, throttle_rate=0.3)
    assert in_turn != [await struck(attempt) for attempt in attempts]


# Shoppers


async def test_stop_blocks_one_sender_and_still_reaches_our_web() -> None:
    async with shore_with() as shore:
        shore.sandbox.state.options = Options(
            account_sid=ACCOUNT, auth_token=TOKEN, inbound_url=f"{shore.our_web}/inbound", sent_after_ms=0
        )
        await shore.send(To=VIKTOR, StatusCallback=None)
        for words, blocked in (("Stop please", False), ("quit", True), ("unstop", False), (" STOPALL ", True)):
            reply = await shore.call("POST", "/sandbox/replies", 201, json={"from": VIKTOR, "body": words})
            assert reply["to"] == SHOP and reply["webhook"]["http_status"] == 204
            assert (shore.received[-1]["path"], shore.received[-1]["Body"]) == ("/inbound", words)
            refused = await shore.send(400 if blocked else 201, To=VIKTOR, StatusCallback=None)
            assert not blocked or refused["code"] == 21610
        await shore.send(To=ONA, StatusCallback=None)
        await shore.send(To=VIKTOR, From="+37061000002", StatusCallback=None)


async def test_nobody_can_answer_a_name_or_a_stranger(shore: Shore) -> None:
    await shore.call("POST", "/sandbox/replies", 400, json={"from": ONA, "body": "who?"})
    await shore.send(From="Kava", StatusCallback=None)
    await shore.call("POST", "/sandbox/replies", 400, json={"from": ONA, "body": "STOP"})
    reply = await shore.call("POST", "/sandbox/replies", 201, json={"from": ONA, "to": SHOP, "body": "hi"})
    assert reply["webhook"] == {"url": None, "http_status": None}


async def test_a_phone_shows_its_conversation(shore: Shore) -> None:
    await shore.send(Body="one")
    await shore.call("POST", "/sandbox/replies", 201, json={"from": ONA, "body": "two"})
    await shore.send(Body="three")
    await shore.send(To=VIKTOR, Body="four")

    async def bodies(query: str) -> list[str]:
        return [text["body"] for text in (await shore.call("GET", f"/sandbox/messages?{query}", 200))["messages"]]

    assert await bodies("to=%2B37061234567") == ["three", "one"]
    assert await bodies("phone=%2B37061234567") == ["three", "two", "one"]
    assert await bodies("limit=2") == ["four", "three"]
    assert await bodies("to=%2B37069999999") == []


async def test_a_scripted_recipient(shore: Shore) -> None:
    path = f"/sandbox/recipients/{ONA}"
    assert await shore.call("PUT", path, 200, json={"outcome": "undelivered", "delay_ms": 0}) == {
        "outcome": "undelivered",
        "error_code": None,
        "delay_ms": 0,
    }
    await shore.send()
    await shore.sandbox.settled()
    assert shore.received[-1]["MessageStatus"] == "undelivered" and shore.received[-1]["ErrorCode"] == "30003"
    await shore.call("PUT", path, 200, json={"outcome": "rejected"})
    assert (await shore.send(400))["code"] == 21614
    await shore.call("PUT", path, 200, json={"outcome": "rejected", "error_code": 20429})
    await shore.send(429)
    await shore.call("PUT", path, 200, json={"outcome": "unsubscribed"})
    await shore.send()
    await shore.sandbox.settled()
    assert shore.received[-1]["MessageStatus"] == "unsubscribed"
    for document in ({"outcome": "lost"}, {"outcome": "failed", "when": 1}, {"delay_ms": -1}):
        await shore.call("PUT", path, 400, json=document)
    await shore.call("PUT", path, 400, json=[])
    await shore.call("PUT", path, 400, data=b"\xff")
    await shore.call("PUT", "/sandbox/recipients/ona", 400, json={"outcome": "failed"})


async def test_faults_are_read_set_and_checked(shore: Shore) -> None:
    await shore.call("PUT", "/sandbox/faults", 200, json={"seed": 9, "drop_after_rate": 0.5})
    faults = await shore.call("GET", "/sandbox/faults", 200)
    assert (faults["seed"], faults["drop_after_rate"], faults["throttle_rate"]) == (9, 0.5, 0.0)
    for document in ({"drop_after_rate": 2}, {"unheard_of_rate": 1}):
        assert "error" in await shore.call("PUT", "/sandbox/faults", 400, json=document)
    assert await shore.call("GET", "/sandbox/faults", 200) == faults


async def test_counts_and_reset(shore: Shore) -> None:
    for body in ("once", "twice", "twice"):
        await shore.send(Body=body)
    await shore.sandbox.settled()
    counts = await shore.call("GET", "/sandbox/counts?at_least=2", 200)
    assert counts == {
        "accepted": 3,
        "kept": 3,
        "pending": 0,
        "texts": [{"to": ONA, "body": "twice", "count": 2}],
    }
    assert await shore.call("GET", "/sandbox", 200) == {"accepted": 3, "kept": 3, "pending": 0}
    shore.go_wrong(throttle_rate=1)
    await shore.call("DELETE", "/sandbox", 204)
    assert await shore.call("GET", "/sandbox/counts", 200) == {"accepted": 0, "kept": 0, "pending": 0, "texts": []}
    await shore.send()


def test_the_oldest_texts_are_forgotten() -> None:
    state = State(Options(texts_max=3), ManualClock(START))
    sids = [state.add(to=ONA, sender=SHOP, body=str(n), status="queued").sid for n in range(5)]
    state.add(to=VIKTOR, sender=SHOP, body="5", status="queued")
    assert list(state.texts)[:2] == sids[3:]
    assert [text.body for text in state.newest_first(ONA, None)] == ["4", "3"]
    assert [text.body for text in state.newest_first(None, SHOP)] == ["5", "4", "3"]
    for n in range(3):
        state.add(to=VIKTOR, sender=SHOP, body=str(n), status="queued")
    assert list(state.newest_first(ONA, None)) == [] and list(state.conversation(ONA)) == []


# Numbers


async def test_a_number_is_found_bought_answered_and_given_back(shore: Shore) -> None:
    found = await shore.call("GET", f"{API}/AvailablePhoneNumbers/US/Local.json?SmsEnabled=true&PageSize=2", 200)
    first, second = [offer["phone_number"] for offer in found["available_phone_numbers"]]
    assert found["available_phone_numbers"][0]["capabilities"]["SMS"]
    form = {"PhoneNumber": first, "SmsUrl": f"{shore.our_web}/hooks"}
    number = await shore.call("POST", f"{API}/IncomingPhoneNumbers.json", 201, data=form)
    assert re.fullmatch(r"PN[0-9a-f]{32}", number["sid"]) and number["phone_number"] == first
    assert (await shore.call("POST", f"{API}/IncomingPhoneNumbers.json", 400, data=form))["code"] == 21422
    again = await shore.call("GET", f"{API}/AvailablePhoneNumbers/US/Local.json?PageSize=1", 200)
    assert again["available_phone_numbers"][0]["phone_number"] == second

    await shore.call("POST", "/sandbox/replies", 201, json={"from": ONA, "to": first, "body": "hello"})
    assert shore.received[-1]["path"] == "/hooks" and shore.received[-1]["To"] == first
    await shore.call("POST", number["uri"], 200, data={"SmsUrl": f"{shore.our_web}/moved"})
    await shore.call("POST", "/sandbox/replies", 201, json={"from": ONA, "to": first, "body": "hello"})
    assert shore.received[-1]["path"] == "/moved"

    listed = await shore.call("GET", f"{API}/IncomingPhoneNumbers.json", 200, params={"PhoneNumber": first})
    assert [n["sid"] for n in listed["incoming_phone_numbers"]] == [number["sid"]]
    assert (await shore.call("GET", number["uri"], 200))["sms_url"] == f"{shore.our_web}/moved"
    await shore.call("DELETE", number["uri"], 204)
    await shore.call("DELETE", number["uri"], 404)
    await shore.call("POST", f"{API}/IncomingPhoneNumbers.json", 201, data=form)


@pytest.mark.parametrize(
    ("phone", "papers", "code"),
    [
        ("+4915123456789", {}, 21649),
        ("+4915123456789", {"BundleSid": "BU1"}, 21631),
        ("+4915123456789", {"BundleSid": "BU1", "AddressSid": "AD1"}, None),
        ("+37251234567", {}, 21631),
        ("+37251234567", {"AddressSid": "AD1"}, None),
        ("+353850123456", {"AddressSid": "AD1"}, 21422),
        ("+99912345678", {}, 21422),
        ("12345", {}, 21422),
    ],
)
async def test_papers_are_asked_for(shore: Shore, phone: str, papers: dict[str, str], code: int | None) -> None:
    form = {"PhoneNumber": phone, **papers}
    answer = await shore.call("POST", f"{API}/IncomingPhoneNumbers.json", 400 if code else 201, data=form)
    assert answer.get("code") == code


@pytest.mark.parametrize("place", ["IE/Mobile", "NZ/Local", "LV/Mobile", "LT/Fax", "ZZ/Mobile"])
async def test_some_numbers_are_not_to_be_had(shore: Shore, place: str) -> None:
    await shore.call("GET", f"{API}/AvailablePhoneNumbers/{place}.json", 404)


async def test_search_filters(shore: Shore) -> None:
    async def found(place: str) -> int:
        page = await shore.call("GET", f"{API}/AvailablePhoneNumbers/{place}", 200)
        return len(page["available_phone_numbers"])

    assert await found("LT/Mobile.json?SmsEnabled=true&PageSize=5") == 5
    assert await found("LT/Local.json?SmsEnabled=true") == 0
    assert await found("LT/Mobile.json?ExcludeAllAddressRequired=true") == 0
    assert await found("US/Local.json?Contains=5*") > 0


# As a process


@pytest.mark.thorough
async def test_it_runs_as_a_process_of_its_own() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    environment = {**os.environ, "CARTWAKE_TWILIO_ACCOUNT_SID": ACCOUNT, "CARTWAKE_TWILIO_AUTH_TOKEN": TOKEN}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cartwake.carriers.sandbox", "--port", str(port), env=environment
    )
    try:
        async with ClientSession(headers=basic(ACCOUNT, TOKEN)) as client:
            url = f"http://127.0.0.1:{port}"
            await until_listening(port)
            form = {"To": ONA, "From": SHOP, "Body": "hello from another process"}
            async with client.post(f"{url}{API}/Messages.json", data=form) as answer:
                assert answer.status == 201
            async with client.get(f"{url}/sandbox/counts") as answer:
                assert (await answer.json())["accepted"] == 1
    finally:
        process.terminate()
        await process.wait()
    assert urlsplit(url).port == port


async def until_listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
