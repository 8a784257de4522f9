"""Whether the process lives, and whether it can work."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cartwake.kit.db import WEB
from cartwake.kit.runtime import deployment_mark
from cartwake.kit.schema import current_revision, expected_revision, is_older
from cartwake.web.auth import runtime_of
from cartwake.web.problems import problem

# Machine seconds; whoever asks has a limit of their own, and a late answer tells them nothing.
DATABASE_TIMEOUT_S = 3


async def healthz(request: Request) -> Response:
    """The process answers, and says which deployment it is of, so that `cartwake doctor` finds it behind an address.

    It says nothing about anything it needs: restarting it would not help those.
    """
    return JSONResponse({"status": "ok", "deployment": deployment_mark(runtime_of(request).vault)})


async def readyz(request: Request) -> Response:
    """The database answers, and its schema has what this code needs."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S), runtime_of(request).db.transaction(WEB) as conn:
            found = await current_revision(conn)
    except TimeoutError:
        return problem(503, "database-away", f"The database did not answer within {DATABASE_TIMEOUT_S} seconds.")
    if is_older(found):
        said = f"The schema is at {found}, older than {expected_revision()}: run the migrations."
        return problem(503, "schema-not-current", said)
    return JSONResponse({"status": "ok", "schema": found})


routes = [Route("/healthz", healthz, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]
