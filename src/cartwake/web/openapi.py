"""The API's description at `/openapi.json`, with every way in which a request can fail."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cartwake.web.problems import MEDIA_TYPE, Problem

ALWAYS = (400, 401, 403, 404, 413, 422, 500, 503)

# For routes that can contradict what is recorded.
CONFLICT: dict[int | str, dict[str, Any]] = {409: {"description": "It contradicts what is recorded."}}

_METHODS = ("get", "put", "post", "delete")


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`; made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= problem.pop("$defs") | {"Problem": problem}
        for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own error format, which we do not use
            schemas.pop(name, None)
        for path in document["paths"].values():
            for method in _METHODS:
                if method in path:
                    _add_problems(path[method])
        app.openapi_schema = document
    return app.openapi_schema


def _add_problems(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    statuses = {*ALWAYS, *(int(declared) for declared in responses if declared >= "400")}
    if "requestBody" in operation:
        statuses.add(415)
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
