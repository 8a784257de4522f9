"""Every problem that the code can answer with is explained, and nothing is explained that it cannot."""

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from cartwake.kit import errors
from cartwake.kit.listen import CannotListenError
from cartwake.web.problems import STATUSES
from cartwake.web.reference.problems import KnownProblem, known_problems
from world import World

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "cartwake"

# Functions that make a problem, and which of their arguments is the slug.
MAKERS = {"Refused": 1, "problem": 1, "_bad_template": 1, "Flaw": 0}


def known() -> dict[str, KnownProblem]:
    return {each.slug: each for group in known_problems().values() for each in group}


def texts(node: ast.expr) -> Iterator[str]:
    """Every text that an expression can come to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def slugs_in(tree: ast.AST) -> Iterator[str]:
    """What is raised or answered in a module: `slug="…"`, a maker's argument, and what a class calls itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [keyword.value for keyword in node.keywords if keyword.arg == "slug"]
            if name in MAKERS and len(node.args) > MAKERS[name]:
                given.append(node.args[MAKERS[name]])
            for each in given:
                yield from texts(each)
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "slug":
            yield from texts(node.value)


def test_every_slug_of_the_code_is_explained_and_no_other() -> None:
    raised: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        if "demo" not in file.parts and "sandbox" not in file.parts:
            raised |= set(slugs_in(ast.parse(file.read_text())))
    # Nobody raises the family itself, and who cannot listen answers nobody.
    raised -= {errors.CartwakeError.slug, CannotListenError.slug}
    assert {"invalid-phone", "unauthorized", "too-many-requests", "missing-link", "idempotency-key-in-use"} <= raised
    assert raised == set(known()), "mend src/cartwake/web/reference/problems.toml"


def test_statuses_are_those_of_the_code() -> None:
    for kind, status in STATUSES.items():
        assert known()[kind.slug].status == status


def test_the_page_is_made_from_the_table() -> None:
    draw = runpy.run_path(str(ROOT / "docs" / "make_problems.py"))["page"]
    assert (ROOT / "docs" / "problems.md").read_text() == draw(), "run: python docs/make_problems.py"


async def test_a_type_leads_to_its_section(world: World) -> None:
    page = (await world.http.get("/docs/problems")).text
    for slug, each in known().items():
        answer = await world.http.get(f"/problems/{slug}")
        assert answer.status_code == 302 and answer.headers["location"] == f"/docs/problems#{slug}"
        assert f'id="{slug}"' in page and each.title in page
    assert (await world.http.get("/problems/nobody-knows")).status_code == 404


async def test_what_is_answered_is_what_is_explained(world: World) -> None:
    """A sample of each way in which problems come about: their status is the one that the page tells."""
    shop = await world.shop()
    for method, path, body in [
        ("GET", "/v1/nowhere", None),
        ("PATCH", "/v1/shops", None),
        ("GET", "/v1/credits", None),
        ("GET", "/v1/messages?limit=0", None),
        ("GET", "/v1/messages?limits=5", None),
        ("PUT", "/v1/checkout-sessions/cart-1", {"phone": "1", "consent": {"granted": True}}),
        ("GET", "/v1/checkout-sessions/cart-1", None),
    ]:
        answer = await shop.api(method, path, body)
        slug = answer.json()["type"].removeprefix("/problems/")
        assert known()[slug].status == answer.status_code, (method, path)
        assert answer.json()["title"] == known()[slug].title


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/sms-config", "GET, PUT"),
        ("/v1/keys", "GET, POST"),
        ("/v1/checkout-sessions/cart-1", "GET, PUT"),
        ("/v1/kill-switch", "DELETE, PUT"),
        ("/healthz", "GET, HEAD"),
        ("/hooks/twilio/status", "POST"),
    ],
)
async def test_a_wrong_method_is_told_every_right_one(world: World, path: str, allowed: str) -> None:
    answer = await world.http.request("PATCH", path)
    assert answer.status_code == 405 and answer.headers["allow"] == allowed
    assert answer.json()["detail"] == f"This path answers {allowed}."


async def test_an_unknown_path_says_where_to_look(world: World) -> None:
    for path in ("/v1/shops/", "/v2/shops", "/", "/v1/checkout-sessions/a/b/c"):
        answer = await world.http.get(path)
        assert answer.status_code == 404 and answer.json()["type"] == "/problems/no-such-address"
        assert "/docs" in answer.json()["detail"]


async def test_unknown_query_parameters_are_refused_on_every_route(world: World) -> None:
    shop = await world.shop()
    callers = {"operatorKey": world.operator, "organizationKey": shop.merchant, "shopSecretKey": shop}
    document = (await world.http.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            ((scheme,),) = operation["security"]
            address = path.replace("{external_id}", "cart-1").replace("{organization_id}", str(shop.shop_id))
            known = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
            query = "?colour=red&limt=5" + ("&limit=5" if "limit" in known else "")
            answer = await callers[scheme].api(method.upper(), address + query)
            assert answer.status_code == 400, (method, path, answer.text)
            problem = answer.json()
            assert problem["type"] == "/problems/unknown-parameter"
            assert [error["field"] for error in problem["errors"]] == ["colour", "limt"], path


async def test_a_list_says_which_parameters_it_has(world: World) -> None:
    shop = await world.shop()
    problem = (await shop.api("GET", "/v1/messages?page=2")).json()
    assert problem["detail"] == "This operation has no such query parameter. It has state, before, limit."
    many = "&".join(f"x{number}=1" for number in range(500))
    assert len((await shop.api("GET", f"/v1/messages?{many}")).json()["errors"]) == 20


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("field", "value", "detail"),
    [
        ("currency", "eur", "must be a currency code of ISO 4217: three capital letters, like EUR"),
        ("currency", "EURO", "must be a currency code of ISO 4217: three capital letters, like EUR"),
        ("currency", "", "must be a currency code of ISO 4217: three capital letters, like EUR"),
        ("currency", 978, "must be a text"),
        ("country", "Lithuania", "must be a country code of ISO 3166-1 alpha-2: two capital letters, like LT"),
        ("cart_value_minor", 59.9, "must be a whole number"),
        ("cart_value_minor", "5990", "must be a whole number"),
        ("cart_value_minor", -1, "must be greater than or equal to 0"),
    ],
)
async def test_the_words_are_plain(world: World, field: str, value: object, detail: str) -> None:
    shop = await world.shop()
    answer = await shop.api("PUT", "/v1/checkout-sessions/cart-1", {field: value})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": field, "detail": detail}]
    assert answer.json()["detail"] == f"{field}: {detail}"
