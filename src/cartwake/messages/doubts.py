"""Texts whose fate nobody knows, for the operator, each with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cartwake.kit.db import Connection, rows
from cartwake.messages import store
from cartwake.messages.model import MessageState

ADVICE = {
    MessageState.UNKNOWN: "Nothing yet: the carrier is asked every minute, the credits stay reserved meanwhile.",
    MessageState.UNRESOLVED: "The carrier could not be asked for a day; the credits went back and nothing is resent. "
    "Look the text up at the carrier by its attempt id (in the status callback's address) or by time; if it was "
    "delivered and should be paid for, take the credits with an adjustment.",
}


@dataclass(frozen=True)
class Doubt:
    """One text in doubt, without anything that could identify the shopper."""

    organization_id: UUID
    shop_id: UUID
    message_id: UUID
    state: str
    reason: str | None
    attempt_id: UUID
    attempted_at: datetime
    phone_country: str
    credits: int
    ended_at: datetime | None

    @property
    def advice(self) -> str:
        """What to do, in a sentence."""
        return ADVICE[MessageState(self.state)]


async def list_doubts(conn: Connection, *, before: UUID | None = None, limit: int = 100) -> list[Doubt]:
    """A page of the texts that are `unknown` or ended `unresolved`, newest first. Operator or engine login."""
    found: list[dict[str, Any]] = await rows(conn, store.LIST_DOUBTFUL, {"before": before, "limit": limit})
    return [Doubt(**each) for each in found]
