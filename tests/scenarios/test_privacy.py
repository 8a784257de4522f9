"""No phone number in the plumbing (G12): a full run's logs and everything the database holds are searched for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg
import pytest
import structlog
from psycopg import sql

from cartwake.kit.config import Settings
from cartwake.kit.db import WEB
from cartwake.kit.logs import configure_logs, redact_phones
from cartwake.messages.inbox import store_events
from cartwake.worker import claim_rounds, open_webhook_client, tell
from deployment import Deployment
from world import AINO, JONAS, RUTA, TICKED

PHONES = (RUTA, AINO, JONAS)
EVERY_TABLE = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"


def traces_of(phone: str) -> list[str]:
    """The ways in which a number could stand in a text: as it is, for an address, and as bytes in hex."""
    digits = phone.removeprefix("+")
    return [digits, digits[3:], digits.encode().hex()]


async def a_busy_day(deployment: Deployment) -> None:
    """Texts, an answer, a refusal, a broken webhook, bad input: whatever might make somebody log something."""
    shop = await deployment.shop("Lino Namai")
    await shop.call("PUT", "/v1/reply-webhook", {"url": "http://127.0.0.1:9/" + AINO})
    await shop.api("PUT", "/v1/templates/lt", {"text": "{" + AINO + "} " + AINO})
    await deployment.script(JONAS, outcome="rejected", error_code=21211)
    for number, phone in enumerate(PHONES):
        await shop.put_session(f"cart-{number}", consent=TICKED, phone=phone)
    await deployment.pass_time(minutes=50)
    await deployment.reply(RUTA, "STOP")
    await deployment.reply(AINO, "who is this? call me at " + AINO)
    await deployment.faults(error_after_rate=1.0)
    await shop.put_session("cart-9", consent=TICKED, phone="+4915112345679")
    await deployment.pass_time(minutes=50)
    await deployment.faults()
    await shop.api("PUT", "/v1/checkout-sessions/cart-8", {"phone": RUTA, "consent": {"granted": True}})
    await shop.api("PUT", "/v1/checkout-sessions/cart-8", {"phone": 7, "checkout_url": RUTA})
    await deployment.world.carrier_posts("/hooks/twilio/inbound", {"From": RUTA, "Body": RUTA}, signature="forged")
    await deployment.world.carrier_posts("/hooks/twilio/inbound", {"From": RUTA, "Body": RUTA})
    async with deployment.runtime.db.transaction(WEB) as conn:  # an event nobody can read: its error quotes the number
        await store_events(conn, deployment.runtime.moment(), [("status", {"sid": "SM1", "status": RUTA})])
    await deployment.settle()
    client = open_webhook_client(deployment.runtime)
    for leased in await claim_rounds(deployment.runtime, 64):
        await tell(deployment.runtime, client, leased)
    await client.close()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


async def test_a_full_run_leaves_no_phone_in_logs_or_database(
    deployment: Deployment, fresh_url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure_logs(Settings(log_level="debug", log_format="json"))
    caplog.set_level(logging.DEBUG)
    await a_busy_day(deployment)
    printed = capfd.readouterr()
    said = printed.out + printed.err + "\n".join(record.getMessage() for record in caplog.records if _ours(record))
    with psycopg.connect(fresh_url) as conn:
        tables = [name for (name,) in conn.execute(EVERY_TABLE).fetchall()]
        held = "\n".join(
            str(found)
            for name in tables
            for (found,) in conn.execute(sql.SQL("SELECT to_jsonb(t)::text FROM {} t").format(sql.Identifier(name)))
        )
    assert "worker.event_set_aside" in said and "Lino Namai" in held, "or the search below would search nothing"
    for phone in PHONES:
        for trace in traces_of(phone):
            assert trace not in held, "a phone number stands in the database"
            assert trace not in said, "a phone number was logged"


def _ours(record: logging.LogRecord) -> bool:
    """Not the test's own HTTP client, which plays the shopper's browser and logs where it went."""
    return not record.name.startswith(("httpx", "httpcore", "asyncio"))


def test_the_last_fence_blots_out_what_looks_like_a_phone() -> None:
    line = redact_phones(None, "info", {"event": f"unexpected: {RUTA} said", "url": "/x?to=%2B37061234567", "n": 1})
    assert line == {"event": "unexpected: [phone] said", "url": "/x?to=[phone]", "n": 1}
