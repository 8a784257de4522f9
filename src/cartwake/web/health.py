"""Whether the process lives, and whether it can work."""

from __future__ import annotations

import asyncio
from functools import cache

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cartwake.kit.db import WEB
from cartwake.kit.runtime import deployment_mark
from cartwake.kit.schema import current_revision, expected_revision
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
    """The database answers, and its schema is the one that this code expects."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S), runtime_of(request).db.transaction(WEB) as conn:
            found = await current_revision(conn)
    except TimeoutError:
        return problem(503, "database-away", f"The database did not answer within {DATABASE_TIMEOUT_S} seconds.")
    if found != _expected():
        return problem(503, "schema-not-current", f"The schema is at {found}, not {_expected()}: run the migrations.")
    return JSONResponse({"status": "ok", "schema": found})


@cache
def _expected() -> str:
    return expected_revision()


routes = [Route("/healthz", healthz, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]
