"""Keys can be listed, made, replaced without a gap, and ended; each by whom it concerns."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from cartwake.kit.clock import ManualClock
from world import Caller, World

NOBODY = uuid.UUID(int=7)


def with_key(world: World, made: dict[str, Any]) -> Caller:
    return Caller(world.http, made["key"])


async def test_a_rotation_leaves_no_gap(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    keys = (await shop.merchant.call("GET", "/v1/keys"))["data"]
    old = next(key for key in keys if key["kind"] == "shop_secret")
    made = await shop.merchant.call("POST", f"/v1/keys/{old['key_id']}/rotation", {"overlap_s": 3600})
    assert made["kind"] == "shop_secret" and made["shop_id"] == str(shop.shop_id) and made["expires_at"] is None
    new = with_key(world, made)
    for caller in (shop, new):
        assert (await caller.api("GET", "/v1/sms-config")).status_code == 200
    clock.advance(seconds=3600)
    assert (await shop.api("GET", "/v1/sms-config")).status_code == 401
    assert (await new.api("GET", "/v1/sms-config")).status_code == 200


async def test_a_rotation_does_not_prolong_a_key(world: World, clock: ManualClock) -> None:
    merchant = await world.merchant()
    (old,) = (await merchant.call("GET", "/v1/keys"))["data"]
    path = f"/v1/keys/{old['key_id']}/rotation"
    await merchant.call("POST", path, {"overlap_s": 60})
    await merchant.call("POST", path, {"overlap_s": 86_400})
    clock.advance(seconds=61)
    assert (await merchant.api("GET", "/v1/keys")).status_code == 401
    gone = await world.operator.api("POST", f"/v1/organizations/{merchant.organization_id}{path[3:]}", {})
    assert gone.status_code == 404


async def test_an_organization_makes_and_ends_its_own_and_its_shops_keys(world: World) -> None:
    shop = await world.shop()
    merchant = shop.merchant
    for form, path in (
        ({"kind": "organization"}, "/v1/credits"),
        ({"kind": "shop_secret", "shop_id": str(shop.shop_id)}, "/v1/sms-config"),
    ):
        made = await merchant.call("POST", "/v1/keys", form)
        caller = with_key(world, made)
        assert (await caller.api("GET", path)).status_code == 200
        ended = await merchant.call("DELETE", f"/v1/keys/{made['key_id']}")
        assert ended["revoked_at"] and "key" not in ended
        assert (await caller.api("GET", path)).status_code == 401
        assert await merchant.call("DELETE", f"/v1/keys/{made['key_id']}") == ended


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"kind": "organization", "shop_id": "own"}, 400),
        ({"kind": "shop_secret"}, 400),
        ({"kind": "shop_secret", "shop_id": "foreign"}, 404),
        ({"kind": "shop_publishable", "shop_id": str(NOBODY)}, 404),
        ({"kind": "operator"}, 422),
    ],
)
async def test_no_key_is_made_for_what_is_not_the_organizations(
    world: World, form: dict[str, Any], status: int
) -> None:
    shop, stranger = await world.shop(), await world.shop("Knygos")
    ids = {"own": shop.shop_id, "foreign": stranger.shop_id}
    if form.get("shop_id") in ids:
        form = form | {"shop_id": str(ids[form["shop_id"]])}
    before = (await shop.merchant.call("GET", "/v1/keys"))["data"]
    assert (await shop.merchant.api("POST", "/v1/keys", form)).status_code == status
    assert len((await shop.merchant.call("GET", "/v1/keys"))["data"]) == len(before)


async def test_another_organizations_keys_are_not_there(world: World) -> None:
    shop, stranger = await world.shop(), await world.shop("Knygos")
    for key in (await shop.merchant.call("GET", "/v1/keys"))["data"]:
        for method, path, body in (("DELETE", "", None), ("POST", "/rotation", {"overlap_s": 60})):
            for caller, base in (
                (stranger.merchant, "/v1/keys"),
                (world.operator, f"/v1/organizations/{stranger.merchant.organization_id}/keys"),
            ):
                answer = await caller.api(method, f"{base}/{key['key_id']}{path}", body)
                assert answer.status_code == 404, (method, base, answer.text)
    assert (await shop.api("GET", "/v1/sms-config")).status_code == 200
    listed = (await stranger.merchant.call("GET", "/v1/keys"))["data"]
    assert {key["shop_id"] for key in listed} == {None, str(stranger.shop_id)}


async def test_last_use_is_told_to_the_hour_and_written_once_an_hour(world: World, clock: ManualClock) -> None:
    merchant = await world.merchant()

    async def last_used() -> str | None:
        base = f"/v1/organizations/{merchant.organization_id}/keys"
        used: str | None = (await world.operator.call("GET", base))["data"][0]["last_used_at"]
        return used

    assert await last_used() is None
    await asyncio.gather(*(merchant.call("GET", "/v1/credits") for _ in range(20)))
    assert await last_used() == "2026-11-24T08:00:00Z"
    clock.advance(minutes=44)
    await merchant.call("GET", "/v1/credits")
    assert await last_used() == "2026-11-24T08:00:00Z"
    clock.advance(minutes=1)
    await merchant.call("GET", "/v1/credits")
    assert await last_used() == "2026-11-24T09:00:00Z"


async def test_the_last_operator_key_cannot_be_revoked_but_replaced(world: World, clock: ManualClock) -> None:
    (own,) = (await world.operator.call("GET", "/v1/operator-keys"))["data"]
    path = f"/v1/operator-keys/{own['key_id']}"
    refused = await world.operator.api("DELETE", path)
    assert refused.status_code == 409 and refused.json()["type"] == "/problems/last-operator-key"
    made = await world.operator.call("POST", f"{path}/rotation", {"overlap_s": 60})
    new = with_key(world, made)
    assert (await world.operator.api("DELETE", path)).status_code == 200
    assert (await world.operator.api("GET", "/v1/operator-keys")).status_code == 401
    assert (await new.api("DELETE", f"/v1/operator-keys/{made['key_id']}")).status_code == 409
    assert (await new.api("DELETE", f"/v1/operator-keys/{NOBODY}")).status_code == 404


async def test_an_operator_key_that_was_replaced_opens_nothing_once_the_overlap_is_over(
    world: World, clock: ManualClock
) -> None:
    (old,) = (await world.operator.call("GET", "/v1/operator-keys"))["data"]
    made = await world.operator.call("POST", f"/v1/operator-keys/{old['key_id']}/rotation", {"overlap_s": 60})
    clock.advance(seconds=59)
    assert (await world.operator.api("GET", "/v1/operator-keys")).status_code == 200
    clock.advance(seconds=1)
    assert (await world.operator.api("GET", "/v1/operator-keys")).status_code == 401
    assert (await with_key(world, made).api("GET", "/v1/operator-keys")).status_code == 200


async def test_of_two_operator_keys_revoked_at_once_one_stays(world: World) -> None:
    """Each gives up its own: a key that another had revoked already would be refused at the door."""
    made = await world.operator.call("POST", "/v1/operator-keys")
    newest, oldest = (await world.operator.call("GET", "/v1/operator-keys"))["data"]
    callers = (world.operator, with_key(world, made))
    answers = await asyncio.gather(
        *(
            caller.api("DELETE", f"/v1/operator-keys/{key['key_id']}")
            for caller, key in zip(callers, (oldest, newest), strict=True)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_there_is_an_end_to_how_many_keys_there_may_be(world: World) -> None:
    merchant = await world.merchant()
    for _ in range(99):
        await merchant.call("POST", "/v1/keys", {"kind": "organization"})
    refused = await merchant.api("POST", "/v1/keys", {"kind": "organization"})
    assert refused.status_code == 409 and refused.json()["type"] == "/problems/key-limit"
    (own,) = (await merchant.call("GET", "/v1/keys", params={"limit": 1}))["data"]
    await merchant.call("DELETE", f"/v1/keys/{own['key_id']}")
    await merchant.call("POST", "/v1/keys", {"kind": "organization"})
