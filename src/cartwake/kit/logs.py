"""Structured logs: one line per happening, with context, without phone numbers or secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from cartwake.kit.config import Settings

# The last fence, not the first: no code logs a number on purpose, but an exception's text may quote one.
PHONE_LIKE = re.compile(r"\+\d{7,15}\b|%2B\d{7,15}\b")


def configure_logs(settings: Settings) -> None:
    """Log to stderr at the configured level, as JSON lines or for people to read."""
    console: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    json: Any = structlog.processors.JSONRenderer()
    as_json = settings.log_format == "json"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact_phones,
            json if as_json else console,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        # Asked each time, so that whoever replaces stderr gets the lines; logging is rare enough not to matter.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def redact_phones(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blot out whatever looks like a phone number in any text of a line."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = PHONE_LIKE.sub("[phone]", value)
    return line
