"""What any carrier must answer about our account, without sending anything: for `cartwake doctor`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import httpx
import pytest
from aiohttp import web

from cartwake.carriers.open import open_carrier, open_examinable
from cartwake.carriers.protocol import CarrierError, Examinable, OwnedNumber, Trouble
from cartwake.carriers.sandbox import Faults, Options, Sandbox, running_sandbox
from cartwake.kit.config import Settings, load_settings
from conformance.faults import TROUBLES

ACCOUNT, TOKEN = "AC" + "7" * 32, "the-token-of-the-tests"
API = f"/2010-04-01/Accounts/{ACCOUNT}"


def settings_for(api_base: str) -> Settings:
    return load_settings(twilio_api_base=api_base, twilio_account_sid=ACCOUNT, twilio_auth_token=TOKEN)


@pytest.fixture(params=TROUBLES, ids=str)
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """What goes wrong with texts must not keep the carrier from answering about our account."""
    async with running_sandbox(Options(account_sid=ACCOUNT, auth_token=TOKEN)) as running:
        running.state.faults = Faults(**request.param.faults)
        yield running


@pytest.fixture
async def carrier(sandbox: Sandbox) -> AsyncIterator[Examinable]:
    examinable = open_examinable(settings_for(sandbox.url))
    yield examinable
    await examinable.close()


@asynccontextmanager
async def answering(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[Examinable]:
    """The adapter before a carrier that answers everything so."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    examinable = open_examinable(settings_for(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    yield examinable
    await examinable.close()
    await runner.cleanup()


async def test_the_account_says_what_it_is_and_what_time_it_is(carrier: Examinable) -> None:
    account = await carrier.account()
    assert (account.status, account.kind) == ("active", "Sandbox")
    assert account.answered_at is not None
    assert abs(account.answered_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_numbers_are_listed_with_where_their_replies_go(carrier: Examinable, sandbox: Sandbox) -> None:
    assert await carrier.owned_numbers() == []
    async with httpx.AsyncClient(base_url=sandbox.url, auth=(ACCOUNT, TOKEN), verify=False) as http:
        for form in (
            {"PhoneNumber": "+37061000001", "SmsUrl": "https://sms.example.com/hooks/twilio/inbound"},
            {"PhoneNumber": "+37061000002"},
        ):
            bought = await http.post(f"{API}/IncomingPhoneNumbers.json", data=form | {"AddressSid": "AD1"})
            assert bought.status_code == 201, bought.text
    assert await carrier.owned_numbers() == [
        OwnedNumber("+37061000001", "https://sms.example.com/hooks/twilio/inbound"),
        OwnedNumber("+37061000002", None),
    ]


async def test_every_page_of_numbers_is_read_and_a_list_without_an_end_is_not() -> None:
    asked = []

    def a_page(last: int) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            page = int(request.query.get("Page", "0"))
            asked.append(page)
            more = f"{API}/IncomingPhoneNumbers.json?Page={page + 1}" if page < last else None
            numbers = [{"phone_number": f"+3706100000{page % 10}", "sms_url": ""}]
            return web.json_response({"incoming_phone_numbers": numbers, "next_page_uri": more})

        return answer

    async with answering(a_page(2)) as three_pages:
        found = await three_pages.owned_numbers()
    assert [number.address for number in found] == ["+37061000000", "+37061000001", "+37061000002"]
    asked.clear()
    async with answering(a_page(10**9)) as endless:
        with pytest.raises(CarrierError, match="more numbers than can be read"):
            await endless.owned_numbers()
    assert len(asked) <= 200


async def test_what_it_signs_it_verifies_and_nothing_else(carrier: Examinable, sandbox: Sandbox) -> None:
    receiver = open_carrier(settings_for(sandbox.url))
    url = "https://sms.example.com/hooks/twilio/status?attempt=1"
    form = {"MessageSid": "SM1", "MessageStatus": "sent", "Empty": ""}
    headers = carrier.sign(url, form)
    assert receiver.verify(url, urlencode(form).encode(), headers)
    assert not receiver.verify(url, urlencode(form | {"MessageStatus": "failed"}).encode(), headers)
    assert not receiver.verify(url.partition("?")[0], urlencode(form).encode(), headers)
    await receiver.close()


@pytest.mark.parametrize(
    ("status", "document", "trouble"),
    [
        (401, {"code": 20003}, Trouble.CREDENTIALS),
        (401, {}, Trouble.CREDENTIALS),
        (403, {"code": 20003}, Trouble.CREDENTIALS),
        (404, {"code": 20404}, Trouble.NO_ACCOUNT),
        (404, {}, Trouble.REFUSED),
        (503, {"code": 20503}, Trouble.REFUSED),
        (302, {}, Trouble.REFUSED),
        (200, [], Trouble.REFUSED),
    ],
)
async def test_why_it_does_not_answer_is_told_apart(status: int, document: object, trouble: Trouble) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(document, status=status, headers={"Location": "https://elsewhere.example"})

    async with answering(answer) as carrier:
        for question in (carrier.account, carrier.owned_numbers):
            with pytest.raises(CarrierError) as refused:
                await question()
            if question == carrier.account or status == 401:
                assert refused.value.trouble is trouble
