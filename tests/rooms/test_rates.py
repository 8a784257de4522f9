"""Who asks too often waits; who guesses keys is not looked up; and nobody else is the worse for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from cartwake.carriers.protocol import Carrier
from cartwake.kit.clock import ManualClock
from cartwake.kit.config import ConfigError, Settings, load_settings
from cartwake.kit.db import OPERATOR
from cartwake.kit.rates import Buckets, Rate
from cartwake.kit.runtime import Runtime
from cartwake.tenants.keys import create_key
from cartwake.tenants.model import KeyKind
from cartwake.web.app import create_app
from cartwake.web.gate import network_of
from world import Caller, World

SLOW = {
    "rate_operator": "60/20",
    "rate_organization": "60/3",
    "rate_shop_secret": "120/4",
    "rate_shop_publishable": "off",
    "rate_bad_keys": "60/5",
}


@pytest.fixture
async def strict(runtime: Runtime, carrier: Carrier) -> AsyncIterator[World]:
    """A deployment with low limits."""
    limited = replace(runtime, settings=Settings(**SLOW))  # type: ignore[arg-type]
    app = create_app(limited, carrier)
    async with runtime.db.transaction(OPERATOR) as conn:
        key = await create_key(conn, runtime.moment(), KeyKind.OPERATOR)
    async with app.router.lifespan_context(app), client(app, "203.0.113.9") as http:
        yield World(app, limited, http, Caller(http, key))


def client(app: object, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 1))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_a_key_has_its_burst_and_then_its_pace(strict: World, clock: ManualClock) -> None:
    merchant = await strict.merchant(credits=0)
    for left in (2, 1, 0):
        answer = await merchant.api("GET", "/v1/credits")
        assert answer.status_code == 200
        assert answer.headers["ratelimit-policy"] == '"organization";q=3;w=3'
        assert answer.headers["ratelimit"] == f'"organization";r={left};t={3 - left}'
    refused = await merchant.api("GET", "/v1/credits")
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.json()["type"] == "/problems/too-many-requests"
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["ratelimit"] == '"organization";r=0;t=3'
    clock.advance(seconds=1)
    assert (await merchant.api("GET", "/v1/credits")).status_code == 200
    assert (await merchant.api("GET", "/v1/credits")).status_code == 429
    clock.advance(hours=1)
    assert [(await merchant.api("GET", "/v1/credits")).status_code for _ in range(4)] == [200, 200, 200, 429]


async def test_each_key_has_its_own_bucket_and_each_kind_its_own_size(strict: World) -> None:
    shop = await strict.shop(credits=0, sender=None)
    for _ in range(5):
        last = await shop.api("GET", "/v1/sms-config")
    assert last.status_code == 429 and last.headers["ratelimit-policy"] == '"shop_secret";q=4;w=2'
    other = await strict.shop("Knygos", credits=0, sender=None)
    assert (await other.api("GET", "/v1/sms-config")).status_code == 200
    assert (await shop.merchant.api("GET", "/v1/credits")).status_code == 200
    unlimited = Caller(strict.http, shop.publishable_key)
    for _ in range(30):
        answer = await unlimited.api("GET", "/v1/credits")
    assert answer.status_code == 403 and "ratelimit" not in answer.headers


async def test_refusals_count_and_say_how_much_is_left(strict: World) -> None:
    merchant = await strict.merchant(credits=0)
    for path, status in (("/v1/sms-config", 403), ("/v1/credits/ledger?limit=0", 422), ("/v1/credits?x=1", 400)):
        answer = await merchant.api("GET", path)
        assert answer.status_code == status and "ratelimit" in answer.headers
    assert (await merchant.api("GET", "/v1/credits")).status_code == 429


async def test_guessing_ends_and_those_who_are_known_go_on(strict: World, clock: ManualClock) -> None:
    merchant = await strict.merchant(credits=0)
    assert (await merchant.api("GET", "/v1/credits")).status_code == 200
    newcomer = await strict.merchant("Knygos", credits=0)
    guesses = [await Caller(strict.http, f"cw_org_{n}").api("GET", "/v1/credits") for n in range(7)]
    assert [answer.status_code for answer in guesses] == [401] * 5 + [429] * 2
    assert guesses[-1].headers["retry-after"] == "1"
    assert (await merchant.api("GET", "/v1/credits")).status_code == 200, "a key that was good here before"
    assert (await newcomer.api("GET", "/v1/credits")).status_code == 429, "it could be a guess"
    async with client(strict.app, "203.0.113.10") as elsewhere:
        assert (await Caller(elsewhere, newcomer.key).api("GET", "/v1/credits")).status_code == 200
    clock.advance(seconds=1)
    assert (await Caller(strict.http, "cw_org_8").api("GET", "/v1/credits")).status_code == 401
    assert (await Caller(strict.http, "cw_org_9").api("GET", "/v1/credits")).status_code == 429


async def test_a_key_that_is_revoked_becomes_a_strangers(strict: World) -> None:
    merchant = await strict.merchant(credits=0)
    (own,) = (await merchant.call("GET", "/v1/keys"))["data"]
    await merchant.call("DELETE", f"/v1/keys/{own['key_id']}")
    answers = [(await merchant.api("GET", "/v1/credits")).status_code for _ in range(7)]
    assert answers == [401] * 5 + [429] * 2


def test_a_whole_network_of_ipv6_counts_as_one_address() -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:203.0.113.9") == network_of("203.0.113.9") == "203.0.113.9"
    assert network_of("") == "" and network_of("testclient") == "testclient"


def test_memory_is_bounded(clock: ManualClock) -> None:
    buckets: Buckets[int] = Buckets(clock, Rate(60, 2), names_max=100)
    for name in range(1000):
        buckets.take(name)
        buckets.take(0)  # in use all the time, so never forgotten
    assert len(buckets) == 100
    assert not buckets.take(0).granted and buckets.take(1).granted


def test_a_clock_that_goes_back_takes_nothing_away(clock: ManualClock) -> None:
    buckets: Buckets[str] = Buckets(clock, Rate(60, 10), names_max=10)
    assert buckets.take("a").remaining == 9
    clock.set(clock.now() - timedelta(hours=1))
    assert buckets.take("a").remaining == 8


@pytest.mark.parametrize("wrong", ["60", "0/5", "60/0", "-1/5", "60/5/1", "a/b", "Off", "60 / 5"])
def test_a_wrong_setting_stops_the_start(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTWAKE_RATE_OPERATOR", wrong)
    with pytest.raises(ConfigError, match=r"CARTWAKE_RATE_OPERATOR: .*like 600/100"):
        load_settings()


@pytest.mark.parametrize("wrong", ["localhost", "10.0.0.1/8", "10.0.0.1,", "10.0.0.256"])
def test_proxies_are_addresses(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTWAKE_TRUSTED_PROXIES", wrong)
    with pytest.raises(ConfigError, match=r"CARTWAKE_TRUSTED_PROXIES: must be addresses or networks"):
        load_settings()


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTWAKE_RATE_OPERATOR", "60/5")
    monkeypatch.setenv("CARTWAKE_RATE_BAD_KEYS", "off")
    monkeypatch.setenv("CARTWAKE_TRUSTED_PROXIES", "10.0.0.1, 10.1.0.0/16, ::1")
    settings = load_settings()
    assert settings.rate_operator == Rate(60, 5) and settings.rate_bad_keys is None
