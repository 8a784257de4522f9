"""Everything that goes wrong, told as a problem document (RFC 9457).

`type` is a stable path whose last part is the slug that programs compare, and which leads to the slug's
section of the reference (`reference/problems.toml`). `detail` says what to do about it, and `errors` says
where. What was sent is never repeated: it may hold a phone number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from cartwake.kit.errors import BadInput, CartwakeError, Conflict, NotAllowed, NotKnown

MEDIA_TYPE = "application/problem+json"
TYPE_PATH = "/problems/"

STATUSES: Mapping[type[CartwakeError], int] = {BadInput: 400, NotAllowed: 403, NotKnown: 404, Conflict: 409}

NO_SUCH_ADDRESS = "There is no operation at this path. They are listed at /docs; none ends with a slash."

# A body of 64 KiB can be wrong in thousands of places; nobody reads them all.
ERRORS_MAX = 20
FIELD_MAX_CHARACTERS = 100

# Where pydantic's own words would puzzle somebody who has never heard of pydantic.
PLAIN_WORDS = {
    "bool_type": "must be true or false",
    "extra_forbidden": "There is no such field.",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "missing": "This is required.",
    "model_attributes_type": "This must be a JSON object.",
    "model_type": "This must be a JSON object.",
    "string_type": "must be a text",
    "uuid_parsing": "must be a UUID",
}


class FieldProblem(BaseModel):
    """One thing that is wrong in a request, and where."""

    field: str = Field(description="The path of the field in the body, or the parameter's name.")
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/invalid-phone",
                    "title": "Invalid phone",
                    "status": 400,
                    "detail": "The phone number is not a valid number.",
                    "errors": [{"field": "phone", "detail": "The phone number is not a valid number."}],
                }
            ]
        }
    )

    type: str = Field(description="Stable. Its last part is what programs compare; opened, it explains the problem.")
    title: str
    status: int = Field(description="The HTTP status, again.")
    detail: str = Field(description="What was wrong this time, and what to do. For people; it may change.")
    errors: list[FieldProblem] = Field([], description="Where it was wrong, if it can be said; 20 at most.")


class Refused(HTTPException):
    """What HTTP itself refuses, before any rule is asked: no key, too large, not JSON."""

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        headers: dict[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(status, detail, headers)
        self.slug = slug
        self.errors = errors


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
        title=title_of(slug),
        status=status,
        detail=detail,
        errors=[FieldProblem(field=_shown(field), detail=why) for field, why in errors],
    )
    return JSONResponse(document.model_dump(), status, headers, MEDIA_TYPE)


def title_of(slug: str) -> str:
    """`invalid-phone` as "Invalid phone"."""
    return slug.replace("-", " ").capitalize().replace("json", "JSON")


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


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return refusal(error)
    if error.status_code == 404:
        return problem(404, "no-such-address", NO_SUCH_ADDRESS)
    if error.status_code == 405:
        allowed = ", ".join(_methods_of(request))
        return problem(405, "method-not-allowed", f"This path answers {allowed}.", headers={"Allow": allowed})
    slug = "malformed-request" if error.status_code == 400 else "refused"
    return problem(error.status_code, slug, str(error.detail), headers=error.headers)


def refusal(error: Refused) -> Response:
    """The answer that a refusal is."""
    return problem(error.status_code, error.slug, str(error.detail), errors=error.errors, headers=error.headers)


def _methods_of(request: Request) -> list[str]:
    """What the path answers. Each method is a route of its own, and the router tells only the first one's."""
    at_path = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in at_path for method in getattr(route, "methods", None) or ()})


def _path(location: Sequence[Any]) -> str:
    """`("body", "consent", "granted")` as `consent.granted`."""
    inside = location[1:] if location and location[0] in ("body", "query", "path", "header") else location
    return ".".join(map(str, inside or location))


def _words(error: Mapping[str, Any]) -> str:
    plain = PLAIN_WORDS.get(error["type"])
    return plain or str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _shown(field: str) -> str:
    """A field's path fit to be sent: the name of an unknown field is whatever the caller wrote, halves of emoji too."""
    return field[:FIELD_MAX_CHARACTERS].encode("utf-8", "replace").decode()
