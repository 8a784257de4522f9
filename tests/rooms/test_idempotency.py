"""A POST that is sent again is not done again: whatever dies in between, and however many are sent at once."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from starlette.types import Message

from cartwake.carriers.protocol import Carrier
from cartwake.carts.links import RecoveryClaim, sign_recovery_token
from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE, OPERATOR, rows
from cartwake.kit.runtime import Runtime
from cartwake.messages.schedule import scan
from cartwake.scheduler import TASKS
from world import AINO, RUTA, TICKED, Caller, ShopClient, World

ORGANIZATION = {"name": "Lino Namai", "plan": "PRO"}
REPLAYED = "idempotent-replayed"


def key(name: str = "order-1") -> dict[str, str]:
    return {"Idempotency-Key": name}


async def organizations(world: World) -> int:
    async with world.runtime.db.transaction(OPERATOR) as conn:
        return len(await rows(conn, "SELECT 1 FROM organizations"))


async def answers_kept(world: World) -> int:
    async with world.runtime.db.transaction(ENGINE) as conn:
        found = await rows(
            conn,
            "SELECT created_at FROM idempotent_answers UNION ALL SELECT created_at FROM operator_idempotent_answers",
        )
    return len(found)


async def post_organization(world: World, name: str = "order-1", **changes: Any) -> httpx.Response:
    return await world.operator.api("POST", "/v1/organizations", ORGANIZATION | changes, headers=key(name))


async def test_the_same_request_gets_the_same_answer(world: World) -> None:
    first = await post_organization(world)
    again = await post_organization(world)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content and "api_key" in first.json()
    assert REPLAYED not in first.headers and again.headers[REPLAYED] == "true"
    assert first.headers["content-type"] == again.headers["content-type"]
    assert await organizations(world) == 1


async def test_another_request_with_the_key_is_refused(world: World) -> None:
    first = await post_organization(world)
    path = f"/v1/organizations/{first.json()['organization_id']}/credit-adjustments"
    for other in (
        await post_organization(world, plan="FREE"),
        await world.operator.api("POST", path, {"credits": 1, "note": "x"}, headers=key()),
        await world.operator.api("POST", "/v1/organizations?", ORGANIZATION | {"name": "x"}, headers=key()),
    ):
        assert other.status_code == 409 and other.json()["type"] == "/problems/idempotency-key-reused", other.text
    assert await organizations(world) == 1


async def test_the_same_words_about_another_organization_are_another_request(world: World) -> None:
    paid, other = await world.merchant(credits=0), await world.merchant(credits=0)
    body = {"credits": 5, "note": "x"}
    for merchant, status in ((paid, 201), (other, 409)):
        path = f"/v1/organizations/{merchant.organization_id}/credit-adjustments"
        assert (await world.operator.api("POST", path, body, headers=key())).status_code == status


async def test_without_a_key_everything_is_done_as_often_as_it_is_asked(world: World) -> None:
    for _ in range(2):
        await world.operator.call("POST", "/v1/organizations", ORGANIZATION)
    assert await organizations(world) == 2 and await answers_kept(world) == 0


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["organizations", "credit-adjustments", "keys"])
async def test_of_many_at_once_one_does_the_work(world: World, path: str) -> None:
    merchant = await world.merchant(credits=5)
    organization = f"/v1/organizations/{merchant.organization_id}"
    target, body = {
        "organizations": ("/v1/organizations", ORGANIZATION),
        "credit-adjustments": (f"{organization}/credit-adjustments", {"credits": 7, "note": "once"}),
        "keys": (f"{organization}/keys", {"kind": "organization"}),
    }[path]
    made = await organizations(world)
    answers = await asyncio.gather(*(world.operator.api("POST", target, body, headers=key()) for _ in range(12)))
    done = [answer for answer in answers if answer.status_code == 201]
    waiting = [answer for answer in answers if answer.status_code == 409]
    assert len(done) + len(waiting) == 12 and done
    assert len({answer.content for answer in done}) == 1
    assert [REPLAYED in answer.headers for answer in done].count(False) == 1
    for answer in waiting:
        assert answer.json()["type"] == "/problems/idempotency-key-in-use" and answer.headers["retry-after"] == "1"
    assert await organizations(world) == made + (path == "organizations")
    assert (await merchant.credits())["available_credits"] == 5 + 7 * (path == "credit-adjustments")
    keys = (await merchant.call("GET", "/v1/keys"))["data"]
    assert len(keys) == 1 + (path == "keys")
    assert (await world.operator.api("POST", target, body, headers=key())).content == done[0].content


async def test_the_key_of_another_tenant_is_another_key(world: World) -> None:
    shop, stranger = await world.shop(), await world.shop("Knygos")
    sibling = await shop.merchant.shop("Vilna")
    body = {"locale": "en"}
    texts = set()
    for each in (shop, sibling, stranger):
        answer = await each.api("POST", "/v1/previews", body, headers=key())
        assert answer.status_code == 200 and REPLAYED not in answer.headers
        texts.add(answer.json()["data"][0]["text"].split(":")[0])
    assert len(texts) == 3, "each was answered for its own shop"
    for caller in (shop.merchant, stranger.merchant):
        made = await caller.api("POST", "/v1/keys", {"kind": "organization"}, headers=key())
        assert made.status_code == 201 and REPLAYED not in made.headers
    assert (await post_organization(world)).status_code == 201


@pytest.mark.parametrize(
    "bad", [[""], [" "], ["x" * 256], ["a\tb"], ["ąž".encode()], [b"a\xffb"], ["one", "two"], ["a", "a"], [b"\x7f"]]
)
async def test_a_bad_key_is_refused_before_anything_is_done(world: World, bad: list[Any]) -> None:
    headers = [(b"Authorization", f"Bearer {world.operator.key}".encode())]
    headers += [(b"Idempotency-Key", each if isinstance(each, bytes) else each.encode()) for each in bad]
    answer = await world.http.post("/v1/organizations", json=ORGANIZATION, headers=headers)
    assert answer.status_code == 400 and answer.json()["type"] == "/problems/invalid-idempotency-key"
    assert await organizations(world) == 0


@pytest.mark.parametrize("good", ["x", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a b"])
async def test_any_visible_key_will_do(world: World, good: str) -> None:
    assert (await post_organization(world, good)).status_code == 201
    assert (await post_organization(world, good)).headers[REPLAYED] == "true"


async def test_a_refusal_is_not_recorded(world: World) -> None:
    merchant = await world.merchant(credits=5)
    path = f"/v1/organizations/{merchant.organization_id}/credit-adjustments"
    body = {"credits": -10, "note": "too much"}
    for _ in range(2):
        answer = await world.operator.api("POST", path, body, headers=key())
        assert answer.status_code == 409 and answer.json()["type"] == "/problems/insufficient-credits"
    invalid = await world.operator.api("POST", path, {"credits": "many"}, headers=key())
    assert invalid.status_code == 422
    assert await answers_kept(world) == 0
    await merchant.add_credits(5)
    assert (await world.operator.api("POST", path, body, headers=key())).status_code == 201
    assert (await merchant.credits())["available_credits"] == 0


async def test_a_revoked_key_gets_no_replay(world: World) -> None:
    merchant = await world.merchant()
    form = {"kind": "organization"}
    made = await merchant.call("POST", "/v1/keys", form, headers=key())
    (own,) = [each for each in (await merchant.call("GET", "/v1/keys"))["data"] if each["key_id"] != made["key_id"]]
    await merchant.call("DELETE", f"/v1/keys/{own['key_id']}")
    assert (await merchant.api("POST", "/v1/keys", form, headers=key())).status_code == 401
    successor = Caller(world.http, made["key"])
    again = await successor.api("POST", "/v1/keys", form, headers=key())
    assert again.json() == made, "another key of the same tenant"


async def test_an_answer_is_kept_for_a_day(world: World, clock: ManualClock, carrier: Carrier) -> None:
    await post_organization(world)
    (sweep,) = [task for task in TASKS if task.name == "idempotent_answers"]
    clock.advance(hours=24)
    await sweep.run(world.runtime, carrier)
    assert (await post_organization(world)).headers[REPLAYED] == "true"
    clock.advance(seconds=1)
    await sweep.run(world.runtime, carrier)
    assert await answers_kept(world) == 0
    assert REPLAYED not in (await post_organization(world)).headers
    assert await organizations(world) == 2


async def test_neither_key_nor_answer_nor_phone_can_be_read_in_the_database(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    withdrawn = await shop.api("POST", "/v1/consent-withdrawals", {"phone": RUTA}, headers=key(f"stop-{RUTA}"))
    made = await shop.merchant.call("POST", "/v1/keys", {"kind": "organization"}, headers=key())
    assert withdrawn.status_code == 200
    with psycopg.connect(fresh_url) as owner:
        kept = owner.execute("SELECT key_hash, request_hash, answer_sealed FROM idempotent_answers").fetchall()
    stored = b" ".join(bytes(value) for row in kept for value in row)
    assert len(kept) == 2
    for secret in (RUTA, RUTA[1:], "order-1", made["key"], "cw_org_", "key_id"):
        assert secret.encode() not in stored


@dataclass(frozen=True)
class Post:
    """A POST that is done, and the body of another request to the same path."""

    sender: Caller
    path: str
    body: Any
    other: Any


async def every_post(world: World, clock: ManualClock) -> dict[str, Post]:
    """One of each POST that there is, by the name of its operation."""
    shop = await world.shop()
    merchant, operator = shop.merchant, world.operator
    await shop.call("PUT", "/v1/reply-webhook", {"url": "https://shop.example/hook"})
    claim = RecoveryClaim(*await schedule_text(world, shop, clock))
    tokens = [sign_recovery_token(world.runtime.vault, claim, clock.now() + timedelta(hours=h)) for h in (1, 2)]
    merchants = f"/v1/organizations/{merchant.organization_id}"
    shop_form = {"name": "Vilna", "default_country": "LT", "default_locale": "lt"}
    own, others = {"kind": "organization"}, {"kind": "shop_secret", "shop_id": str(shop.shop_id)}
    spare = [(await merchant.call("POST", "/v1/keys", own))["key_id"] for _ in range(2)]
    operators = (await operator.call("POST", "/v1/operator-keys"))["key_id"]
    soon, later = {"overlap_s": 60}, {"overlap_s": 120}
    return {
        "post_organization": Post(operator, "/v1/organizations", ORGANIZATION, ORGANIZATION | {"plan": "FREE"}),
        "post_shop": Post(operator, f"{merchants}/shops", shop_form, shop_form | {"name": "Knygos"}),
        "post_credit_adjustment": Post(
            operator, f"{merchants}/credit-adjustments", {"credits": 7, "note": "a"}, {"credits": 7, "note": "b"}
        ),
        "post_sender": Post(
            operator,
            f"{merchants}/shops/{shop.shop_id}/senders",
            {"address": world.next_number()},
            {"address": world.next_number()},
        ),
        "post_preview": Post(shop, "/v1/previews", {"locale": "en"}, {"locale": "de"}),
        "post_consent_withdrawal": Post(shop, "/v1/consent-withdrawals", {"phone": RUTA}, {"phone": AINO}),
        "post_recovery_token_verification": Post(
            shop, "/v1/recovery-tokens/verification", {"token": tokens[0]}, {"token": tokens[1]}
        ),
        "post_reply_webhook_secret": Post(shop, "/v1/reply-webhook/secrets", None, {}),
        "post_key": Post(merchant, "/v1/keys", own, others),
        "post_key_rotation": Post(merchant, f"/v1/keys/{spare[0]}/rotation", soon, later),
        "post_organization_key": Post(operator, f"{merchants}/keys", own, others),
        "post_organization_key_rotation": Post(operator, f"{merchants}/keys/{spare[1]}/rotation", soon, later),
        "post_operator_key": Post(operator, "/v1/operator-keys", None, {}),
        "post_operator_key_rotation": Post(operator, f"/v1/operator-keys/{operators}/rotation", soon, later),
    }


async def schedule_text(world: World, shop: ShopClient, clock: ManualClock) -> tuple[uuid.UUID, uuid.UUID]:
    """The ids of a scheduled text and of its session."""
    await shop.put_session(consent=TICKED)
    clock.advance(minutes=31)
    async with world.runtime.db.transaction(ENGINE) as conn:
        await scan(conn, world.runtime.moment(), 100)
        (found,) = await rows(conn, "SELECT message_id, session_id FROM sms_messages")
    return found["message_id"], found["session_id"]


async def test_every_post_there_is_keeps_the_rule(world: World, clock: ManualClock) -> None:
    """Same key and body: the same answer, to the byte. Same key and another body: a 409 that does nothing."""
    posts = await every_post(world, clock)
    document = (await world.http.get("/openapi.json")).json()
    described = {item["post"]["operationId"] for item in document["paths"].values() if "post" in item}
    assert set(posts) == described
    for name, post in posts.items():
        first = await post.sender.api("POST", post.path, post.body, headers=key(name))
        assert first.is_success and REPLAYED not in first.headers, (name, first.text)
        again = await post.sender.api("POST", post.path, post.body, headers=key(name))
        assert (again.status_code, again.content) == (first.status_code, first.content), name
        assert again.headers[REPLAYED] == "true" and "ratelimit" in again.headers, name
        other = await post.sender.api("POST", post.path, post.other, headers=key(name))
        assert other.status_code == 409 and other.json()["type"] == "/problems/idempotency-key-reused", name


# --- whatever dies in between ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "moment"),
    [
        ("AFTER INSERT ON organizations", "while it works"),
        ("BEFORE INSERT ON operator_idempotent_answers", "between the work and its record"),
        ("AFTER INSERT ON operator_idempotent_answers", "after both, before the commit"),
    ],
)
@pytest.mark.parametrize("killed", [True, False])
async def test_work_and_record_live_and_die_together(
    world: World, fresh_url: str, when: str, moment: str, killed: bool
) -> None:
    """The connection is cut, or the statement fails, at each point: nothing is left, and the retry does it once."""
    end = "PERFORM pg_terminate_backend(pg_backend_pid())" if killed else "RAISE 'disk full'"
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
            f" $$ BEGIN {end}; RETURN NEW; END $$;"
            f"CREATE TRIGGER die {when} FOR EACH ROW EXECUTE FUNCTION die()"
        )
        answer = await post_organization(world)
        assert answer.status_code == (503 if killed else 500), moment
        assert await organizations(world) == 0 and await answers_kept(world) == 0
        await owner.execute("DROP FUNCTION die() CASCADE")
    assert (await post_organization(world)).status_code == 201
    assert (await post_organization(world)).headers[REPLAYED] == "true"
    assert await organizations(world) == 1


async def test_a_commit_that_fails_leaves_neither(world: World, fresh_url: str) -> None:
    shop = await world.shop()
    async with await psycopg.AsyncConnection.connect(fresh_url, autocommit=True) as owner:
        await owner.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full'; END $$;"
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON idempotent_answers DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()"
        )
    body = {"phone": RUTA}
    answer = await shop.api("POST", "/v1/consent-withdrawals", body, headers=key())
    assert answer.status_code == 500
    async with world.runtime.db.transaction(ENGINE) as conn:
        assert await rows(conn, "SELECT 1 FROM consent_events") == []


def scope_of(path: str, headers: dict[str, str]) -> dict[str, Any]:
    """A POST as the server hands it to the application."""
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }


async def test_an_answer_that_never_arrives_can_be_asked_for(world: World) -> None:
    """The client is gone when the first byte should go out; by then everything is committed."""

    body = json.dumps(ORGANIZATION, separators=(",", ":")).encode()  # to the byte as `post_organization` sends it

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        raise OSError("the client hung up")

    headers = {"authorization": f"Bearer {world.operator.key}", "content-type": "application/json"} | key()
    await world.app(scope_of("/v1/organizations", headers), receive, send)
    again = await post_organization(world)
    assert again.status_code == 201 and again.headers[REPLAYED] == "true"
    assert await organizations(world) == 1


async def test_half_a_body_is_not_a_request(world: World) -> None:
    """The client hangs up while it sends: what came so far happens to be good JSON, and yet nothing is done."""
    parts: list[Message] = [
        {"type": "http.request", "body": json.dumps(ORGANIZATION).encode(), "more_body": True},
        {"type": "http.disconnect"},
    ]
    headers = {"authorization": f"Bearer {world.operator.key}", "content-type": "application/json"} | key()
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await world.app(scope_of("/v1/organizations", headers), receive, send)
    assert sent[0]["status"] == 400 and await organizations(world) == 0


@pytest.mark.thorough
async def test_connections_come_back_whatever_happens(world: World, runtime: Runtime) -> None:
    """More keyed requests than the pool has connections, of every fate, one after the other."""
    shop = await world.shop()
    fates: list[tuple[Caller | ShopClient, str, Any, int]] = [
        (world.operator, "/v1/organizations", ORGANIZATION, 201),
        (world.operator, "/v1/organizations", {"name": ""}, 422),
        (world.operator, f"/v1/organizations/{uuid.UUID(int=7)}/shops", None, 422),
        (world.operator, f"/v1/organizations/{uuid.UUID(int=7)}/keys", {"kind": "organization"}, 404),
        (shop, "/v1/recovery-tokens/verification", {"token": "x"}, 400),
        (shop, "/v1/previews", {"locale": "en"}, 200),
        (shop, "/v1/nowhere", {}, 404),
    ]
    for number in range(runtime.settings.database_pool_size + 2):
        for caller, path, body, status in fates:
            for _ in range(2):
                answer = await caller.api("POST", path, body, headers=key(f"{path}-{status}-{number}"))
                assert answer.status_code == status, answer.text
