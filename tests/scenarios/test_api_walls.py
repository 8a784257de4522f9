"""Every route of the API with every kind of key that is not the victim's: what the victim has is not there.

Generated from the route table and the API's description. The victim has a row behind every parameter of a path, of a
query and of a body that names something; one that is not known here fails the test, so a new one cannot be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from psycopg import sql

from cartwake.carts.links import RecoveryClaim, link_id_of, link_path, sign_recovery_token
from cartwake.kit.config import Settings
from cartwake.kit.phones import mask
from cartwake.web.gate import Gate
from cartwake.web.openapi import describe
from catalogue import every_row
from deployment import Deployment
from routes import ApiRoute, api_routes
from walls import Walls
from world import RUTA, Caller, Json

CART = "cart-of-ruta"
MAKES_OWN = ("PUT", "/v1/checkout-sessions/{external_id}")
# With these a caller says something of the victim's cart or phone that is its own to say, and to see afterwards.
LEAVES_OWN = {MAKES_OWN, ("POST", "/v1/consent-withdrawals")}
# Whose keys open routes of the API: a storefront's open none yet.
OPENING = ["another organization", "another organization's shop", "a sibling shop"]
# The clock stands still, so that no bucket would ever fill again.
UNLIMITED = Settings(
    rate_operator=None, rate_organization=None, rate_shop_secret=None, rate_shop_publishable=None, rate_bad_keys=None
)
# Fields of bodies that name nothing of a tenant's, or what is the caller's own to name.
PLAIN_FIELDS = {
    *("actor", "address", "attribution_window_s", "cart_value_minor", "checkout_url", "completed_at", "consent"),
    *("countries", "country", "credits", "currency", "cycle_cap", "default_country", "default_locale", "email_delay_s"),
    *("enabled", "form_field", "granted", "idle_s", "ip", "kind", "locale", "low_credits_at", "name", "note"),
    *("occurred_at", "order_id", "overlap_s", "page_url", "payment_timeout_s", "plan", "province", "reference"),
    *("segments_per_s", "shop_name", "sms_config", "spread_s", "stale_after_s", "status", "text", "text_delay_s"),
    *("time_zone", "two_way_sender", "url", "value_minor", "window_closes", "window_opens", "wording"),
    "wording_version",
}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass
class Prey:
    """What the victim has, by how a request would name it, and how it would look in an answer."""

    in_path: dict[str, list[str]]
    in_query: dict[str, list[str]]
    in_body: dict[str, str]
    ids: set[str]
    words: set[str]

    def shown_in(self, answer: str, request: str) -> set[str]:
        """What of the victim's an answer holds, but what the request named itself."""
        named = {mask(RUTA)} if RUTA in request else set()
        return {each for each in (self.ids | self.words) - named if each in answer and each not in request}

    def requests(self, route: ApiRoute, document: Json) -> Iterator[tuple[str, dict[str, str], Any]]:
        """Path, query and body of every request to the route that names something of the victim's."""
        operation = document["paths"][route.path][route.method.lower()]
        names = re.findall(r"\{(\w+)\}", route.path)
        asked = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
        queries = [{}, *({name: value} for name in asked for value in self.in_query[name])]
        bodies = [route.body]
        fields = set(_properties(operation.get("requestBody", {}), document))
        if (route.method, route.path) == MAKES_OWN:
            fields.remove("phone")  # the cart would be the caller's, and its phone shown with good right
        if named := {name: self.in_body[name] for name in fields - PLAIN_FIELDS}:
            bodies.append(route.body | named | ({"kind": "shop_secret"} if "shop_id" in named else {}))
        for values, query, body in product(product(*(self.in_path[name] for name in names)), queries, bodies):
            yield route.path.format(**dict(zip(names, values, strict=True))), query, body


