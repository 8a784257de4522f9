"""Every list that can grow is read in pages, all alike, and holds still while it grows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from cartwake.kit.db import ENGINE
from cartwake.messages.keywords import Intent
from cartwake.messages.replies import Reply, keep_replies
from world import RUTA, Caller, ShopClient, World

PAGED = {
    "/v1/messages": "shop",
    "/v1/replies": "shop",
    "/v1/templates/en/versions": "shop",
    "/v1/credits/ledger": "organization",
    "/v1/shops": "organization",
    "/v1/keys": "organization",
    "/v1/organizations": "operator",
    "/v1/organizations/{organization_id}/shops": "operator",
    "/v1/organizations/{organization_id}/keys": "operator",
    "/v1/operator-keys": "operator",
    "/v1/doubtful-messages": "operator",
}

# One row for each locale or country: these cannot grow.
WHOLE = {"/v1/templates", "/v1/previews"}

# A dozen texts, of which nobody knows what became, behind the API's back: dispatch is not what is tried here.
ADD_TEXT = """
WITH session AS (
  INSERT INTO checkout_sessions (organization_id, shop_id, session_id, external_id, state, last_activity_at, stale_at,
    created_at, updated_at)
  VALUES (%(organization)s, %(shop)s, %(id)s, %(id)s::text, 'abandoned', %(now)s, %(now)s, %(now)s, %(now)s)
  RETURNING session_id
)
INSERT INTO sms_messages (organization_id, shop_id, message_id, session_id, kind, step, state, due_at, attempt_id,
  attempted_at, phone_country, credits, created_at, updated_at)
SELECT %(organization)s, %(shop)s, %(id)s, session_id, 'cart_recovery', 1, 'unknown', %(now)s, %(id)s, %(now)s, 'LT', 3,
  %(now)s, %(now)s FROM session
"""


class Rows:
    """Adds a row to each list."""

    def __init__(self, world: World, shop: ShopClient, fresh_url: str) -> None:
        self.world, self.shop, self.fresh_url = world, shop, fresh_url
        self.added = 0

    async def add(self, path: str) -> None:
        merchant = self.shop.merchant
        self.added += 1
        if path == "/v1/replies":
            await self.add_reply()
        elif "versions" in path:
            text = f"{self.added}. {{link}} {{opt_out}}"
            await self.shop.call("PUT", path.removesuffix("/versions"), {"text": text})
        elif "messages" in path:
            moment = self.world.runtime.moment()
            with psycopg.connect(self.fresh_url, autocommit=True) as owner:
                ids = {"organization": merchant.organization_id, "shop": self.shop.shop_id}
                owner.execute(ADD_TEXT, ids | {"id": moment.new_id(), "now": moment.now})
        elif path == "/v1/credits/ledger":
            await merchant.add_credits(1)
        elif path == "/v1/organizations":
            await self.world.merchant("One more")
        elif path.endswith("/shops"):
            await merchant.shop("One more")
        elif path == "/v1/operator-keys":
            await self.world.operator.call("POST", path)
        else:
            await merchant.call("POST", "/v1/keys", {"kind": "organization"})

    async def add_reply(self) -> None:
        moment = self.world.runtime.moment()
        sid = f"SM{self.added:032}"
        reply = Reply(
            self.shop.scope, sid, Intent.OTHER, phone=RUTA, sent_to="+37060000001", body="?", received_at=moment.now
        )
        async with self.world.runtime.db.transaction(ENGINE) as conn:
            await keep_replies(conn, moment, [reply])


def caller_of(world: World, shop: ShopClient, kind: str) -> Caller:
    return {"shop": shop, "organization": shop.merchant, "operator": world.operator}[kind]


async def test_every_list_is_known_here_and_looks_like_the_others(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    found = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            reference = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
            name = reference.get("schema", {}).get("$ref", "").rpartition("/")[2]
            properties = document["components"]["schemas"].get(name, {}).get("properties", {})
            if "data" not in properties or path in WHOLE:
                continue
            assert method == "get" and set(properties) == {"data", "next"}, path
            parameters = {each["name"]: each["schema"] for each in operation["parameters"]}
            assert (parameters["limit"]["minimum"], parameters["limit"]["maximum"]) == (1, 200)
            assert "before" in parameters, path
            found.add(path)
    assert {path.replace("{locale}", "en") for path in found} == set(PAGED), "a list has no pages, or is not tried here"


@pytest.mark.thorough
@pytest.mark.parametrize("path", PAGED)
async def test_pages_hold_still_while_the_list_grows(world: World, fresh_url: str, path: str) -> None:
    shop = await world.shop()
    rows = Rows(world, shop, fresh_url)
    for _ in range(5):
        await rows.add(path)
    caller = caller_of(world, shop, PAGED[path])
    path = path.format(organization_id=shop.merchant.organization_id)
    whole = (await caller.call("GET", path, params={"limit": 200}))["data"]
    assert len(whole) >= 5
    walked: list[Any] = []
    following: Any = None
    while True:
        page = await caller.call("GET", path, params={"limit": 2} | ({"before": following} if following else {}))
        assert 1 <= len(page["data"]) <= 2
        walked += page["data"]
        await rows.add(path)
        following = page["next"]
        if following is None:
            break
    # Keys say when they were last used, which moves on.
    assert [dict(row, last_used_at=0) for row in walked] == [dict(row, last_used_at=0) for row in whole]


@pytest.mark.parametrize("path", PAGED)
async def test_garbage_is_refused(world: World, path: str) -> None:
    shop = await world.shop()
    caller = caller_of(world, shop, PAGED[path])
    path = path.format(organization_id=shop.merchant.organization_id)
    for parameter, value in [
        ("before", "yesterday"),
        ("before", ""),
        ("before", "0"),
        ("before", "-1"),
        ("before", "9" * 40),
        ("before", "'; DROP TABLE shops; --"),
        ("before", "\0"),
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "all"),
    ]:
        answer = await caller.api("GET", path, params={parameter: value})
        assert answer.status_code == 422, (parameter, value, answer.text)
        assert [error["field"] for error in answer.json()["errors"]] == [parameter]
    largest = {"/v1/credits/ledger": 2**63 - 1, "/v1/templates/en/versions": 2**31 - 1}
    nobodys = largest.get(path, str(UUID(int=0)))
    assert (await caller.api("GET", path, params={"before": nobodys})).status_code == 200


async def test_a_merchant_with_many_shops_is_asked_about_credits_in_one_query(world: World) -> None:
    merchant = await world.merchant(credits=30)
    assert not (await merchant.credits())["low"], "without a shop nobody wants a warning"
    await merchant.shop("Linas", low_credits_at=10)
    assert not (await merchant.credits())["low"]
    await merchant.shop("Vilna", low_credits_at=30)
    assert (await merchant.credits())["low"]
