"""Carrier events that could not be applied: set aside so that those behind them go on, kept, and tried again on demand.

Nothing of one is applied. A receipt that comes late changes what it still may (the ranks of `answers`); a STOP that
comes late holds from when it was said (docs/decisions/0025-an-event-that-cannot-be-applied.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg

from cartwake.jobs.trigger import Wake, announce
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.errors import NotKnown
from cartwake.kit.phones import mask
from cartwake.messages import store
from cartwake.messages.inbox import STATUS, StoredEvent, open_events
from cartwake.messages.keywords import Intent, intent
from cartwake.messages.receipts import read_report

UNREADABLE = "unreadable"  # what is stored is no event of ours: sealed with other keys, or a field is wrong
FAILED = "failed"  # it can be read; writing what it says was refused, or went wrong

_OUR_READING = (ValueError, LookupError, TypeError, psycopg.DataError)


@dataclass(frozen=True)
class SetAside:
    """One of them, without anything that could identify the shopper."""

    event_id: UUID
    about: str
    received_at: datetime
    outcome: str
    error: str | None
    is_stop: bool  # somebody said no, and is not heard until this is applied


@dataclass(frozen=True)
class Pile:
    """How many there are, and since when the oldest has not been applied."""

    events: int
    oldest_at: datetime | None


def is_of_the_event(error: Exception) -> bool:
    """Whether an error may be one event's own, so that the others are worth trying without it.

    Not: a database that is away, or that lacks a table or a right. That is everybody's, and mended for all at once.
    """
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError) or not isinstance(error, psycopg.Error)


async def set_aside(conn: Connection, now: datetime, event_id: UUID, error: Exception) -> str | None:
    """Mark an event as one that could not be applied, and keep it; its kind.

    None when another worker has applied it since.
    """
    outcome = UNREADABLE if isinstance(error, _OUR_READING) else FAILED
    params = {"now": now, "event_id": event_id, "outcome": outcome, "error": type(error).__name__}
    found = await row(conn, store.SET_ASIDE, params)
    return found["kind"] if found else None


async def count_set_aside(conn: Connection) -> Pile:
    """Engine login."""
    found = await row(conn, store.COUNT_SET_ASIDE)
    assert found is not None
    return Pile(**found)


async def list_set_aside(
    conn: Connection, vault: Vault, *, before: UUID | None = None, limit: int = 100
) -> list[SetAside]:
    """A page of them, newest first. Engine login."""
    found = await rows(conn, store.LIST_SET_ASIDE, {"before": before, "limit": limit})
    return [_seen(vault, each.pop("outcome"), each.pop("error"), StoredEvent(**each)) for each in found]


async def put_back(conn: Connection, event_id: UUID | None = None) -> int:
    """Let workers try one again, or all of them; how many. Engine login. Raises `NotKnown` for one that is not here."""
    found = await rows(conn, store.PUT_BACK, {"event_id": event_id})
    if event_id is not None and not found:
        raise NotKnown("No event with this id is set aside.")
    await announce(conn, Wake.EVENTS)
    return len(found)


async def dismiss(conn: Connection, now: datetime, event_id: UUID) -> None:
    """Nobody will apply it any more. Engine login. Raises `NotKnown`."""
    if await row(conn, store.DISMISS, {"now": now, "event_id": event_id}) is None:
        raise NotKnown("No event with this id is set aside.")


def _seen(vault: Vault, outcome: str, error: str | None, stored: StoredEvent) -> SetAside:
    about, is_stop = f"{stored.kind}, which cannot be read", False
    try:
        said = open_events(vault, [stored])[0].payload
        if stored.kind == STATUS:
            report = read_report(said)
            about = f"receipt {report.status} of {report.sid}"
        else:
            meaning = intent(said["body"], said.get("opt_out_type"))
            about, is_stop = f"{meaning} from {mask(said['sender'])} to {said['to']}", meaning is Intent.STOP
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return SetAside(stored.event_id, about, stored.received_at, outcome, error, is_stop)