def _properties(schema: Any, document: Json) -> Iterator[str]:
    """Names of all fields, however deep."""
    if isinstance(schema, list):
        for each in schema:
            yield from _properties(each, document)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            yield from _properties(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
        yield from schema.get("properties", ())
        for key, value in schema.items():
            if key != "examples":
                yield from _properties(value, document)


async def prey_of(walls: Walls, deployment: Deployment) -> Prey:
    shop, merchant, vault = walls.victim, walls.victim.merchant, deployment.runtime.vault
    (message,) = walls.victim_rows("sms_messages")
    message_id, session_id = UUID(message["message_id"]), UUID(message["session_id"])
    token = sign_recovery_token(vault, RecoveryClaim(message_id, session_id), deployment.clock.now().replace(year=2030))
    await shop.complete(CART, recovery_token=token)
    keys = {each["kind"]: each["key_id"] for each in (await merchant.call("GET", "/v1/keys"))["data"]}
    (operators,) = (await deployment.world.operator.call("GET", "/v1/operator-keys"))["data"]
    link_id = link_id_of(vault, message_id)
    return Prey(
        in_path={
            "organization_id": [str(merchant.organization_id)],
            "shop_id": [str(shop.shop_id)],
            "external_id": [CART],
            "message_id": [str(message_id)],
            "key_id": [keys["organization"], keys["shop_secret"], operators["key_id"]],
            "locale": ["en"],
        },
        in_query={
            "before": [str(UUID(int=2**128 - 1)), "1000"],
            "limit": ["200"],
            "state": [message["state"]],
            "phone": [RUTA],
        },
        in_body={"shop_id": str(shop.shop_id), "phone": RUTA, "token": token, "recovery_token": token},
        ids={found for table in walls.tables for row in walls.victim_rows(table) for found in _UUID.findall(str(row))},
        words={
            *(RUTA, mask(RUTA), "Linas", "Lino Namai", CART, f"order-of-{CART}", f"Hello from {RUTA[-4:]}", token),
            *(link_path(vault, link_id, "recover")[3:], link_path(vault, link_id, "opt-out")[3:]),
            *(str(key) for key in (shop.key, shop.publishable_key, merchant.key)),
            message["carrier_sid"],
        },
    )


@dataclass(frozen=True)
class Intruder:
    """Somebody with a key that is not the victim's."""

    caller: Caller
    own: dict[str, str]  # what stands in the rows that are the caller's to change
    shares: set[str] = field(default_factory=set)  # with the victim, by design


def intruders_of(walls: Walls) -> dict[str, Intruder]:
    """Every kind of key there is, in every place that is not the victim's; and the victim's own that opens nothing."""
    stranger, sibling, http = walls.stranger, walls.sibling, walls.stranger.http
    strangers = {"organization_id": str(stranger.merchant.organization_id)}
    siblings = {"shop_id": str(sibling.shop_id)}
    shared = {"Lino Namai", str(walls.victim.merchant.organization_id)}
    return {
        "another organization": Intruder(stranger.merchant, strangers),
        "another organization's shop": Intruder(stranger, strangers),
        "another organization's storefront": Intruder(Caller(http, stranger.publishable_key), strangers),
        "a sibling shop": Intruder(sibling, siblings, shared),
        "a sibling shop's storefront": Intruder(Caller(http, sibling.publishable_key), siblings, shared),
        "the victim's own storefront": Intruder(Caller(http, walls.victim.publishable_key), {}),
        "a guess": Intruder(Caller(http, "cw_shop_guessed"), {}),
        "nobody": Intruder(Caller(http, None), {}),
    }


def in_order(deployment: Deployment) -> list[ApiRoute]:
    """Every route; last those after which the caller has something of its own by the name of the victim's."""
    return sorted(api_routes(deployment.world.app), key=lambda route: (route.method, route.path) in LEAVES_OWN)


@pytest.mark.parametrize(
    "who",
    [OPENING[-1], *(pytest.param(who, marks=pytest.mark.thorough) for who in (*OPENING[:-1], "the rest"))],
)
async def test_no_route_shows_or_changes_what_is_anothers(walls: Walls, deployment: Deployment, who: str) -> None:
    known = intruders_of(walls)
    await walk(walls, deployment, [each for each in known if each not in OPENING] if who == "the rest" else [who])


@pytest.mark.thorough
async def test_the_queries_alone_would_keep_them_apart(walls: Walls, deployment: Deployment) -> None:
    """The other wall is down: what keeps the tenants apart now is what each query asks."""
    for table in walls.tables:
        walls.owner.execute(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(sql.Identifier(table)))
    await walk(walls, deployment, OPENING)


async def walk(walls: Walls, deployment: Deployment, names: list[str]) -> None:
    """Every route as each of these intruders."""
    prey = await prey_of(walls, deployment)
    deployment.world.app.state.gate = Gate(UNLIMITED, deployment.clock)
    document, routes = describe(deployment.world.app), in_order(deployment)
    assert len(routes) > 45
    known = intruders_of(walls)
    for name in names:
        intruder = known[name]
        await intruder.caller.api("GET", "/v1/shops")  # from now on the use of its key is noted
        before = every_row(deployment.database_url, but_of=intruder.own)
        statuses = set()
        for route in routes:
            for path, query, body in prey.requests(route, document):
                answer = await intruder.caller.api(route.method, path, body, params=query)
                statuses.add(answer.status_code)
                told = f"{name}: {route.method} {path} {query} {body}: {answer.status_code} {answer.text}"
                assert answer.status_code < 500, told
                if name not in OPENING:
                    assert answer.status_code in (401, 403), told
                if "_id}" in route.path.replace("{external_id}", ""):
                    assert answer.status_code in (401, 403, 404), told
                assert not prey.shown_in(answer.text, f"{path} {query} {body}") - intruder.shares, told
        assert every_row(deployment.database_url, but_of=intruder.own) == before, name
        assert name not in OPENING or statuses >= {200, 403, 404}, "the attack got past the door"


@pytest.mark.thorough
async def test_no_path_answers_another_verb(walls: Walls, deployment: Deployment) -> None:
    prey = await prey_of(walls, deployment)
    methods: dict[str, set[str]] = {}
    for route in api_routes(deployment.world.app):
        methods.setdefault(route.path, set()).add(route.method)
    before = every_row(deployment.database_url)
    for path, answered in methods.items():
        values = {name: found[0] for name, found in prey.in_path.items()}
        for method in {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"} - answered:
            answer = await walls.stranger.api(method, path.format(**values))
            assert answer.status_code == 405, (method, path)
    assert every_row(deployment.database_url) == before
