"""Everything that goes wrong, told as a problem document (RFC 9457).

`type` is a stable path whose last part is the slug that programs compare; `detail` says what to do about
it, and `errors` says where. What was sent is never repeated: it may hold a phone number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cartwake.kit.errors import BadInput, CartwakeError, Conflict, NotAllowed, NotKnown

MEDIA_TYPE = "application/problem+json"
TYPE_PATH = "/problems/"

STATUSES: Mapping[type[CartwakeError], int] = {BadInput: 400, NotAllowed: 403, NotKnown: 404, Conflict: 409}
SLUGS = {400: "malformed-request", 404: "not-known", 405: "method-not-allowed"}

# A body of 64 KiB can be wrong in thousands of places; nobody reads them all.
ERRORS_MAX = 20
FIELD_MAX_CHARACTERS = 100

# Where pydantic's own words would puzzle somebody who has never heard of pydantic.
PLAIN_WORDS = {
    "extra_forbidden": "There is no such field.",
    "missing": "This is required.",
    "model_attributes_type": "This must be a JSON object.",
    "model_type": "This must be a JSON object.",
}


class FieldProblem(BaseModel):
    """One thing that is wrong in a request, and where."""

    field: str
    detail: str


class Problem(BaseModel):
    """A problem document."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


class Refused(HTTPException):
    """What HTTP itself refuses, before any rule is asked: no key, too large, not JSON."""

    def __init__(self, status: int, slug: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.slug = slug


def problem(
    status: int,
    slug: str,
    detail: str,
    *,
    errors: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that tells `detail`; `errors` is pairs of a field's path and what is wrong with it."""
    document = Problem(
        type=TYPE_PATH + slug,
        title=slug.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        errors=[FieldProblem(field=_shown(field), detail=why) for field, why in errors],
    )
    return JSONResponse(document.model_dump(), status, headers, MEDIA_TYPE)


def handle_problems(app: FastAPI) -> None:
    """Answer what callers can put right; what they cannot is `Envelope`'s to answer."""
    app.add_exception_handler(CartwakeError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, CartwakeError)
    status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 400)
    errors = [(error.field, detail) for detail in (error.detail, *error.also)] if error.field else []
    return problem(status, error.slug, error.detail, errors=errors)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # FastAPI leaves a body unparsed when its media type is not JSON
        return problem(415, "unsupported-media-type", "Send the body as application/json.")
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        detail = f"The body is not JSON: {found[0]['ctx']['error']} at character {found[0]['loc'][-1]}."
        return problem(400, "malformed-json", detail)
    errors = [(_path(each["loc"]), _words(each)) for each in found[:ERRORS_MAX]]
    return problem(422, "invalid-request", f"{errors[0][0]}: {errors[0][1]}", errors=errors)


async def _on_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    slug = error.slug if isinstance(error, Refused) else SLUGS.get(error.status_code, "refused")
    return problem(error.status_code, slug, str(error.detail), headers=error.headers)


def _path(location: Sequence[Any]) -> str:
    """`("body", "consent", "granted")` as `consent.granted`."""
    inside = location[1:] if location and location[0] in ("body", "query", "path", "header") else location
    return ".".join(map(str, inside or location))


def _words(error: Mapping[str, Any]) -> str:
    return PLAIN_WORDS.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")


def _shown(field: str) -> str:
    """A field's path fit to be sent: the name of an unknown field is whatever the caller wrote, halves of emoji too."""
    return field[:FIELD_MAX_CHARACTERS].encode("utf-8", "replace").decode()
