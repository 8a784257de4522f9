"""Keys: each opens its own door and no other, and another tenant's things are not there."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from cartwake.kit.crypto import hash_secret
from cartwake.kit.db import OPERATOR
from cartwake.tenants.keys import find_caller, revoke_key
from routes import BODIES, api_routes
from world import Caller, ShopClient, World


def routes_of(world: World) -> list[tuple[str, str, Any]]:
    """Every route of the API: method, path with ids that are nobody's, and a good body."""
    return [
        (
            route.method,
            re.sub(r"\{\w+_id\}", str(uuid.UUID(int=7)), route.path).replace("{locale}", "en"),
            route.body,
        )
        for route in api_routes(world.app)
    ]


def kind_for(path: str) -> str:
    if path.startswith(("/v1/organizations", "/v1/kill-switch", "/v1/doubtful-messages", "/v1/operator-keys")):
        return "operator"
    return "organization" if path.startswith(("/v1/credits", "/v1/shops", "/v1/keys")) else "shop"


async def callers(world: World) -> dict[str, Caller]:
    shop = await world.shop()
    return {
        "operator": world.operator,
        "organization": shop.merchant,
        "shop": shop,
        "publishable": Caller(world.http, shop.publishable_key),
    }


async def test_every_route_refuses_strangers_and_wrong_kinds_of_keys(world: World) -> None:
    keys = await callers(world)
    routes = routes_of(world)
    assert len(routes) > 20
    for method, path, body in routes:
        for stranger in (world.stranger(), Caller(world.http, "cw_shop_guessed"), Caller(world.http, "x" * 5000)):
            refused = await stranger.api(method, path, body)
            assert refused.status_code == 401, (method, path)
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["type"] == "/problems/unauthorized"
        for kind, caller in keys.items():
            answer = await caller.api(method, path, body)
            assert {"ratelimit", "ratelimit-policy"} <= set(answer.headers), (method, path, kind)
            if kind == kind_for(path):
                assert answer.status_code not in (401, 403), (method, path, kind)
            else:
                assert answer.status_code == 403, (method, path, kind)
                assert answer.json()["type"] == "/problems/not-allowed"


@pytest.mark.parametrize("header", ["cw_shop_x", "Basic Y3c6eA==", "Bearer", "Bearer ", "Bearer \xe9\xe8"])
async def test_anything_but_a_bearer_key_is_refused(world: World, header: str) -> None:
    answer = await world.http.get("/v1/shops", headers=[(b"Authorization", header.encode("latin-1"))])
    assert answer.status_code == 401


async def test_a_revoked_key_opens_nothing(world: World) -> None:
    shop = await world.shop()
    await shop.call("GET", "/v1/sms-config")
    async with world.runtime.db.transaction(OPERATOR) as conn:
        caller = await find_caller(conn, world.runtime.clock.now(), hash_secret(shop.key or ""))
        assert caller is not None
        await revoke_key(conn, world.runtime.clock.now(), caller.key_id)
    assert (await shop.api("GET", "/v1/sms-config")).status_code == 401


async def stories_of(shop: ShopClient, external_id: str) -> list[int]:
    base = f"/v1/checkout-sessions/{external_id}"
    return [
        (await shop.api("GET", base)).status_code,
        (await shop.api("PUT", f"{base}/payment", BODIES["payment"])).status_code,
        (await shop.api("PUT", f"{base}/completion", BODIES["completion"])).status_code,
    ]


async def test_another_tenant_s_cart_is_not_there(world: World) -> None:
    lino = await world.shop("Lino Namai")
    sibling = await lino.merchant.shop("Lino Sodas")
    knygos = await world.shop("Knygos")
    await lino.put_session("cart-1")
    for other in (sibling, knygos):
        assert await stories_of(other, "cart-1") == [404, 404, 404]
    await knygos.put_session("cart-1", cart_value_minor=1)
    assert (await lino.session("cart-1"))["cart_value_minor"] == 5990
    assert (await lino.session("cart-1"))["state"] == "open"


async def test_a_merchant_sees_its_own_shops_and_credits(world: World) -> None:
    lino = await world.shop("Lino Namai", credits=70)
    await lino.merchant.shop("Lino Sodas")
    knygos = await world.shop("Knygos", credits=30)
    assert [shop["name"] for shop in (await lino.merchant.call("GET", "/v1/shops"))["data"]] == [
        "Lino Sodas",
        "Lino Namai",
    ]
    assert (await knygos.merchant.credits())["available_credits"] == 30
    ledger = await knygos.merchant.call("GET", "/v1/credits/ledger")
    assert [line["credits"] for line in ledger["data"]] == [30]
