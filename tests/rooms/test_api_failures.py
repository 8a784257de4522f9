"""What holds when things go wrong: durable answers, failures that tell nothing, health, and the API's description."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import structlog
from starlette.types import Message
from structlog.testing import capture_logs

from cartwake.kit.db import ENGINE, Database, rows
from cartwake.kit.runtime import Runtime
from deployment import serving
from ports import free_port
from world import TICKED, World, cart

PATH = "/v1/checkout-sessions/cart-1"


@pytest.fixture
def log_lines() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as lines:
        yield lines


async def test_what_is_answered_2xx_is_already_committed(world: World) -> None:
    shop = await world.shop()
    body = json.dumps(cart(consent=TICKED)).encode()
    seen: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 201
            async with world.runtime.db.transaction(ENGINE) as conn:
                seen.append(len(await rows(conn, "SELECT 1 FROM consent_events")))

    headers = [(b"authorization", f"Bearer {shop.key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "PUT", "path": PATH, "raw_path": PATH.encode(), "headers": headers}
    await world.app(scope | {"query_string": b"", "http_version": "1.1", "scheme": "http"}, receive, send)
    assert seen == [1]


async def test_a_commit_that_fails_is_no_success(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full'; END $$;"
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON checkout_sessions DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    answer = await shop.api("PUT", PATH, cart())
    assert answer.status_code == 500
    assert (await shop.api("GET", PATH)).status_code == 404


async def test_a_failure_tells_the_operator_where_and_nobody_what(
    world: World, fresh_url: str, log_lines: list[Any]
) -> None:
    shop = await world.shop()
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute("ALTER TABLE checkout_sessions ADD CHECK (province <> '+37061234567')")
    answer = await shop.api("PUT", PATH, cart(province="+37061234567"), headers={"X-Request-Id": "order-77.a"})
    assert answer.status_code == 500 and answer.headers["x-request-id"] == "order-77.a"
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "/problems/internal-error" and "order-77.a" in problem["detail"]
    (line,) = [line for line in log_lines if line["event"] == "request.failed"]
    assert (line["request_id"], line["endpoint"], line["sqlstate"]) == ("order-77.a", "put_session", "23514")
    assert "61234567" not in json.dumps(log_lines) and "61234567" not in answer.text


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 65, "a\tb", "ąž"])
async def test_every_answer_has_a_request_id(world: World, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given.encode()}
    for path in ("/healthz", "/nowhere", "/v1/shops"):
        answer = await world.http.get(path, headers=headers)  # type: ignore[arg-type]
        request_id = answer.headers["x-request-id"]
        assert len(request_id) == 32 and request_id.isalnum()
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.thorough
async def test_a_database_that_is_away_is_told_as_such(world: World, runtime: Runtime, log_lines: list[Any]) -> None:
    shop = await world.shop()
    nowhere = f"postgresql://127.0.0.1:{free_port()}/cartwake?connect_timeout=1"
    away = Runtime(runtime.settings, runtime.clock, runtime.ids, runtime.vault, Database(nowhere, runtime.vault))
    world.app.state.runtime = away
    async with asyncio.timeout(60):
        ready = await world.http.get("/readyz")
        alive = await world.http.get("/healthz")
    await away.db.close()
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert ready.headers["content-type"] == "application/problem+json"
    assert shop.key


async def test_ready_means_that_the_schema_is_current_or_newer(world: World, fresh_url: str) -> None:
    assert (await world.http.get("/readyz")).json() == {"status": "ok", "schema": "0001"}
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute("UPDATE alembic_version SET version_num = '0000'")
        answer = await world.http.get("/readyz")
        assert answer.status_code == 503 and answer.json()["type"] == "/problems/schema-not-current"
        await owner.execute("UPDATE alembic_version SET version_num = '9999'")  # an upgrade is rolling
        assert (await world.http.get("/readyz")).status_code == 200


async def test_a_deadlock_is_worth_trying_again(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute(
            "CREATE FUNCTION deadlock() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END $$;"
            "CREATE TRIGGER deadlock BEFORE INSERT ON checkout_sessions FOR EACH ROW EXECUTE FUNCTION deadlock()"
        )
    answer = await shop.api("PUT", PATH, cart())
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert answer.json()["type"] == "/problems/try-again"


async def test_every_operation_documents_every_way_to_fail(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    operations = [
        (path, method, operation) for path, each in document["paths"].items() for method, operation in each.items()
    ]
    assert len(operations) > 20
    for path, method, operation in operations:
        documented = set(operation["responses"])
        always = {"400", "401", "403", "413", "500", "503"}
        assert always | ({"404", "422"} if "{" in path else set()) <= documented, (method, path)
        assert "422" not in documented or "parameters" in operation or "requestBody" in operation, (method, path)
        assert ("415" in documented) == ("requestBody" in operation), (method, path)
        assert operation["description"] and operation["security"]
        for status in documented - {"200", "201", "204"}:
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    text = json.dumps(document)
    assert "#/components/schemas/Problem" in text and "HTTPValidationError" not in text
    for name in ("Problem", "FieldProblem"):
        assert name in document["components"]["schemas"]


async def test_a_real_server_refuses_ten_megabytes_without_a_length(world: World) -> None:
    shop = await world.shop()
    port = free_port()
    async with serving(world.app, f"http://127.0.0.1:{port}"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shop.key}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        for _ in range(160):
            writer.write(chunk)
            await writer.drain()
        assert (await asyncio.wait_for(answer, 10)).startswith(b"HTTP/1.1 413 ")
        writer.close()
