"""What a carrier's answer makes of a message: pure rules, and one way to write what they say.

An answer comes from the call itself, from a delivery receipt or from asking. Whichever comes first
counts, and none counts twice: the state says what is still open, and each reservation settles once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.carriers.errors import classify
from cartwake.carriers.protocol import (
    Accepted,
    ErrorClass,
    MessageStatus,
    Rejected,
    SendResult,
    StatusReport,
    Throttled,
)
from cartwake.consent.events import suppress
from cartwake.consent.model import Channel, ConsentChange, Evidence, Suppression
from cartwake.credits.ledger import lock_balances
from cartwake.credits.reservations import confirm, refund_delivery, release
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.messages import queue, store
from cartwake.messages.allocation import give_recipients_back
from cartwake.messages.model import ENDED, TRANSITIONS, MessageState
from cartwake.tenants.model import ShopScope

S = MessageState
STATES = {
    MessageStatus.SENT: S.SENT,
    MessageStatus.DELIVERED: S.DELIVERED,
    MessageStatus.UNDELIVERED: S.UNDELIVERED,
    MessageStatus.FAILED: S.FAILED,
}
SUPPRESSIONS = {
    ErrorClass.OPTED_OUT: Suppression.CARRIER_OPT_OUT,
    ErrorClass.RECIPIENT_PERMANENT: Suppression.UNREACHABLE,
}
THROTTLED_AGAIN_MAX = timedelta(hours=1)


@dataclass(frozen=True)
class InFlight:
    """A message that an answer is about; its row is locked until commit."""

    organization_id: UUID
    shop_id: UUID
    message_id: UUID
    session_id: UUID
    state: MessageState
    reason: str | None
    attempts: int
    attempt_id: UUID | None
    carrier_sid: str | None
    phone_hash: bytes | None
    phone_country: str | None
    traceparent: str | None

    @classmethod
    def of(cls, found: dict[str, Any]) -> InFlight:
        return cls(**found | {"state": S(found["state"])})


@dataclass(frozen=True, kw_only=True)
class Move:
    """What becomes of a message, its credits and its phone."""

    message: InFlight
    state: MessageState
    reason: str | None = None
    sid: str | None = None
    error_code: int | None = None
    accepted: bool = False  # the carrier took it: the reservation is confirmed
    released: bool = False  # it did not: credits and the day's cap go back
    refunded: bool = False  # it took it, and the text did not arrive
    due_at: datetime | None = None
    suppression: Suppression | None = None


def answer_to_send(now: datetime, message: InFlight, result: SendResult) -> Move | None:
    """What the carrier's answer to the call makes of a message; None when something said so before."""
    if message.state not in (S.SENDING, S.UNKNOWN):
        return None
    if isinstance(result, Accepted):
        return Move(message=message, state=S.ACCEPTED, sid=result.sid, accepted=True)
    # A worker that comes back after its lease finds the message unknown; it may be settled, not resent.
    late = message.state is S.UNKNOWN
    if isinstance(result, Rejected):
        return Move(
            message=message,
            state=S.NOT_ACCEPTED if late else S.REJECTED,
            reason=f"carrier_{result.error_class}",
            error_code=result.code,
            released=True,
            suppression=SUPPRESSIONS.get(result.error_class),
        )
    if isinstance(result, Throttled):
        if late:
            return Move(message=message, state=S.NOT_ACCEPTED, reason="throttled", released=True)
        due_at = now + throttle_delay(result.retry_after_s, message.attempts)
        return Move(message=message, state=S.HELD, reason=result.reason, released=True, due_at=due_at)
    return None if late else Move(message=message, state=S.UNKNOWN, reason=result.reason)


def throttle_delay(retry_after_s: float, attempts: int) -> timedelta:
    """How long a throttled message waits: what the carrier asked for, doubled with each attempt."""
    return min(timedelta(seconds=max(retry_after_s, 1.0) * 2 ** min(attempts - 1, 12)), THROTTLED_AGAIN_MAX)


