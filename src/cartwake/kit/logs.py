"""Structured logs: one line per happening, with context, without phone numbers or secrets.

An error is told by its kind and place. Its message is never written: a driver's, a parser's or a carrier's may
quote the value it tripped over, and that may be somebody's phone.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterable, MutableMapping
from itertools import islice
from types import TracebackType
from typing import Any
from uuid import UUID

import structlog

from cartwake.kit import metrics
from cartwake.kit.config import Settings

Line = MutableMapping[str, Any]

# The last fence, not the first: no code logs a number on purpose, but another's library may.
PHONE_LIKE = re.compile(r"\+\d{7,15}\b|%2B\d{7,15}\b", re.IGNORECASE)
FRAMES_SHOWN = 5
CAUSES_SHOWN = 3
IDS_SHOWN = 50

# What these say about failures is theirs alone: an address, a login, a refused connection. No rows, no requests.
PLAIN_SPEAKERS = ("psycopg.pool", "uvicorn.error")


def configure_logs(settings: Settings) -> None:
    """Log to stderr at the configured level, as JSON lines or for people to read.

    What other libraries say, and whatever ends this process unexpectedly, comes out the same way.
    """
    console: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    json: Any = structlog.processors.JSONRenderer()
    as_json = settings.log_format == "json"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            reduce_errors,
            count_errors,
            redact_phones,
            json if as_json else console,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        # Asked each time, so that whoever replaces stderr gets the lines; logging is rare enough not to matter.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Whoever set up a handler of their own (a test does) keeps it.
    logging.lastResort = LibraryLines(logging.WARNING)
    sys.excepthook = _log_the_end


def describe_error(error: BaseException) -> dict[str, Any]:
    """An error without its message: its kind, SQLSTATE and constraint, what caused it, and where it happened."""
    found: dict[str, Any] = {"error": type(error).__name__}
    if sqlstate := getattr(error, "sqlstate", None):
        found["sqlstate"] = sqlstate
    if constraint := getattr(getattr(error, "diag", None), "constraint_name", None):
        found["constraint"] = constraint
    if isinstance(error, BaseExceptionGroup):
        found["inside"] = [type(each).__name__ for each in error.exceptions[:CAUSES_SHOWN]]
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < CAUSES_SHOWN:
        causes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    if causes:
        found["causes"] = causes
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_SHOWN:]
    return found | {"at": [f"{frame.filename}:{frame.lineno}" for frame in frames]}


def some_ids(ids: Iterable[UUID]) -> list[str]:
    """Ids for a log line: enough to begin with."""
    return [str(each) for each in islice(ids, IDS_SHOWN)]


def reduce_errors(_logger: Any, _method: str, line: Line) -> Line:
    """Replace the exception of a line by what may be told of it."""
    told = line.pop("exc_info", None)
    error = sys.exc_info()[1] if told is True else told[1] if isinstance(told, tuple) else told
    if isinstance(error, BaseException):
        line.update({name: value for name, value in describe_error(error).items() if name not in line})
    return line


def count_errors(_logger: Any, _method: str, line: Line) -> Line:
    """Lines of level error and above are counted, so that an alert can ask somebody to read them."""
    if line.get("level") in ("error", "critical"):
        metrics.LOG_ERRORS.labels(metrics.event_label(str(line.get("event")))).inc()
    return line


def redact_phones(_logger: Any, _method: str, line: Line) -> Line:
    """Blot out whatever looks like a phone number in any text of a line."""
    for name, value in line.items():
        line[name] = _redacted(value)
    return line


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return PHONE_LIKE.sub("[phone]", value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(each) for each in value]
    if isinstance(value, dict):
        return {name: _redacted(each) for name, each in value.items()}
    return value


class LibraryLines(logging.Handler):
    """What libraries log, as lines of ours: their words as they wrote them in the code, without what filled them."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage() if record.name in PLAIN_SPEAKERS else str(record.msg)
        told = record.exc_info[1] if record.exc_info else None
        level = min(record.levelno // 10 * 10, logging.CRITICAL)
        words = text.strip().partition("\n")[0]
        structlog.get_logger().log(level, "library.said", library=record.name, said=words, exc_info=told)


def _log_the_end(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    structlog.get_logger().critical("process.failed", exc_info=error)
