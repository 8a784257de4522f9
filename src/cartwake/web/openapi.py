"""The API's description at `/openapi.json`: everything that a generated client needs, and every way to fail.

What FastAPI cannot know is added here for all operations alike: readable ids, which kind of key opens
what, the headers of every answer, and problem documents.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from cartwake.tenants.model import KEY_PREFIXES, KeyKind
from cartwake.web.auth import KEY_NAMES, key_kind_of
from cartwake.web.once import HEADER, REPLAYED_HEADER
from cartwake.web.problems import MEDIA_TYPE, Problem

Json = dict[str, Any]

# Whatever the operation: a body is counted before anybody asks whether there should be one.
ALWAYS = (400, 401, 403, 413, 429, 500, 503)

# For routes that can contradict what is recorded.
CONFLICT: dict[int | str, dict[str, Any]] = {409: {"description": "It contradicts what is recorded."}}
# For routes that ask for something which may not be there, without its id in their path.
NOT_KNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "It is not there."}}

DESCRIPTION = """\
Texts shoppers who left a cart behind. Every operation wants an API key of its kind as a bearer token. Errors are
problem documents (RFC 9457) whose `type` leads to an explanation. A POST with an `Idempotency-Key` is done once however
often it is sent. Lists come newest first; `next` of a page is `before` of the one after it. Times are RFC 3339 in UTC,
amounts whole numbers in the currency's smallest unit, durations seconds. How to use it all: `/docs`."""

# In the order in which a developer meets them.
TAGS = {
    "checkout sessions": "What a storefront tells about a cart, from its start to the order. Nothing else is needed "
    "for carts to be recovered.",
    "shoppers": "What concerns a shopper rather than a cart.",
    "texts": "What was sent, what was decided about it and why, and what a text would look like.",
    "replies": "What shoppers write back, and the shop's server that is told of it.",
    "settings": "What a shop chooses: whether it texts at all, when, and how much.",
    "merchant": "What an organization sees over all its shops.",
    "keys": "API keys: listed, made, replaced without a gap, and ended.",
    "operator": "For whoever runs the deployment: merchants, shops, credits, senders, kill switches.",
}
PATH_PARAMETERS = {
    "organization_id": "The organization's id.",
    "shop_id": "The shop's id.",
    "message_id": "The text's id.",
    "key_id": "The key's id; not its text.",
}
IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A random name for what is to be done, a UUID say. Sent again within a day, the same request is "
    "not done again but answered as the first time.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}
HEADERS: Json = {
    "RateLimit-Policy": "Requests that the key may make at once (`q`) and in how many seconds (`w`) its bucket "
    "is full again.",
    "RateLimit": "Requests left in the key's bucket (`r`), and in how many seconds (`t`) it is full again.",
    "Retry-After": "Seconds to wait before the request is sent again.",
    REPLAYED_HEADER: "`true` when the answer is that of an earlier request with the same `Idempotency-Key`.",
}

_METHODS = ("get", "put", "post", "delete")


def describe(app: FastAPI) -> Json:
    """The OpenAPI document of `app`; made once."""
    if app.openapi_schema is None:
        routes = [route for route in app.routes if isinstance(route, APIRoute)]
        for route in routes:
            route.operation_id = route.name  # short, and as stable as the function's name
        document = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=routes, tags=_tags(routes)
        )
        document["info"]["license"] = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
        document["servers"] = [{"url": app.state.runtime.settings.public_url, "description": "This deployment."}]
        _complete_components(document["components"])
        for route in routes:
            for method in _METHODS:
                if method.upper() in (route.methods or ()):
                    _complete(document["paths"][route.path_format][method], method, route)
        app.openapi_schema = document
    return app.openapi_schema


def _tags(routes: list[APIRoute]) -> list[Json]:
    used = dict.fromkeys(str(tag) for route in routes for tag in route.tags)
    ordered = [tag for tag in TAGS if tag in used] + [tag for tag in used if tag not in TAGS]
    return [{"name": tag, "description": TAGS.get(tag, "")} for tag in ordered]


def _complete_components(components: Json) -> None:
    schemas = components["schemas"]
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs") | {"Problem": problem}
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own error format, which we do not use
        schemas.pop(name, None)
    components["securitySchemes"] = {
        _scheme(kind): {
            "type": "http",
            "scheme": "bearer",
            "description": f"{KEY_NAMES[kind].capitalize()}; it begins with `{KEY_PREFIXES[kind]}`.",
        }
        for kind in KeyKind
    }
    components["headers"] = {
        name: {"description": words, "schema": {"type": "integer" if name == "Retry-After" else "string"}}
        for name, words in HEADERS.items()
    }


def _complete(operation: Json, method: str, route: APIRoute) -> None:
    operation["summary"] = operation["description"].split("\n\n")[0].split(". ")[0].removesuffix(".").replace("\n", " ")
    kind = key_kind_of(route.dependant)
    if kind is not None:
        operation["security"] = [{_scheme(kind): []}]
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter.setdefault("description", PATH_PARAMETERS.get(parameter["name"], "Its id."))
    if method == "post":
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    _complete_responses(operation, method)


def _complete_responses(operation: Json, method: str) -> None:
    responses = operation["responses"]
    names = ["RateLimit-Policy", "RateLimit"] + ([REPLAYED_HEADER] if method == "post" else [])
    for response in responses.values():
        response.setdefault("headers", {}).update(_headers(names))
    # FastAPI has declared 422 where there is a parameter or a body to be wrong.
    statuses = {*ALWAYS, *(int(declared) for declared in responses if declared >= "400")}
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", ())):
        statuses.add(404)
    if method == "post":
        statuses.add(409)
    if "requestBody" in operation:
        statuses.add(415)
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    for name in ("429", "503"):
        responses[name]["headers"] = _headers(["Retry-After"])


def _headers(names: list[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _scheme(kind: KeyKind) -> str:
    """`shop_secret` as `shopSecretKey`."""
    return kind.split("_")[0] + "".join(word.capitalize() for word in kind.split("_")[1:]) + "Key"
