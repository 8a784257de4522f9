"""Whatever is wrong with a request, the answer is a problem document that says what, and where."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from cartwake.kit.db import ENGINE, rows
from world import TICKED, ShopClient, World, cart

PATH = "/v1/checkout-sessions/cart-1"
JSON_HEADERS = {"Content-Type": "application/json"}
NAIVE, LONG_AGO, NONSENSE = "2026-11-24T08:15:00", "0001-01-01T00:00:00+14:00", "2026-13-45T99:00:00Z"

# What is sent, and the field that the answer must name.
WRONG_SESSIONS: list[tuple[dict[str, Any], str]] = [
    ({"cart_value_minor": -1}, "cart_value_minor"),
    ({"cart_value_minor": 2**63}, "cart_value_minor"),
    ({"cart_value_minor": 59.9}, "cart_value_minor"),
    ({"cart_value_minor": "5990"}, "cart_value_minor"),
    ({"cart_value_minor": True}, "cart_value_minor"),
    ({"currency": "EURO"}, "currency"),
    ({"currency": "QQQ"}, "currency"),
    ({"currency": "eur"}, "currency"),
    ({"country": "XX"}, "country"),
    ({"country": "UK"}, "country"),
    ({"country": "EU"}, "country"),
    ({"country": "LTU"}, "country"),
    ({"country": "lt"}, "country"),
    ({"country": 7}, "country"),
    ({"time_zone": "Europe/Atlantis"}, "time_zone"),
    ({"time_zone": "../../etc/passwd"}, "time_zone"),
    ({"locale": "../en"}, "locale"),
    ({"locale": "x" * 36}, "locale"),
    ({"province": "a\0b"}, "province"),
    ({"province": "a\ud800b"}, "province"),
    ({"province": "x" * 201}, "province"),
    ({"province": ""}, "province"),
    ({"phone": "+370\x0061234567"}, "phone"),
    ({"phone": "1" * 201}, "phone"),
    ({"phone": 37061234567}, "phone"),
    ({"checkout_url": "ftp://shop.example/cart"}, "checkout_url"),
    ({"checkout_url": "javascript:alert(1)"}, "checkout_url"),
    ({"checkout_url": "//shop.example/cart"}, "checkout_url"),
    ({"checkout_url": "https://"}, "checkout_url"),
    ({"checkout_url": "https://[::1/cart"}, "checkout_url"),
    ({"checkout_url": "https://shop.example:99999/"}, "checkout_url"),
    ({"checkout_url": "https://shop.example\\@evil.example/"}, "checkout_url"),
    ({"checkout_url": "https://user:pass@shop.example/"}, "checkout_url"),
    ({"checkout_url": "https://shop.example/\r\nSet-Cookie: a=b"}, "checkout_url"),
    ({"checkout_url": "https://shop.example/" + "x" * 2048}, "checkout_url"),
    ({"occurred_at": NAIVE}, "occurred_at"),
    ({"occurred_at": LONG_AGO}, "occurred_at"),
    ({"occurred_at": NONSENSE}, "occurred_at"),
    ({"occurred_at": "1999-12-31T23:59:59Z"}, "occurred_at"),
    ({"occurred_at": 1700000000}, "occurred_at"),
    ({"consent": True}, "consent"),
    ({"consent": {}}, "consent.granted"),
    ({"consent": {"granted": "yes"}}, "consent.granted"),
    ({"consent": {"granted": 1}}, "consent.granted"),
    ({"consent": TICKED | {"ip": "203.0.113.999"}}, "consent.ip"),
    ({"consent": TICKED | {"page_url": "about:blank"}}, "consent.page_url"),
    ({"consent": TICKED | {"wording": "x" * 2001}}, "consent.wording"),
    ({"consent": TICKED | {"colour": "red"}}, "consent.colour"),
    ({"colour": "red"}, "colour"),
]


async def problem_of(shop: ShopClient, status: int, method: str, path: str, json: Any = None, **more: Any) -> Any:
    """The problem document, checked to be one."""
    answer = await shop.api(method, path, json, **more)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("/problems/") and problem["title"] and problem["detail"]
    return problem


async def test_wrong_fields_are_named_and_nothing_is_stored(world: World) -> None:
    shop = await world.shop()
    for news, field in WRONG_SESSIONS:
        problem = await problem_of(
            shop, 422, "PUT", PATH, content=json.dumps(cart() | news).encode(), headers=JSON_HEADERS
        )
        assert field in [error["field"] for error in problem["errors"]], (news, problem)
        assert all(error["detail"] for error in problem["errors"])
    async with world.runtime.db.transaction(ENGINE) as conn:
        assert await rows(conn, "SELECT session_id FROM checkout_sessions") == []


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", f"{PATH}/payment", {"status": "paid"}, "status"),
        ("PUT", f"{PATH}/payment", {}, "status"),
        ("PUT", f"{PATH}/completion", {"order_id": "1", "value_minor": 1}, "currency"),
        ("PUT", f"{PATH}/completion", {"order_id": "", "value_minor": 1, "currency": "EUR"}, "order_id"),
        ("PUT", f"{PATH}/completion", {"order_id": "1", "value_minor": -1, "currency": "EUR"}, "value_minor"),
        ("PUT", "/v1/sms-config", {"window_opens": "9am"}, "window_opens"),
        ("PUT", "/v1/sms-config", {"window_opens": "25:00"}, "window_opens"),
        ("PUT", "/v1/sms-config", {"cycle_cap": 101}, "cycle_cap"),
        ("PUT", "/v1/sms-config", {"idle_s": 2**40}, "idle_s"),
        ("POST", "/v1/previews", {"countries": ["ZZ"]}, "countries.0"),
        ("POST", "/v1/previews", {"countries": ["LT"] * 51}, "countries"),
        ("POST", "/v1/previews", {"text": "x" * 2001}, "text"),
        ("PUT", "/v1/templates/it", {"text": "x"}, "locale"),
        ("PUT", "/v1/templates/en", {}, "text"),
        ("PUT", "/v1/templates/en", {"text": None}, "text"),
        ("GET", "/v1/templates/en/versions?before=0", None, "before"),
        ("POST", "/v1/consent-withdrawals", {"phone": None}, "phone"),
        ("POST", "/v1/recovery-tokens/verification", {"token": "a\0"}, "token"),
        ("GET", "/v1/messages?limit=0", None, "limit"),
        ("GET", "/v1/messages?limit=many", None, "limit"),
        ("GET", "/v1/messages?before=yesterday", None, "before"),
        ("GET", "/v1/messages?state=lost", None, "state"),
        ("GET", "/v1/messages/not-an-id", None, "message_id"),
        ("GET", "/v1/checkout-sessions/a%00b", None, "external_id"),
        ("GET", "/v1/checkout-sessions/" + "x" * 201, None, "external_id"),
    ],
)
async def test_other_requests_name_the_wrong_field(world: World, method: str, path: str, body: Any, field: str) -> None:
    shop = await world.shop()
    problem = await problem_of(shop, 422, method, path, body)
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"name": "x", "plan": "GOLD"}, "plan"),
        ("", {"name": "x" * 201, "plan": "PRO"}, "name"),
        ("/{id}/shops", {"name": "x", "default_country": "UK", "default_locale": "en"}, "default_country"),
        ("/{id}/credit-adjustments", {"credits": 10**10, "note": "x"}, "credits"),
        ("/{id}/credit-adjustments", {"credits": 1}, "note"),
        ("/nowhere/credit-adjustments", {"credits": 1, "note": "x"}, "organization_id"),
    ],
)
async def test_the_operator_s_requests_too(world: World, path: str, body: Any, field: str) -> None:
    merchant = await world.merchant()
    path = "/v1/organizations" + path.format(id=merchant.organization_id)
    answer = await world.operator.api("POST", path, body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("body", ["[]", '"cart"', "5", "null", "true"])
async def test_a_body_must_be_an_object(world: World, body: str) -> None:
    shop = await world.shop()
    problem = await problem_of(shop, 422, "PUT", PATH, content=body, headers=JSON_HEADERS)
    assert problem["errors"][0]["field"] == "body"


@pytest.mark.parametrize("body", [b"{", b"{'a': 1}", b'{"a": 1,}', b"\xff\xfe{", b"[" * 30_000, b'{"a":' + b"9" * 5000])
async def test_a_body_must_be_json(world: World, body: bytes) -> None:
    shop = await world.shop()
    problem = await problem_of(shop, 400, "PUT", PATH, content=body, headers=JSON_HEADERS)
    assert problem["type"] in ("/problems/malformed-json", "/problems/malformed-request")


@pytest.mark.parametrize("body", [b'{"cart_value_minor": NaN}', b'{"cart_value_minor": 1e400}'])
async def test_numbers_must_be_numbers(world: World, body: bytes) -> None:
    shop = await world.shop()
    await problem_of(shop, 422, "PUT", PATH, content=body, headers=JSON_HEADERS)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": "application/xml"}])
async def test_a_body_must_say_that_it_is_json(world: World, headers: dict[str, str]) -> None:
    shop = await world.shop()
    problem = await problem_of(shop, 415, "PUT", PATH, content=json.dumps(cart()).encode(), headers=headers)
    assert problem["type"] == "/problems/unsupported-media-type"


async def test_a_body_is_needed(world: World) -> None:
    shop = await world.shop()
    await problem_of(shop, 422, "PUT", PATH)


async def test_a_large_body_is_refused_before_it_has_come(world: World) -> None:
    shop = await world.shop()
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        for _ in range(10_000):
            sent_bytes += 1024
            yield b"x" * 1024

    problem = await problem_of(shop, 413, "PUT", PATH, content=endless(), headers=JSON_HEADERS)
    assert problem["type"] == "/problems/body-too-large"
    assert sent_bytes < 80 * 1024
    announced = {"Content-Length": str(10 * 1024 * 1024)} | JSON_HEADERS
    sent_bytes = 0
    await problem_of(shop, 413, "PUT", PATH, content=endless(), headers=announced)
    assert sent_bytes == 0


async def test_the_largest_body_is_read(world: World) -> None:
    shop = await world.shop()
    body = json.dumps(cart()).encode()
    answer = await shop.api("PUT", PATH, content=body + b" " * (64 * 1024 - len(body)), headers=JSON_HEADERS)
    assert answer.status_code == 201


async def test_thousands_of_wrong_fields_make_a_short_answer(world: World) -> None:
    shop = await world.shop()
    body = {f"wrong_{number}": 1 for number in range(3000)}
    problem = await problem_of(shop, 422, "PUT", PATH, body)
    assert len(problem["errors"]) == 20
    unreadable = b'{"half of an emoji \\ud83d": 1, "' + b"y" * 9000 + b'": 2}'
    answer = await shop.api("PUT", PATH, content=unreadable, headers=JSON_HEADERS)
    assert answer.status_code == 422 and len(answer.content) < 1000


async def test_the_future_is_refused_beyond_five_minutes(world: World) -> None:
    shop = await world.shop()
    now = world.runtime.clock.now()
    await shop.put_session(occurred_at=now + timedelta(minutes=5))
    late = (now + timedelta(minutes=5, seconds=1)).isoformat()
    for path, body in (
        (PATH, cart(occurred_at=late)),
        (f"{PATH}/payment", {"status": "pending", "occurred_at": late}),
        (f"{PATH}/completion", {"order_id": "1", "value_minor": 1, "currency": "EUR", "completed_at": late}),
    ):
        problem = await problem_of(shop, 400, "PUT", path, body)
        assert problem["type"] == "/problems/time-in-future"
        assert problem["errors"][0]["field"] in ("occurred_at", "completed_at")


async def test_what_was_sent_is_never_repeated(world: World) -> None:
    shop = await world.shop()
    body = cart(phone="+37061234567\0", currency="+37061234567", colour="+37061234567")
    answer = await shop.api("PUT", PATH, body)
    assert answer.status_code == 422
    assert "61234567" not in answer.text


async def test_unknown_paths_and_methods_are_problems_too(world: World) -> None:
    shop = await world.shop()
    await problem_of(shop, 404, "GET", "/v2/everything")
    await problem_of(shop, 404, "GET", "/v1/shops/")
    answer = await shop.api("DELETE", "/v1/shops")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET"
    assert answer.json()["type"] == "/problems/method-not-allowed"


async def test_any_country_and_currency_of_the_standard_is_taken(world: World) -> None:
    shop = await world.shop()
    view = await shop.put_session(country="JP", currency="JPY", phone=None, time_zone="Asia/Tokyo")
    assert (view["country"], view["currency"], view["time_zone"]) == ("JP", "JPY", "Asia/Tokyo")
