"""Transaction B: what the carrier answered to a batch, written down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cartwake.carriers.protocol import SendResult, Throttled
from cartwake.kit.db import Connection
from cartwake.kit.moment import Moment
from cartwake.messages.answers import Move, answer_to_send, apply_moves, lock_in_flight, throttle_delay, wake_queues
from cartwake.messages.dispatch import Attempt
from cartwake.messages.model import Gate, MessageState, Outcome, Verdict
from cartwake.messages.trace import Traced, keep
from cartwake.tenants.model import ShopScope


async def record_results(conn: Connection, moment: Moment, results: Sequence[tuple[Attempt, SendResult]]) -> list[Move]:
    """Settle a batch: accepted confirms, rejected releases, throttled waits again, unknown keeps its credits.

    A receipt may have been here first; then there is nothing left to say.
    """
    await wake_queues(conn, _will_wait_again(moment.now, results))
    by_attempt = {attempt.text.attempt_id: result for attempt, result in results}
    found = await lock_in_flight(conn, attempts=list(by_attempt))
    answers = [
        answer_to_send(moment.now, message, by_attempt[message.attempt_id])
        for message in found
        if message.attempt_id is not None
    ]
    moves = [move for move in answers if move is not None]
    await apply_moves(conn, moment, moves)
    await keep(conn, moment, [_traced(move) for move in moves])
    return moves


def _will_wait_again(now: datetime, results: Sequence[tuple[Attempt, SendResult]]) -> list[tuple[ShopScope, datetime]]:
    """The earliest that each throttled message may be due again; a queue that wakes too early only looks."""
    return [
        (attempt.message.shop, now + throttle_delay(result.retry_after_s, 1))
        for attempt, result in results
        if isinstance(result, Throttled)
    ]


def verdict_of(move: Move) -> Verdict:
    """The carrier's answer as the last gate's verdict."""
    outcomes = {
        MessageState.HELD: Outcome.HOLD,
        MessageState.REJECTED: Outcome.DROP,
        MessageState.NOT_ACCEPTED: Outcome.DROP,
    }
    return Verdict(outcomes.get(move.state, Outcome.SEND), Gate.CARRIER, move.reason or move.state, move.due_at)


def _traced(move: Move) -> Traced:
    message = move.message
    return Traced(message.organization_id, message.shop_id, message.session_id, message.message_id, verdict_of(move))
