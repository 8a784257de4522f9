"""A sandbox with a journal knows everything again when it comes back, whatever ended it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, encode_basic_auth

from cartwake.carriers.sandbox import Options, Sandbox, running_sandbox
from cartwake.carriers.sandbox.journal import Journal

ONA, VIKTOR, SHOP = "+37061234567", "+37061234568", "+37061000001"
ACCOUNT = Options().account_sid
MESSAGES = f"/2010-04-01/Accounts/{ACCOUNT}/Messages"
FOR_EVER_MS = 3_600_000


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "carrier.journal"


@asynccontextmanager
async def sandbox(journal: Path, delivered_after_ms: int = 0) -> AsyncIterator[Sandbox]:
    options = Options(journal=journal, sent_after_ms=0, delivered_after_ms=delivered_after_ms)
    async with running_sandbox(options) as running:
        yield running


async def call(sandbox: Sandbox, method: str, path: str, expect: int = 200, **body: Any) -> Any:
    headers = {"Authorization": encode_basic_auth(ACCOUNT, Options().auth_token)}
    async with ClientSession(headers=headers) as client, client.request(method, sandbox.url + path, **body) as answer:
        assert answer.status == expect, await answer.text()
        return await answer.json() if answer.content_length else None


async def send(sandbox: Sandbox, to: str = ONA, expect: int = 201) -> Any:
    form = {"To": to, "From": SHOP, "Body": "Your cart waits"}
    return await call(sandbox, "POST", f"{MESSAGES}.json", expect, data=form)


async def test_texts_and_what_became_of_them_are_still_known(journal: Path) -> None:
    async with sandbox(journal) as first:
        sid = (await send(first))["sid"]
        await first.settled()
        before = await call(first, "GET", f"{MESSAGES}/{sid}.json")
    async with sandbox(journal) as second:
        assert await call(second, "GET", f"{MESSAGES}/{sid}.json") == before
        assert before["status"] == "delivered"
        listed = await call(second, "GET", f"{MESSAGES}.json", params={"To": ONA, "From": SHOP})
        assert [text["sid"] for text in listed["messages"]] == [sid]
        assert (await call(second, "GET", "/sandbox"))["accepted"] == 1
        assert (await send(second))["sid"] != sid


async def test_a_text_that_was_under_way_arrives(journal: Path) -> None:
    async with sandbox(journal, delivered_after_ms=FOR_EVER_MS) as first:
        sid = (await send(first))["sid"]
    async with sandbox(journal) as second:
        await second.settled()
        assert second.state.texts[sid].status == "delivered"


async def test_a_stop_a_script_and_the_faults_still_hold(journal: Path) -> None:
    async with sandbox(journal) as first:
        await call(first, "POST", "/sandbox/replies", 201, json={"from": ONA, "to": SHOP, "body": "STOP"})
        await call(first, "PUT", f"/sandbox/recipients/{VIKTOR}", json={"outcome": "rejected", "error_code": 21614})
        await call(first, "PUT", "/sandbox/faults", json={"seed": 7, "lost_callback_rate": 0.5})
    async with sandbox(journal) as second:
        assert (await send(second, ONA, expect=400))["code"] == 21610
        assert (await send(second, VIKTOR, expect=400))["code"] == 21614
        assert (await call(second, "GET", "/sandbox/faults"))["lost_callback_rate"] == 0.5


def test_a_line_that_was_cut_off_was_never_begun(journal: Path) -> None:
    notes = Journal(journal)
    notes.note("faults", {"seed": 7})
    notes.close()
    with journal.open("a") as file:
        file.write('{"text": {"seq": 2, "sid": "SM')
    notes = Journal(journal)
    assert list(notes.lines()) == [("faults", {"seed": 7})]
    notes.note("faults", {"seed": 8})
    assert list(notes.lines()) == [("faults", {"seed": 7}), ("faults", {"seed": 8})]
    notes.close()


async def test_reset_forgets_the_journal_too(journal: Path) -> None:
    async with sandbox(journal) as first:
        await send(first)
        await call(first, "DELETE", "/sandbox", 204)
        await send(first, VIKTOR)
    async with sandbox(journal) as second:
        assert [text.to for text in second.state.texts.values()] == [VIKTOR]
