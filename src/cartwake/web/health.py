"""Whether the process lives, and whether it can work."""

from __future__ import annotations

import asyncio
from functools import cache

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cartwake.kit.db import WEB
from cartwake.kit.schema import current_revision, expected_revision, known_revisions
from cartwake.web.auth import runtime_of
from cartwake.web.problems import problem

# Machine seconds; whoever asks has a limit of their own, and a late answer tells them nothing.
DATABASE_TIMEOUT_S = 3


async def healthz(_request: Request) -> Response:
    """The process answers. It says nothing about anything it needs: restarting it would not help those."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """The database answers, and its schema is the one that this code expects, or a newer one.

    Newer, because an upgrade migrates first: the processes still to be restarted must not all fall out of service.
    """
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S), runtime_of(request).db.transaction(WEB) as conn:
            found = await current_revision(conn)
    except TimeoutError:
        return problem(503, "database-away", f"The database did not answer within {DATABASE_TIMEOUT_S} seconds.")
    if found is None or found in _older():
        detail = f"The schema is at {found}, older than {expected_revision()}: run the migrations."
        return problem(503, "schema-not-current", detail)
    return JSONResponse({"status": "ok", "schema": found})


@cache
def _older() -> set[str]:
    return known_revisions() - {expected_revision()}


routes = [Route("/healthz", healthz, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]
