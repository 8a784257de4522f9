"""Delivery receipts: what the carrier says became of a text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from cartwake.carriers.protocol import MessageStatus, StatusReport
from cartwake.kit.db import Connection
from cartwake.kit.moment import Moment
from cartwake.messages.answers import InFlight, Move, apply_moves, fold_receipts, lock_in_flight
from cartwake.messages.inbox import CarrierEvent


async def apply_receipts(
    conn: Connection, moment: Moment, events: Sequence[CarrierEvent], refund_on: Collection[str]
) -> tuple[dict[UUID, str], list[Move]]:
    """Apply a batch of stored receipts; what came of each (`applied`, `unchanged`, `unmatched`), and of messages.

    `refund_on`: the final outcomes after which credits go back (the operator's policy).
    """
    reports = {event.event_id: read_report(event.payload) for event in events}
    messages = await lock_in_flight(
        conn,
        attempts=[report.attempt_id for report in reports.values() if report.attempt_id],
        sids=[report.sid for report in reports.values()],
    )
    outcomes = dict.fromkeys(reports, "unmatched")
    moves: list[Move] = []
    for message, theirs in _match(messages, reports).values():
        move = fold_receipts(message, [reports[event_id] for event_id in theirs], refund_on)
        outcomes |= dict.fromkeys(theirs, "applied" if move else "unchanged")
        if move:
            moves.append(move)
    await apply_moves(conn, moment, moves)
    return outcomes, moves


def read_report(payload: dict[str, Any]) -> StatusReport:
    """The report in a stored event."""
    return StatusReport(
        sid=payload["sid"],
        attempt_id=UUID(payload["attempt_id"]) if payload.get("attempt_id") else None,
        status=MessageStatus(payload["status"]),
        error_code=payload.get("error_code"),
    )


def _match(messages: Sequence[InFlight], reports: dict[UUID, StatusReport]) -> dict[UUID, tuple[InFlight, list[UUID]]]:
    """Each message with the events about it, in order of arrival. The attempt decides; the sid where there is none."""
    by_attempt = {message.attempt_id: message for message in messages if message.attempt_id}
    by_sid = {message.carrier_sid: message for message in messages if message.carrier_sid}
    matched: dict[UUID, tuple[InFlight, list[UUID]]] = {}
    grouped: defaultdict[UUID, list[UUID]] = defaultdict(list)
    for event_id, report in reports.items():
        message = by_attempt.get(report.attempt_id) if report.attempt_id else by_sid.get(report.sid)
        if message is not None:
            grouped[message.message_id].append(event_id)
            matched[message.message_id] = (message, grouped[message.message_id])
    return matched
