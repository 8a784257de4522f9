"""Backup and restore: a copy starts paused, learns from the carrier what went out since, and texts nobody twice."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from cartwake.cli.recovery import recover_from
from cartwake.credits.balance import adjust
from cartwake.credits.pricing import price
from cartwake.kit.clock import VirtualClock
from cartwake.kit.crypto import Vault
from cartwake.kit.db import ENGINE, OPERATOR, Database
from cartwake.kit.embedded import embedded_postgres
from cartwake.kit.phones import country_of, hash_phone
from cartwake.kit.schema import migrate, pause_if_moved, settle_here
from cartwake.messages.inbox import INBOUND, store_events
from cartwake.messages.recovery import Recovered
from cartwake.messages.segments import measure
from cartwake.tenants.switches import deployment_paused_since, resume_deployment
from cartwake.web.app import create_app
from cartwake.worker import dispatch_once
from conftest import database_url
from deployment import Deployment, phone
from tools import run_tool
from typed import Cartwake
from world import AINO, JONAS, RUTA, TICKED

OUR_NUMBER = "+37061000099"


@pytest.fixture
async def copy_of(server_url: str, fresh_url: str, vault: Vault) -> AsyncIterator[Database]:
    """Another database, into which a test may restore a backup."""
    name = psycopg.conninfo.conninfo_to_dict(fresh_url)["dbname"]
    copy = f"{name}_copy"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(copy)))
    database = Database(database_url(server_url, copy), vault)
    yield database
    await database.close()
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(copy)))


def settled(url: str) -> None:
    """A test's database is a copy of a template; make it the deployment's home, as `cartwake migrate` does."""
    with psycopg.connect(url) as conn:
        conn.execute(
            "UPDATE deployment_home SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )


def dump(url: str, file: Path) -> None:
    run_tool("pg_dump", "--format=custom", f"--file={file}", "--dbname", psycopg.conninfo.make_conninfo(url))


def restore(file: Path, url: str) -> None:
    run_tool("pg_restore", "--exit-on-error", "--dbname", psycopg.conninfo.make_conninfo(url), str(file))


async def test_after_a_restore_nobody_is_texted_twice_and_no_stop_is_lost(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    await shop.put_session("before", consent=TICKED, phone=RUTA)  # scheduled when the backup is taken, sent after it
    await shop.put_session("open", consent=TICKED, phone=AINO)  # left after it: the backup knows the cart, no message
    await deployment.pass_time(minutes=20)
    await shop.put_session("open", consent=TICKED, phone=AINO)
    await deployment.pass_time(minutes=20)
    assert (await shop.session("before"))["message"]["state"] == "scheduled"
    assert (await shop.session("open"))["message"] is None
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")

    await deployment.pass_time(minutes=40)
    assert [len(await deployment.phone_shows(phone)) for phone in (RUTA, AINO)] == [1, 1]
    await deployment.reply(RUTA, "STOP")
    restore(tmp_path / "backup", copy_of.url)

    assert pause_if_moved(copy_of, deployment.clock.now())
    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    await restored.dispatch()
    assert len(await deployment.phone_shows(RUTA)) == 1, "a restored deployment starts paused"

    found = await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    assert (found.texts, found.messages, found.replies) == (2, 2, 1)
    again = await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    assert (again.messages, again.credits) == (0, 0), "what was accounted for is not accounted for twice"
    await restored.settle()
    async with copy_of.transaction(OPERATOR) as conn:
        await settle_here(conn)
        await resume_deployment(conn)
        assert await deployment_paused_since(conn) is None
    assert not pause_if_moved(copy_of, deployment.clock.now()), "it is at home where it is now"

    for _ in range(26):
        await restored.jump(hours=1)
    assert [len(await deployment.phone_shows(phone)) for phone in (RUTA, AINO)] == [1, 1]
    await restored.sound()
    with psycopg.connect(copy_of.url) as owner:
        assert owner.execute("SELECT DISTINCT state, reason FROM sms_messages").fetchall() == [
            ("dropped", "sent_before_restore")
        ]
        suppressed = owner.execute("SELECT suppression_reason FROM consent_states WHERE suppressed_at IS NOT NULL")
        assert suppressed.fetchall() == [("stop",)], "the STOP that came after the backup counts again"


@pytest.mark.thorough
async def test_of_a_stop_and_a_start_after_the_backup_the_last_one_counts(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    """However many texts the carrier lists, newest first and in batches, and whatever was heard before it was asked."""
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai", sender=OUR_NUMBER)
    for number in (RUTA, AINO, JONAS):
        await shop.put_session(f"cart of {number}", consent=TICKED, phone=number)
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    for words in ({RUTA: "START", AINO: "STOP", JONAS: "START"}, {RUTA: "STOP", AINO: "START"}):
        for number, word in words.items():
            deployment.clock.advance(seconds=1)
            await deployment.reply(number, word, OUR_NUMBER)
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    deployment.clock.advance(minutes=1)
    async with copy_of.transaction(ENGINE) as conn:
        stop = {"sid": "SM" + "9" * 32, "sender": JONAS, "to": OUR_NUMBER, "body": "STOP"}
        await store_events(conn, restored.runtime.moment(), [(INBOUND, stop)])
    await restored.settle()
    deployment.clock.advance(minutes=1)
    found = await recover_from(restored.runtime, deployment.carrier, backup_at, batch_max=1)  # type: ignore[arg-type]
    assert found == Recovered(replies=5)
    await restored.settle()
    with psycopg.connect(copy_of.url) as owner:
        states = owner.execute("SELECT phone_hash, suppression_reason FROM consent_states").fetchall()
    last_words = {RUTA: "stop", AINO: None, JONAS: "stop"}
    assert set(states) == {(hash_phone(restored.runtime.vault, number), word) for number, word in last_words.items()}
    await restored.sound()


@pytest.mark.thorough
async def test_a_text_whose_cart_the_backup_never_saw_still_counts_for_its_phone(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    await shop.put_session("after", consent=TICKED, phone=JONAS, country="DE", locale="de")
    await deployment.outlast_a_cart()
    assert len(await deployment.phone_shows(JONAS)) == 1
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    found = await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    assert (found.texts, found.messages) == (1, 0)
    with psycopg.connect(copy_of.url) as owner:
        assert owner.execute("SELECT count(*) FROM recipient_texts").fetchone() == (1,)
    assert found.credits == await cost_at_the_carrier(deployment, [JONAS])


@pytest.mark.thorough
async def test_a_lost_text_that_may_have_been_for_either_of_two_carts_counts_for_both(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    for external_id in ("cart-1", "cart-2"):
        await shop.put_session(external_id, consent=TICKED)
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    await deployment.outlast_a_cart()
    assert len(await deployment.phone_shows(RUTA)) == 1
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    await restored.jump(hours=25)
    await restored.jump(hours=1)
    assert len(await deployment.phone_shows(RUTA)) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("batch_max", [1, 500])
async def test_of_two_lost_texts_the_later_one_counts_for_their_phone(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path, batch_max: int
) -> None:
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    for external_id in ("first", "second"):
        await deployment.jump(hours=25)
        await shop.put_session(external_id, consent=TICKED)
        await deployment.outlast_a_cart()
    _, later = await deployment.phone_shows(RUTA)
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    await recover_from(restored.runtime, deployment.carrier, backup_at, batch_max)  # type: ignore[arg-type]
    with psycopg.connect(copy_of.url) as owner:
        (texted_at,) = owner.execute("SELECT texted_at FROM recipient_texts").fetchall()[0]
    assert texted_at == datetime.fromisoformat(later["created_at"])


@pytest.mark.thorough
async def test_a_text_that_the_backup_knows_is_not_accounted_for_again(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    await shop.put_session("before", consent=TICKED, phone=RUTA)
    await deployment.outlast_a_cart()
    assert len(await deployment.phone_shows(RUTA)) == 1
    dump(fresh_url, tmp_path / "backup")
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    too_early = deployment.clock.now() - timedelta(minutes=20)
    found = await recover_from(restored.runtime, deployment.carrier, too_early)  # type: ignore[arg-type]
    assert found == Recovered(0, 0, 0, 0, 0)
    await restored.sound()


@pytest.mark.thorough
async def test_a_lost_text_that_did_not_arrive_costs_nothing(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    await deployment.script(JONAS, outcome="undelivered", error_code=30003)
    await shop.put_session("after", consent=TICKED, phone=JONAS, country="DE", locale="de")
    await deployment.outlast_a_cart()
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    found = await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    assert found == Recovered(texts=1)
    await restored.sound()


@pytest.mark.thorough
async def test_a_text_that_was_in_flight_when_the_backup_was_taken_is_paid_for_once(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    """Its credits are reserved in the backup; reconciliation asks the carrier, so that recovery need not charge it."""
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    await shop.put_session("in-flight", consent=TICKED, phone=RUTA)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    before = (await shop.merchant.credits())["available_credits"]
    attempts = (await dispatch_once(deployment.runtime)).attempts
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    await deployment.faults(lost_callback_rate=1)
    await deployment.send(attempts)
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    found = await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    assert found == Recovered(0, 0, 0, 0, 0)
    async with copy_of.transaction(OPERATOR) as conn:
        await settle_here(conn)
        await resume_deployment(conn)
    await restored.jump(minutes=31)
    await restored.sound()
    assert len(await deployment.phone_shows(RUTA)) == 1
    with psycopg.connect(copy_of.url) as owner:
        (balance,) = owner.execute("SELECT available_credits, state FROM org_sms_credit_balances, sms_messages")
    assert balance == (before - await cost_at_the_carrier(deployment, [RUTA]), "delivered")


@pytest.fixture
def elsewhere(tmp_path: Path, vault: Vault) -> Iterator[str]:
    """A database on a server of its own, as docs/operate.md makes it: the logins are there, and it is empty."""
    with embedded_postgres(tmp_path / "elsewhere", durable=False) as server:
        migrate(server.url, vault)
        with psycopg.connect(database_url(server.url, "postgres"), autocommit=True) as conn:
            conn.execute("DROP DATABASE cartwake")
            conn.execute("CREATE DATABASE cartwake")
        yield server.url


@pytest.mark.slow
async def test_a_backup_taken_under_load_goes_on_elsewhere_texts_nobody_twice_and_accounts_for_every_credit(
    deployment: Deployment, cartwake: Cartwake, fresh_url: str, elsewhere: str, vault: Vault, tmp_path: Path
) -> None:
    settled(fresh_url)
    shops = [await deployment.shop(name, credits=400) for name in ("Lino Namai", "Kalnapilis")]
    phones: list[str] = []

    async def minutes_of_trade(minutes: int) -> None:
        """Every minute two shoppers leave a cart at each shop, and whatever is due goes out."""
        for _ in range(minutes):
            for shop in shops * 2:
                phones.append(phone(len(phones)))
                await shop.put_session(f"cart-{len(phones)}", consent=TICKED, phone=phones[-1])
            await deployment.pass_time(minutes=1)

    async def types(*words: str) -> str:
        """What a command says at the new server; it must not fail. It is as late there as in the story."""
        VirtualClock.create(tmp_path / "clock", deployment.clock.now(), speed=1)
        environment = {
            "database_url": elsewhere,
            "twilio_api_base": deployment.sandbox.url,
            "clock": f"virtual:{tmp_path / 'clock'}",
        }
        said = await asyncio.to_thread(cartwake, *words, **environment)
        assert said.status == 0, said
        return said.out + said.err

    await minutes_of_trade(50)
    backup_at = deployment.clock.now()
    backup = asyncio.create_task(asyncio.to_thread(dump, fresh_url, tmp_path / "backup"))
    before = len(await texts_at_the_carrier(deployment))
    while not backup.done():
        await minutes_of_trade(1)
    assert len(await texts_at_the_carrier(deployment)) > before, "texts went out while the backup was taken"
    await backup
    await minutes_of_trade(10)
    await asyncio.to_thread(restore, tmp_path / "backup", elsewhere)

    await types("migrate")
    assert "restored from a backup, so sending is paused" in await types("doubts")
    there = Database(elsewhere, vault)
    restored = replace(deployment, runtime=replace(deployment.runtime, db=there), database_url=elsewhere)
    before = len(await texts_at_the_carrier(deployment))
    await restored.dispatch()
    assert len(await texts_at_the_carrier(deployment)) == before, "a restored deployment starts paused"
    too_early = backup_at - timedelta(minutes=20)  # what the backup knows about is not counted again
    told = await types("recover", too_early.isoformat())
    lost, marked = (int(found) for found in re.findall(r"(\d+) (?:texts went out|messages marked)", told))
    assert lost >= marked > 0 and "; 0 could not be" in told
    assert " 0 broken" in await types("audit")
    await types("resume")
    await restored.pass_time(hours=26)
    await restored.sound()
    assert " 0 broken" in await types("audit")

    texts = await texts_at_the_carrier(deployment)
    assert len(texts) > len(phones) / 2 and max(Counter(text["to"] for text in texts).values()) == 1
    with psycopg.connect(elsewhere) as owner:
        spent = owner.execute(
            "SELECT -sum(credits) FROM org_sms_credit_ledger WHERE entry_type IN ('SEND_RESERVE', 'SEND_REFUND')"
        ).fetchone()
    assert spent == (await cost_at_the_carrier(deployment, phones),), "what the carrier took is what was paid for"
    await there.close()


@pytest.mark.thorough
async def test_what_a_restored_balance_cannot_pay_is_said_and_taken_later(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    settled(fresh_url)
    merchant = await deployment.merchant(credits=0)
    await deployment.leave_credits(merchant, 1)
    shop = await merchant.shop("Lino Namai")
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    await merchant.add_credits(99)
    await shop.put_session("after", consent=TICKED, phone=RUTA)
    await deployment.outlast_a_cart()
    cost = await cost_at_the_carrier(deployment, [RUTA])
    assert cost > 1, "more than the backup's balance"
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    found = await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    assert (found.credits, found.unpaid_credits) == (0, cost)
    async with copy_of.transaction(OPERATOR) as conn:
        await adjust(conn, deployment.clock.now(), merchant.organization_id, 99, reference=None, note="bought again")
    again = await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    assert (again.credits, again.unpaid_credits) == (cost, 0)
    await restored.sound()


@pytest.mark.thorough
async def test_the_link_in_a_text_that_the_backup_never_saw_still_leads_to_the_cart(
    deployment: Deployment, fresh_url: str, copy_of: Database, tmp_path: Path
) -> None:
    settled(fresh_url)
    shop = await deployment.shop("Lino Namai")
    await shop.put_session("open", consent=TICKED, phone=RUTA)
    backup_at = deployment.clock.now()
    dump(fresh_url, tmp_path / "backup")
    await deployment.outlast_a_cart()
    (text,) = await deployment.phone_shows(RUTA)
    restore(tmp_path / "backup", copy_of.url)

    restored = replace(deployment, runtime=replace(deployment.runtime, db=copy_of))
    await recover_from(restored.runtime, deployment.carrier, backup_at)  # type: ignore[arg-type]
    app = create_app(restored.runtime, deployment.carrier)
    path = re.search(r"/r/\S+", text["body"])
    assert path is not None
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        answer = await http.get(path[0])
    assert answer.status_code == 302 and "step=cart_recovery_sms" in answer.headers["location"]


async def texts_at_the_carrier(deployment: Deployment) -> list[dict[str, str]]:
    """Every text that the carrier took, by its own record."""
    answer = await deployment.http.get(f"{deployment.sandbox.url}/sandbox/messages", params={"limit": 1000})
    found: list[dict[str, str]] = [each for each in answer.json()["messages"] if each["direction"] != "inbound"]
    return found


async def cost_at_the_carrier(deployment: Deployment, phones: Sequence[str]) -> int:
    """What the texts to these phones cost, reckoned from the carrier's record alone."""
    shown = [text for number in phones for text in await deployment.phone_shows(number)]
    return sum(price(measure(text["body"]).segments, country_of(text["to"])) for text in shown)


def test_a_database_that_never_moved_is_not_paused(db: Database, fresh_url: str, deployment: Deployment) -> None:
    settled(fresh_url)
    assert not pause_if_moved(db, deployment.clock.now())
