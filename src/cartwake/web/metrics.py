"""`/metrics` of the web process, and what it counts about requests.

The port is the public one, so a scraper shows the token; without a configured token there is no such page.
"""

from __future__ import annotations

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from cartwake.kit import metrics
from cartwake.observe.exporter import may_scrape
from cartwake.web.auth import runtime_of
from cartwake.web.problems import Refused

log = structlog.get_logger()

UNMATCHED = "unmatched"


async def page(request: Request) -> Response:
    """This process's metrics. Nothing is read from the database: that is the scheduler's to show."""
    runtime = runtime_of(request)
    if runtime.settings.metrics_token is None:
        raise Refused(404, "not-known", "Not Found")
    if not may_scrape(runtime.settings, request.headers.get("authorization", "")):
        raise Refused(401, "unauthorized", "Send the metrics token.", {"WWW-Authenticate": "Bearer"})
    body, media_type = metrics.page("web", runtime.db, request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": media_type})


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


routes = [Route("/metrics", page, methods=["GET"])]
