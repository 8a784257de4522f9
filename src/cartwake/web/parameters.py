"""Query parameters that an operation does not have are refused, on every route alike.

A misspelt filter would otherwise be a filter that is not applied, and nobody would notice.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from cartwake.web.problems import ERRORS_MAX, Refused


def refuse_unknown_parameters(request: Request) -> None:
    """Raises `Refused` (400) naming every query parameter that the request's route does not declare."""
    route = request.scope.get("route")
    if not request.url.query or not isinstance(route, APIRoute):
        return
    known = _declared(route.dependant)
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        has = f"It has {', '.join(known)}." if known else "It has none."
        detail = f"This operation has no such query parameter. {has}"
        errors = [(name, "There is no such parameter.") for name in unknown[:ERRORS_MAX]]
        raise Refused(400, "unknown-parameter", detail, errors=errors)


def _declared(dependant: Dependant) -> list[str]:
    """Names of the query parameters of an endpoint and of what it depends on."""
    own = [field.alias for field in dependant.query_params]
    return own + [name for each in dependant.dependencies for name in _declared(each)]
