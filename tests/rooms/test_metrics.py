"""What a scraper sees: who may look, what is counted, and that no label can grow or name anybody."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from cartwake.carriers.protocol import Carrier
from cartwake.cluster import up_processes
from cartwake.jobs import periodic
from cartwake.kit import metrics
from cartwake.kit.clock import ManualClock
from cartwake.kit.config import ConfigError, load_settings
from cartwake.kit.config_listing import unknown_variables
from cartwake.kit.db import ENGINE, Database
from cartwake.kit.listen import CannotListenError
from cartwake.kit.metrics import Words, catalogue
from cartwake.kit.runtime import Runtime
from cartwake.messages.model import TRANSITIONS, Gate, Outcome
from cartwake.observe.carrier import ObservedCarrier
from cartwake.observe.exporter import DatabaseGauges, exporting
from cartwake.scheduler import TASKS, Task, check_invariants, run_due
from cartwake.web.app import create_app
from deployment import Deployment, leave_cart, plain_http
from ports import free_port
from world import AINO, JONAS, RUTA, TICKED, World

TOKEN = "a token for the scraper"
ROOT = Path(__file__).parents[2]

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read_page(text: str) -> Series:
    """A page's series by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    """A series' value; 0 while it has none."""
    return series.get(("cartwake_" + name, frozenset(labels.items())), 0.0)


def scraped(db: Database) -> Series:
    """What this process has counted."""
    return read_page(metrics.page("test", db, "")[0].decode())


async def gauges(runtime: Runtime) -> Series:
    """What the scheduler reads from the database now."""
    read = await DatabaseGauges(runtime).read()
    return read_page(metrics.page("test", runtime.db, "", read)[0].decode())


def with_settings(runtime: Runtime, **changed: Any) -> Runtime:
    return replace(runtime, settings=runtime.settings.model_copy(update=changed))


# --- who may look -----------------------------------------------------------------------------------


async def test_the_public_port_has_no_metrics_whatever_is_set(runtime: Runtime, carrier: Carrier) -> None:
    app = create_app(with_settings(runtime, metrics_token=SecretStr(TOKEN), metrics_port=9464), carrier)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
            answer = await http.get("/metrics", headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/no-such-address")


async def test_with_a_token_only_its_bearer_sees_them(runtime: Runtime) -> None:
    watched = with_settings(runtime, metrics_port=free_port(), metrics_token=SecretStr(TOKEN))
    async with (
        exporting(watched, "web") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        for wrong in (None, "", TOKEN, "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}"):
            answer = await http.get("/metrics", headers={} if wrong is None else {"Authorization": wrong})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "cartwake_" not in answer.text
        answer = await http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert ("cartwake_build_info", frozenset({("version", "0.1.0"), ("process", "web")})) in read_page(answer.text)
        asked = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/openmetrics-text; version=1.0.0"}
        openmetrics = await http.get("/metrics", headers=asked)
        assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
        assert openmetrics.text.endswith("# EOF\n")


async def test_a_process_serves_them_on_a_port_of_their_own(runtime: Runtime) -> None:
    port = free_port()
    watched = with_settings(runtime, metrics_port=port, metrics_token=SecretStr(TOKEN))
    async with exporting(watched, "scheduler", DatabaseGauges(watched).read) as serving, plain_http() as http:
        assert serving == port
        assert (await http.get(f"http://127.0.0.1:{port}/metrics")).status_code == 401
        strange = await http.get(f"http://127.0.0.1:{port}/metrics", headers={b"Authorization": b"Bearer \xff\xfe"})
        assert strange.status_code == 401
        answer = await http.get(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert value(read_page(answer.text), "gauges_read", group="queue") == 1
        assert (await http.get(f"http://127.0.0.1:{port}/")).status_code == 404


async def test_a_taken_port_is_said_clearly(runtime: Runtime) -> None:
    port = free_port()
    async with exporting(with_settings(runtime, metrics_port=port), "worker"):
        with pytest.raises(CannotListenError, match=f"Port {port} of 127.0.0.1 is in use.*CARTWAKE_METRICS_PORT"):
            async with exporting(with_settings(runtime, metrics_port=port), "scheduler"):
                pass


async def test_by_default_no_port_is_opened(runtime: Runtime) -> None:
    async with exporting(runtime, "worker") as port:
        assert port == 0


def test_settings_that_would_show_metrics_to_the_world_are_refused() -> None:
    with pytest.raises(ConfigError, match="CARTWAKE_METRICS_TOKEN: must be set"):
        load_settings(metrics_port=9464, metrics_host="0.0.0.0")
    with pytest.raises(ConfigError, match="CARTWAKE_METRICS_TOKEN: must have at least 16 characters"):
        load_settings(metrics_token="short")
    assert load_settings(metrics_port=9464).metrics_host == "127.0.0.1"
    assert load_settings(metrics_port=9464, metrics_host="0.0.0.0", metrics_token=TOKEN)


# --- what is counted --------------------------------------------------------------------------------


async def test_requests_are_counted_by_route_never_by_address(world: World, db: Database) -> None:
    before = scraped(db)
    shop = await world.shop()
    await shop.put_session("cart-of-ruta")
    await world.http.get("/r/AAAAAAAAAAAAAAAAAAAAAAAA")
    await world.http.get(f"/no/such/page/{RUTA}")
    await world.http.request("BREW", "/healthz")
    await world.carrier_posts("/hooks/twilio/inbound", {"From": RUTA}, signature="forged")
    after = scraped(db)

    def more(route: str, method: str, status: str) -> float:
        labels = {"route": route, "method": method, "status": status}
        return value(after, "http_requests_total", **labels) - value(before, "http_requests_total", **labels)

    assert more("/v1/checkout-sessions/{external_id}", "PUT", "2xx") == 1
    assert more("/r/{token}", "GET", "4xx") == 1
    assert more("unmatched", "GET", "4xx") == 1
    assert more("/healthz", "other", "4xx") == 1
    assert more("/hooks/twilio/inbound", "POST", "4xx") == 1
    assert value(after, "db_pool_connections", login="cartwake_web", state="idle") >= 1
    known = {route.path for route in world.app.routes if hasattr(route, "path")} | {"unmatched"}
    assert {dict(labels)["route"] for (name, labels) in after if name == "cartwake_http_requests_total"} <= known


async def test_a_day_is_counted_by_outcome_country_gate_and_answer(deployment: Deployment) -> None:
    db, observed = deployment.runtime.db, ObservedCarrier(deployment.carrier)
    before = scraped(db)
    shop = await deployment.shop("Lino Namai", credits=500)
    await deployment.script(JONAS, outcome="rejected", error_code=21211)
    await deployment.script(AINO, outcome="undelivered", error_code=30003)
    for number, phone in enumerate((RUTA, AINO, JONAS)):
        await shop.put_session(f"cart-{number}", consent=TICKED, phone=phone)
    await shop.put_session("cart-without-consent", phone=RUTA)
    for _ in range(10):
        deployment.clock.advance(minutes=5)
        await deployment.work(carrier=observed)
    after = scraped(db)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("texts_total", outcome="delivered", country="LT") == 1
    assert more("texts_total", outcome="undelivered", country="FI") == 1
    assert more("texts_total", outcome="rejected", country="DE") == 1
    assert more("texts_total", outcome="accepted", country="LT") == 1
    assert more("texts_total", outcome="accepted", country="DE") == 0
    assert more("carrier_answers_total", call="send", answer="rejected", error_class="recipient_permanent") == 1
    assert more("carrier_answers_total", call="send", answer="accepted", error_class="") == 2
    assert more("carrier_call_seconds_count", call="send") == 3
    assert more("text_start_lateness_seconds_count") == 3
    assert more("text_start_lateness_seconds_bucket", le="300.0") == 3, "claimed within the scan's five minutes"
    assert more("decisions_total", gate="schedule", outcome="schedule", reason="scheduled") == 3
    assert more("decisions_total", gate="schedule", outcome="refuse", reason="no_consent") == 1
    assert more("decisions_total", gate="carrier", outcome="send", reason="all_gates_passed") == 3
    assert more("decisions_total", gate="carrier", outcome="drop", reason="carrier_recipient_permanent") == 1
    assert more("carrier_events_total", kind="status", result="applied") >= 2
    assert more("carrier_event_lag_seconds_count", kind="status") >= 2
    assert more("task_runs_total", task="abandonment_scan", result="done") == 10


@pytest.mark.thorough
async def test_texts_of_dead_workers_and_lost_receipts_are_counted_too(deployment: Deployment) -> None:
    db, before = deployment.runtime.db, scraped(deployment.runtime.db)
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.faults(error_after_rate=1.0, lost_callback_rate=1.0)
    await deployment.outlast_a_cart()
    await deployment.faults(lost_callback_rate=1.0)
    await deployment.pass_time(minutes=10)
    await deployment.jump(hours=73)
    after = scraped(db)
    for outcome in ("unknown", "accepted"):
        found = value(after, "texts_total", outcome=outcome, country="LT")
        assert found - value(before, "texts_total", outcome=outcome, country="LT") == 1, outcome


async def test_a_text_goes_out_even_when_counting_fails(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_cart(await deployment.shop())
    for metric in (metrics.TEXTS, metrics.DECISIONS, metrics.EVENTS):
        monkeypatch.setattr(metric, "labels", None)
    await deployment.outlast_a_cart()
    (text,) = await deployment.phone_shows(RUTA)
    assert text["status"] == "delivered"


def test_up_gives_each_process_a_port_of_its_own() -> None:
    def ports(metrics_port: int) -> list[str]:
        started = up_processes(8080, metrics_port)
        return [f"{each.name} {each.environment['CARTWAKE_METRICS_PORT']}" for each in started]

    assert ports(9464) == ["web 9466", "worker 9464", "scheduler 9465"]
    assert ports(0) == ["web 0", "worker 0", "scheduler 0"]


# --- what is read from the database -----------------------------------------------------------------


@pytest.mark.thorough
async def test_replies_that_a_shop_has_not_taken_are_shown(deployment: Deployment) -> None:
    shop = await deployment.shop("Lino Namai")
    await shop.call("PUT", "/v1/reply-webhook", {"url": f"http://127.0.0.1:{free_port()}/replies"})
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    assert value(await gauges(deployment.runtime), "outbox_waiting") == 0
    await deployment.reply(RUTA, "Is it still in stock?")
    assert value(await gauges(deployment.runtime), "outbox_waiting") == 1


async def test_the_scheduler_shows_what_waits_and_what_is_wrong(deployment: Deployment, fresh_url: str) -> None:
    runtime, clock = deployment.runtime, deployment.clock
    poor = await deployment.shop("Lino Namai", credits=21, low_credits_at=119)  # and PRO's 100 a month
    await deployment.shop("Vilnos Pasaulis", credits=5000)
    await deployment.shop("Free Riders", plan="FREE", credits=0)
    await deployment.work()
    await leave_cart(poor)
    calm = await gauges(runtime)
    assert value(calm, "organizations_low_on_credits") == 0
    assert value(calm, "sessions_to_scan") == 0

    clock.advance(minutes=31)
    assert value(await gauges(runtime), "sessions_to_scan") == 1
    await run_due(runtime, deployment.carrier)
    assert value(await gauges(runtime), "messages_waiting", state="scheduled") == 1
    clock.advance(minutes=15)
    late = await gauges(runtime)
    assert value(late, "messages_waiting", state="due") == 1
    assert value(late, "queue_behind_seconds") == 60
    assert value(late, "task_overdue_seconds", task="abandonment_scan") == 660, "it was due five minutes after 08:45"

    await deployment.faults(error_after_rate=1.0)
    await deployment.dispatch()
    await deployment.receipts(poor, "sent")
    clock.advance(minutes=2)
    sent = await gauges(runtime)
    assert value(sent, "texts_in_flight", state="unknown") == 1
    assert value(sent, "reservations_open") == 1 and value(sent, "reservations_stale") == 0
    assert value(sent, "inbox_waiting", kind="status") >= 1 and value(sent, "inbox_behind_seconds") == 120
    assert value(sent, "organizations_low_on_credits") == 1, "two credits of 121 are reserved"
    clock.advance(hours=1)
    assert value(await gauges(runtime), "reservations_stale") == 1
    await deployment.settle()

    path = f"/v1/organizations/{poor.merchant.organization_id}/shops/{poor.shop_id}/kill-switch"
    await deployment.world.operator.call("PUT", path)
    paused = await gauges(runtime)
    assert value(paused, "shops_paused") == 1 and value(paused, "deployment_paused") == 0
    await deployment.world.operator.api("DELETE", path)


async def test_a_broken_invariant_and_a_failing_task_show_on_every_scheduler(
    world: World, runtime: Runtime, clock: ManualClock, carrier: Carrier, fresh_url: str
) -> None:
    await world.shop()
    await check_invariants(runtime, carrier)
    clock.advance(minutes=7)
    sound = await gauges(runtime)
    assert value(sound, "invariant_broken_rows", invariant="ledger_chains") == 0
    assert ("cartwake_invariant_broken_rows", frozenset({("invariant", "ledger_chains")})) in sound
    assert value(sound, "invariants_checked_age_seconds") == 420
    with psycopg.connect(fresh_url, autocommit=True) as owner:
        owner.execute("SET row_security = off")
        owner.execute("UPDATE org_sms_credit_balances SET available_credits = available_credits + 1")
    await check_invariants(runtime, carrier)
    assert value(await gauges(runtime), "invariant_broken_rows", invariant="balance_is_the_ledgers_sum") == 1

    async def fail(_runtime: Runtime, _carrier: Carrier) -> None:
        raise ValueError(RUTA)

    failing = Task("abandonment_scan", "*/5 * * * *", fail)
    async with runtime.db.transaction(ENGINE) as conn:
        await periodic.enrol(conn, clock.now(), [task.name for task in TASKS])
    await run_due(runtime, carrier, [failing])
    seen = await gauges(runtime)
    assert value(seen, "task_failing", task="abandonment_scan") == 1
    assert value(seen, "task_failing", task="stale_sweep") == 0
    assert value(seen, "task_last_run_age_seconds", task="abandonment_scan") == 0


async def test_many_scrapes_are_one_reading(world: World, runtime: Runtime, clock: ManualClock) -> None:
    reader = DatabaseGauges(runtime)
    await asyncio.gather(*(reader.read() for _ in range(20)))
    shop = await world.shop()
    await shop.put_session(consent=TICKED)
    clock.advance(minutes=31)
    kept = metrics.families(await reader.read())
    (sessions,) = [family for family in kept if family.name == "cartwake_sessions_to_scan"]
    assert sessions.samples[0].value == 0, "read a moment ago, and kept"
    assert value(await gauges(runtime), "sessions_to_scan") == 1


async def test_what_cannot_be_read_is_left_out(runtime: Runtime, fresh_url: str) -> None:
    with psycopg.connect(fresh_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE carrier_events RENAME TO elsewhere")
    seen = await gauges(runtime)
    assert value(seen, "gauges_read", group="inbox") == 0 and value(seen, "gauges_read", group="queue") == 1
    assert not [name for name, _ in seen if name.startswith("cartwake_inbox")]
    assert ("cartwake_messages_waiting", frozenset({("state", "due")})) in seen


@pytest.mark.thorough
async def test_a_slow_or_absent_database_does_not_hold_a_scrape(
    runtime: Runtime, fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cartwake.observe.exporter.QUERY_LIMIT_MS", 50)
    with psycopg.connect(fresh_url) as owner:
        owner.execute("LOCK TABLE sms_messages IN ACCESS EXCLUSIVE MODE")
        locked = await gauges(runtime)
    assert value(locked, "gauges_read", group="queue") == 0 and value(locked, "gauges_read", group="tasks") == 1
    monkeypatch.setattr("cartwake.observe.exporter.READ_WITHIN_S", 0.2)
    nowhere = Database("postgresql://127.0.0.1:9/nothing", runtime.vault)
    away = await gauges(replace(runtime, db=nowhere))
    await nowhere.close()
    assert {number for (name, _), number in away.items() if name == "cartwake_gauges_read"} == {0}


# --- labels -----------------------------------------------------------------------------------------


def test_a_label_is_a_word_of_the_code_or_other() -> None:
    word = Words(most=3)
    for strange in (RUTA, RUTA[1:], "370 612 34567", "the carrier's error 12345", "TimeoutError", "", "a" * 60, "x\n"):
        assert word(strange) == "other"
    assert [word(each) for each in ("stale", "sms_disabled", "invalid-phone", "one_more", "stale")] == [
        "stale",
        "sms_disabled",
        "invalid-phone",
        "other",
        "stale",
    ]
    assert [metrics.country_label(each) for each in ("LT", "XX", "", None, "370")] == ["LT", *["other"] * 4]


async def test_no_label_names_a_tenant_and_every_value_is_of_a_bounded_set(deployment: Deployment) -> None:
    shop = await deployment.shop("Lino Namai")
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    read = await DatabaseGauges(deployment.runtime).read()
    series = read_page(metrics.page("test", deployment.runtime.db, "", read)[0].decode())
    allowed: Mapping[str, Set[str]] = {
        "gate": set(map(str, Gate)),
        "outcome": set(map(str, Outcome)) | set(map(str, TRANSITIONS)),
        "country": metrics.COUNTRIES | {"other"},
        "method": metrics.METHODS | {"other"},
    }
    secrets = (str(shop.shop_id), str(shop.merchant.organization_id), "Lino", RUTA[1:])
    for name, labels in series:
        for label, text in labels:
            assert label not in ("organization", "organization_id", "shop", "shop_id", "message_id", "phone")
            assert text in allowed.get(label, {text}), (name, label, text)
            assert not any(secret in text for secret in secrets)


# --- documents --------------------------------------------------------------------------------------


BOARD = ROOT / "docs" / "observe" / "cartwake-board.json"
ALERTS = ROOT / "docs" / "observe" / "cartwake-alerts.yml"
NAMED = re.compile(r"\b(?:cartwake|process)_[a-z_]+\b")
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}


def known_series() -> set[str]:
    """Every name that a query may use."""
    names = set(PROCESS)
    for name, (kind, _) in catalogue().items():
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def panels_of(board: Any) -> list[Any]:
    return [inner for panel in board["panels"] for inner in (panel, *panel.get("panels", []))]


def test_the_board_asks_only_for_metrics_that_exist_and_misses_none() -> None:
    board = json.loads(BOARD.read_text())
    panels = panels_of(board)
    ids = [panel["id"] for panel in panels]
    assert len(ids) == len(set(ids)) and all(panel["title"] for panel in panels)
    asked = {name for panel in panels for query in panel.get("targets", ()) for name in NAMED.findall(query["expr"])}
    assert asked <= known_series(), asked - known_series()
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in catalogue() else name for name in asked}
    assert set(catalogue()) - shown == set(), "a metric that is on no board is looked at by nobody"


def test_the_alerts_ask_only_for_metrics_and_labels_that_exist() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]  # type: ignore[no-untyped-call]
    page = (ROOT / "docs" / "observe.md").read_text()
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) >= 20
    for rule in group["rules"]:
        assert set(NAMED.findall(rule["expr"])) <= known_series(), rule["alert"]
        for name, matchers in re.findall(r"(cartwake_\w+)\{([^}]*)\}", rule["expr"]):
            labels = catalogue()[name if name in catalogue() else re.sub(r"_(bucket|sum|count)$", "", name)][1]
            assert {matcher.split("=")[0].strip("!~ ") for matcher in matchers.split(",")} <= set(labels), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"] and rule["annotations"]["runbook"] == "docs/observe.md#alerts"
        assert f"| `{rule['alert']}` |" in page, f"docs/observe.md does not say what to do about {rule['alert']}"


def test_the_page_explains_every_metric_and_names_no_other() -> None:
    page = (ROOT / "docs" / "observe.md").read_text()
    assert set(NAMED.findall(page)) - known_series() - set(catalogue()) == set()
    assert {name for name in catalogue() if f"`{name}`" not in page} == set()


def test_the_page_explains_every_event_that_is_logged() -> None:
    page = (ROOT / "docs" / "observe.md").read_text()
    source = "\n".join(file.read_text() for file in (ROOT / "src" / "cartwake").rglob("*.py"))
    logged = re.findall(r"log(?:ger\(\))?\.\w+\(\s*(?:level, )?\"([a-z_]+\.[a-z_]+)\"", source)
    assert len(logged) >= 20 and {event for event in logged if f"`{event}`" not in page} == set()


def test_settings_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "observe.md").read_text()
    named = set(re.findall(r"CARTWAKE_[A-Z_]+", page))
    assert unknown_variables(named) == {}
    assert {"CARTWAKE_METRICS_PORT", "CARTWAKE_METRICS_HOST", "CARTWAKE_METRICS_TOKEN"} <= named
