"""What the web process counts about requests."""

from __future__ import annotations

import structlog
from starlette.types import Scope

from cartwake.kit import metrics

log = structlog.get_logger()

UNMATCHED = "unmatched"


def route_of(scope: Scope) -> str:
    """The template of the route that a request took, or `unmatched`: an address may hold a link's token."""
    route = scope.get("route")  # FastAPI's own routes leave themselves here
    if route is None and (endpoint := scope.get("endpoint")) is not None:
        route = next((each for each in scope["app"].routes if getattr(each, "endpoint", None) == endpoint), None)
    return str(getattr(route, "path", UNMATCHED))


def note_answer(scope: Scope, status: int, took_s: float) -> None:
    """Count a request that was answered, and log it for whoever wants to see each; machine seconds."""
    route, method = route_of(scope), metrics.method_label(scope["method"])
    metrics.HTTP_REQUESTS.labels(route, method, f"{status // 100}xx").inc()
    metrics.HTTP_SECONDS.labels(route).observe(took_s)
    log.debug("request.answered", route=route, method=method, status=status, took_ms=round(took_s * 1000, 1))
