"""The queues on BullMQ, where there is one, and its address."""

from __future__ import annotations

import importlib.util
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

QueueKind = Literal["texts", "email", "maintenance"]
QUEUE_NAMES: dict[QueueKind, str] = {
    "texts": "cartwake-texts",
    "email": "cartwake-email",
    "maintenance": "cartwake-maintenance",
}
QUEUE_CONCURRENCY: dict[QueueKind, int] = {"texts": 500, "email": 50, "maintenance": 1}


def _usable(setting: str | SecretStr) -> str | SecretStr:
    """Raises `ValueError` when this is no queue's address, or BullMQ is not installed; never says what stands in it."""
    if isinstance(setting, str):
        return setting
    try:
        parts = urlsplit(setting.get_secret_value())
        usable = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none; the message quotes it
        usable = False
    if not usable:
        raise ValueError("must be postgres, or an address like redis://127.0.0.1:6379/0 (rediss:// for TLS)")
    if importlib.util.find_spec("bullmq") is None:
        raise ValueError("needs the extra for BullMQ, which is not installed: pip install 'cartwake[bullmq]'")
    return setting


def _per_queue(value: Any, defaults: dict[QueueKind, int]) -> Any:
    """`texts=500,maintenance=1` as numbers; what is not named keeps its default."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    return {**defaults, **{name.strip(): number.strip() for name, _, number in pairs}}


QueueSetting = Annotated[Literal["postgres"] | SecretStr, AfterValidator(_usable)]
QueueConcurrency = Annotated[
    dict[QueueKind, Annotated[int, Field(ge=1, le=5000)]],
    NoDecode,
    BeforeValidator(lambda value: _per_queue(value, QUEUE_CONCURRENCY)),
]
QueueRate = Annotated[
    dict[QueueKind, Annotated[int, Field(ge=1, le=100_000)]],
    NoDecode,
    BeforeValidator(lambda value: _per_queue(value, {})),
]
