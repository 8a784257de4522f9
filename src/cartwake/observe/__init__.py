"""Looking from outside: what the edges count, what the scheduler reads from the database, and who may ask.

Nothing here decides anything. Every count is taken from what a room returned, after its transaction committed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import structlog

P = ParamSpec("P")

log = structlog.get_logger()


def harmless(look: Callable[P, None]) -> Callable[P, None]:
    """A look that goes wrong is logged and forgotten: between a claim and its texts nothing may stand in the way."""

    @wraps(look)
    def tried(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            look(*args, **kwargs)
        except Exception:
            log.exception("observe.failed", look=look.__name__)

    return tried