def fold_receipts(message: InFlight, reports: Sequence[StatusReport], refund_on: Collection[str]) -> Move | None:
    """What a message's receipts, in order of arrival, make of it; None when they say nothing new.

    A receipt proves that the carrier took the text, so it settles a message that was still in doubt. After
    that the table of transitions is the rank rule: a late `sent` after `delivered` leads nowhere.
    """
    move = Move(message=message, state=message.state)
    for report in reports:
        move = _apply_report(move, report, refund_on)
    return None if move == Move(message=message, state=message.state) else move


def _apply_report(move: Move, report: StatusReport, refund_on: Collection[str]) -> Move:
    if move.state in (S.SENDING, S.UNKNOWN):
        move = replace(move, state=S.ACCEPTED, sid=report.sid, accepted=True)
    error = classify(report.error_code, 200) if report.error_code else None
    if report.status is MessageStatus.UNSUBSCRIBED:
        error = ErrorClass.OPTED_OUT
    reason = f"carrier_{error}" if error else None
    # Somebody who wants no texts is heard whatever became of this one; but once, or a receipt that is told again
    # would take back a START.
    if error in SUPPRESSIONS and reason not in (move.reason, move.message.reason):
        move = replace(move, suppression=SUPPRESSIONS[error], reason=reason)
    target = STATES.get(report.status)
    if target is None or target not in TRANSITIONS[move.state]:
        return move
    return replace(
        move,
        state=target,
        sid=report.sid,
        error_code=report.error_code,
        reason=reason or move.reason,
        refunded=target.value in refund_on,
    )


async def lock_in_flight(
    conn: Connection, *, attempts: Sequence[UUID] = (), sids: Sequence[str] = ()
) -> list[InFlight]:
    """The messages of these attempts or carrier ids, locked until commit."""
    params = {"attempts": list(attempts), "sids": list(sids)}
    return [InFlight.of(found) for found in await rows(conn, store.LOCK_BY_ATTEMPT_OR_SID, params)]


async def apply_moves(conn: Connection, moment: Moment, moves: Sequence[Move]) -> None:
    """Write what became of some messages. Everybody takes locks in this order: messages, consents, phones, credits."""
    if not moves:
        return
    await conn.execute(store.MOVE, _columns(moves) | {"now": moment.now, "ended": list(ENDED)})
    for reason in Suppression:
        changes = [_consent_change(move) for move in moves if move.suppression is reason and move.message.phone_hash]
        await suppress(conn, moment, Channel.CARRIER, reason, changes)
    released = [move for move in moves if move.released]
    await give_recipients_back(conn, [move.message.message_id for move in released])
    # All of them at once and in sorted order; settling them kind by kind would take some out of turn.
    await lock_balances(conn, {move.message.organization_id for move in moves})
    await confirm(conn, moment.now, [_reservation(move) for move in moves if move.accepted])
    await release(conn, moment.now, [_reservation(move) for move in released])
    await refund_delivery(conn, moment.now, [_reservation(move) for move in moves if move.refunded])


async def wake_queues(conn: Connection, held: Sequence[tuple[ShopScope, datetime]]) -> None:
    """Put held messages back into their shops' queues.

    Comes first in its transaction: a claim takes queue rows before anything else, and so must everybody.
    """
    if held:
        await queue.advance(conn, held)


def _consent_change(move: Move) -> ConsentChange:
    message = move.message
    assert message.phone_hash is not None
    evidence = Evidence(actor="carrier", wording=f"error {move.error_code}" if move.error_code else None)
    return ConsentChange(message.organization_id, message.shop_id, message.phone_hash, evidence)


def _reservation(move: Move) -> tuple[UUID, UUID]:
    assert move.message.attempt_id is not None, "only an attempt can be answered"
    return move.message.organization_id, move.message.attempt_id


def _columns(moves: Sequence[Move]) -> dict[str, Any]:
    return {
        "organizations": [move.message.organization_id for move in moves],
        "shops": [move.message.shop_id for move in moves],
        "messages": [move.message.message_id for move in moves],
        "states": [move.state for move in moves],
        "reasons": [move.reason for move in moves],
        "new_sids": [move.sid for move in moves],
        "codes": [move.error_code for move in moves],
        "accepted": [move.accepted for move in moves],
        "due_ats": [move.due_at for move in moves],
    }
