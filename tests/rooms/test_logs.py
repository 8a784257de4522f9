"""Log lines: whose request, task or message they are about, and what they tell of an error and what not."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import structlog

from cartwake.carriers.protocol import Carrier
from cartwake.jobs import periodic
from cartwake.jobs.text_job import Timed
from cartwake.kit.config import Settings
from cartwake.kit.db import ENGINE, WEB
from cartwake.kit.logs import LibraryLines, configure_logs, describe_error, redact_phones
from cartwake.kit.runtime import Runtime
from cartwake.messages.inbox import store_events
from cartwake.scheduler import Task, run_due
from cartwake.worker import deliver, dispatch_once, run_worker
from deployment import Deployment, failing, leave_cart
from world import RUTA, World

Lines = Callable[[], list[dict[str, Any]]]
DIGITS = RUTA[1:]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """What was logged since it was last asked."""
    excepthook, last_resort = sys.excepthook, logging.lastResort
    configure_logs(Settings(log_level="debug", log_format="json"))
    capfd.readouterr()
    yield lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    structlog.reset_defaults()
    sys.excepthook, logging.lastResort = excepthook, last_resort


# --- whose line it is -------------------------------------------------------------------------------


async def test_each_line_of_a_request_says_which_and_whose(world: World, lines: Lines, fresh_url: str) -> None:
    shop = await world.shop()
    mine = {"organization_id": str(shop.merchant.organization_id), "shop_id": str(shop.shop_id)}
    lines()
    await shop.api("PUT", "/v1/checkout-sessions/cart-1", {}, headers={"X-Request-Id": "order-77"})
    (line,) = lines()
    assert line | mine | {"request_id": "order-77", "route": "/v1/checkout-sessions/{external_id}"} == line

    with psycopg.connect(fresh_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE checkout_sessions ADD CONSTRAINT no_such_place CHECK (province <> 'Nowhere')")
    answer = await shop.api("PUT", "/v1/checkout-sessions/cart-2", {"province": "Nowhere"})
    failed, answered = lines()
    assert failed | mine == failed and answered | mine == answered
    assert failed["request_id"] == answered["request_id"] == answer.headers["x-request-id"]
    assert (failed["event"], failed["error"], failed["sqlstate"]) == ("request.failed", "CheckViolation", "23514")
    assert failed["constraint"] == "no_such_place" and failed["endpoint"] == "put_session"

    await shop.merchant.api("GET", "/v1/credits")
    await world.stranger().api("GET", "/v1/credits")
    merchants, strangers = lines()
    assert merchants["organization_id"] == mine["organization_id"] and "shop_id" not in merchants
    assert not {"organization_id", "shop_id"} & set(strangers), "nothing is left of the request before"


async def test_the_operators_requests_say_whom_they_are_about(world: World, lines: Lines) -> None:
    shop = await world.shop()
    base = f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}"
    lines()
    await world.operator.api("PUT", f"{base}/kill-switch")
    await world.operator.api("PUT", f"/v1/organizations/{DIGITS}/shops/{RUTA}/kill-switch")
    known, nonsense = lines()
    assert (known["organization_id"], known["shop_id"]) == (str(shop.merchant.organization_id), str(shop.shop_id))
    assert not {"organization_id", "shop_id"} & set(nonsense) and DIGITS not in json.dumps(nonsense)


async def test_a_tapped_link_says_whose_it_is_and_not_which(deployment: Deployment, lines: Lines) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    (text,) = await deployment.phone_shows(RUTA)
    address = next(word for word in text["body"].split() if "/r/" in word)
    lines()
    await deployment.tap(address)
    (line,) = lines()
    assert line["route"] == "/r/{token}" and line["shop_id"] == str(shop.shop_id)
    assert address.rpartition("/")[2] not in json.dumps(line)


@pytest.mark.parametrize("given", [DIGITS, "370-612-34567", "8.612.34567", "_37061234567"])
async def test_a_phone_is_no_request_id(world: World, lines: Lines, given: str) -> None:
    answer = await world.http.get("/healthz", headers={"X-Request-Id": given})
    (line,) = lines()
    assert answer.headers["x-request-id"] == line["request_id"] != given
    assert (await world.http.get("/healthz", headers={"X-Request-Id": "1234567890123456789"})).headers[
        "x-request-id"
    ] == "1234567890123456789", "a number that is no phone's"


async def test_a_scheduler_s_lines_carry_the_task_and_only_while_it_runs(
    runtime: Runtime, carrier: Carrier, lines: Lines
) -> None:
    async def work(_runtime: Runtime, _carrier: Carrier) -> None:
        structlog.get_logger().info("test.inside")
        raise ValueError(RUTA)

    task = Task("plan_refills", "* * * * *", work)
    async with runtime.db.transaction(ENGINE) as conn:
        await periodic.enrol(conn, runtime.clock.now(), [task.name])
    await run_due(runtime, carrier, [task])
    structlog.get_logger().info("test.outside")
    inside, failed, outside = lines()
    assert inside["task"] == failed["task"] == "plan_refills" and "task" not in outside
    assert (failed["event"], failed["error"]) == ("scheduler.task_failed", "ValueError")
    assert any("test_logs.py:" in place for place in failed["at"])
    assert DIGITS not in json.dumps(failed)


async def test_a_worker_s_lines_carry_the_messages_and_events(
    deployment: Deployment, lines: Lines, fresh_url: str
) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    deployment.clock.advance(minutes=46)
    await run_due(deployment.runtime, deployment.carrier)
    (message,) = await deployment.messages(shop)
    claimed = await dispatch_once(deployment.runtime)
    with failing(fresh_url, "sms_messages", f"{RUTA} {DIGITS}"):
        lines()
        await deliver(deployment.runtime, deployment.carrier, claimed.attempts)
    (failed,) = [line for line in lines() if line["event"] == "worker.results_not_recorded"]
    assert failed["message_ids"] == [str(message["message_id"])]
    assert failed["sqlstate"] == "23514" and DIGITS not in json.dumps(failed)

    async with deployment.runtime.db.transaction(WEB) as conn:
        await store_events(conn, deployment.runtime.moment(), [("status", {"sid": "SM1", "status": RUTA + DIGITS})])
    await deployment.settle()
    (event,) = await deployment.rows("SELECT event_id FROM carrier_events WHERE outcome = 'unreadable'")
    said = lines()
    assert [line["event_id"] for line in said if line["event"] == "worker.event_set_aside"] == [str(event["event_id"])]
    assert [line["message_id"] for line in said if line["event"] == "message.reported"][:1] == [
        str(message["message_id"])
    ]
    assert DIGITS not in json.dumps(said)


@pytest.mark.thorough
async def test_a_worker_whose_loop_fails_tells_where_and_goes_on(
    deployment: Deployment, lines: Lines, fresh_url: str
) -> None:
    class Impatient:
        """Looks again at once."""

        async def wait(self, *_: object) -> None:
            await asyncio.sleep(0)

        async def put(self, due: Sequence[Timed]) -> None: ...

        async def close(self) -> None: ...

    shop = await deployment.shop()
    await leave_cart(shop)
    deployment.clock.advance(minutes=46)
    await run_due(deployment.runtime, deployment.carrier)
    said: list[dict[str, Any]] = []
    stop = asyncio.Event()
    async with asyncio.timeout(30):
        with failing(fresh_url, "sms_messages", f"{RUTA} {DIGITS}"):
            worker = asyncio.create_task(run_worker(deployment.runtime, deployment.carrier, Impatient(), stop))
            while not [line for line in said if line["event"] == "worker.loop_failed"]:
                await asyncio.sleep(0.01)
                said += lines()
        while (await deployment.messages(shop))[0]["state"] not in ("accepted", "sent", "delivered"):
            await asyncio.sleep(0.01)
        stop.set()
        await worker
    failed = next(line for line in said if line["event"] == "worker.loop_failed")
    assert (failed["loop"], failed["error"], failed["sqlstate"]) == ("dispatch", "CheckViolation", "23514")
    assert DIGITS not in json.dumps(said)


# --- what is told of an error -----------------------------------------------------------------------


def test_an_error_is_told_without_its_words() -> None:
    try:
        try:
            int(RUTA + "x")
        except ValueError as cause:
            raise ExceptionGroup(RUTA, [KeyError(RUTA), RuntimeError(RUTA)]) from cause
    except ExceptionGroup as error:
        told = describe_error(error)
    assert told["error"] == "ExceptionGroup" and told["inside"] == ["KeyError", "RuntimeError"]
    assert told["causes"] == ["ValueError"] and DIGITS not in json.dumps(told)


async def test_what_libraries_say_comes_out_without_what_filled_it(lines: Lines) -> None:
    library = logging.getLogger("some.library")
    library.propagate = False  # as in a process, where nobody has set up a handler
    library.addHandler(LibraryLines(logging.WARNING))
    library.info("not loud enough")
    library.warning("cannot read %r of %s", DIGITS, RUTA)
    try:
        raise ValueError(DIGITS)
    except ValueError:
        library.exception("Task exception was never retrieved\nfuture: <Task exception=ValueError(%s)>", DIGITS)
    warned, failed = lines()
    assert warned | {"event": "library.said", "library": "some.library", "level": "warning"} == warned
    assert warned["said"] == "cannot read %r of %s"
    assert (failed["level"], failed["said"]) == ("error", "Task exception was never retrieved")
    assert failed["error"] == "ValueError" and DIGITS not in json.dumps([warned, failed])


@pytest.mark.thorough
def test_the_last_words_of_a_process_are_told_the_same_way() -> None:
    program = (
        "import asyncio, logging\n"
        "from cartwake.kit.config import Settings\n"
        "from cartwake.kit.logs import configure_logs\n"
        "configure_logs(Settings(log_format='json'))\n"
        f"async def lost(): raise ValueError('{DIGITS}')\n"
        "async def main():\n"
        "    task = asyncio.ensure_future(lost()); await asyncio.sleep(0); del task\n"
        f"    logging.getLogger('aiohttp.server').error('bad request from %s', '{DIGITS}')\n"
        f"    raise KeyError('{RUTA}')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and DIGITS not in done.stderr + done.stdout
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["event"] for line in said} == {"library.said", "process.failed"}
    assert {line.get("library") for line in said} == {"asyncio", "aiohttp.server", None}
    assert said[-1] | {"level": "critical", "error": "KeyError"} == said[-1]


def test_the_fence_reaches_into_lists_and_dicts(lines: Lines) -> None:
    structlog.get_logger().error("test.nested", found=[{"to": RUTA}, ("%2b" + DIGITS,)], n=7)
    (line,) = lines()
    assert (line["found"], line["n"]) == ([{"to": "[phone]"}, ["[phone]"]], 7)


def test_the_fence_leaves_times_and_ids_readable() -> None:
    line = {"event": "x", "at": "2026-11-24T08:53:47+00:00", "id": "01a20cb3-3ec9-7fb2-874e-e2c9bb71e77e", "n": "+370"}
    assert redact_phones(None, "info", dict(line)) == line
