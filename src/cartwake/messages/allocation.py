"""What only a batch can decide: the sender's pace, one text per phone and day, and the credits.

These run last, under locks, and only for messages that passed every gate, so a message that is held for
another reason spends no cap. What one allocation grants and a later one denies is given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cartwake.credits.model import ReserveRequest
from cartwake.credits.reservations import reserve
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.messages import store
from cartwake.messages.gates import Passed
from cartwake.messages.model import Gate, Outcome, Verdict
from cartwake.numbers.model import Sender
from cartwake.numbers.senders import move_pace

RECIPIENT_PAUSE = timedelta(hours=24)  # between two texts to one phone, whichever shops send them
# How far ahead a sender may be booked within one batch; what would leave later is held until its slot.
PACE_AHEAD = timedelta(seconds=5)
# No hint of who texted the phone: it may have been another merchant.
TOO_SOON = Verdict(Outcome.DROP, Gate.CAPS, "recipient_cap")
BROKE = Verdict(Outcome.DROP, Gate.CREDITS, "insufficient_credits")


@dataclass(frozen=True)
class Granted:
    """A message that may be sent: its attempt, and the instant from which its sender is free for it."""

    passed: Passed
    attempt_id: UUID
    slot: datetime


async def allocate(
    conn: Connection, moment: Moment, passed: Sequence[Passed]
) -> tuple[list[Granted], list[tuple[Passed, Verdict]]]:
    """Grant what caps, pace and credits allow, earliest due first; the rest with its verdict."""
    in_order = sorted(passed, key=lambda each: (each.facts.message.due_at, each.facts.message.message_id))
    waiting, denied = pace(moment.now, in_order)
    granted: list[Granted] = []
    while waiting:
        alone, capped = await _take_recipients(conn, moment, waiting)
        paid, unpaid = await _reserve_credits(conn, moment, alone)
        await give_recipients_back(conn, [each.facts.message.message_id for each, _ in unpaid])
        granted += paid
        denied += unpaid
        # A phone that its first taker could not pay for is free again, for the next who asked for it.
        freed = {_phone(each) for each, _ in unpaid}
        denied += [(each, TOO_SOON) for each, _ in capped if _phone(each) not in freed]
        waiting = [(each, slot) for each, slot in capped if _phone(each) in freed]
    await _book_senders(conn, granted)
    return granted, denied


def pace(now: datetime, passed: Sequence[Passed]) -> tuple[list[tuple[Passed, datetime]], list[tuple[Passed, Verdict]]]:
    """Give each message its sender's next free slot; hold those whose slot is too far ahead."""
    free_at: dict[UUID, datetime] = {}
    soon, later = [], []
    for each in passed:
        sender = each.sender
        slot = max(free_at.get(sender.sender_id, sender.paced_until), now)
        free_at[sender.sender_id] = slot + _busy(sender, each.text.measure.segments)
        if slot <= now + PACE_AHEAD:
            soon.append((each, slot))
        else:
            later.append((each, Verdict(Outcome.HOLD, Gate.CAPS, "sender_pace", slot)))
    return soon, later


async def give_recipients_back(conn: Connection, message_ids: Sequence[UUID]) -> None:
    """These messages did not go out after all: their phones may be texted within the day."""
    if message_ids:
        await conn.execute(store.GIVE_RECIPIENTS_BACK, {"messages": list(message_ids)})


async def _take_recipients(
    conn: Connection, moment: Moment, paced: Sequence[tuple[Passed, datetime]]
) -> tuple[list[tuple[Passed, datetime]], list[tuple[Passed, datetime]]]:
    """Those that have their phone to themselves for the day now, and those that came too late for it."""
    first_by_phone: dict[bytes, UUID] = {}
    for each, _ in paced:
        first_by_phone.setdefault(_phone(each), each.facts.message.message_id)
    params = {
        "phones": list(first_by_phone),
        "messages": list(first_by_phone.values()),
        "now": moment.now,
        "cutoff": moment.now - RECIPIENT_PAUSE,
    }
    taken = {found["message_id"] for found in await rows(conn, store.TAKE_RECIPIENTS, params)}
    return (
        [(each, slot) for each, slot in paced if each.facts.message.message_id in taken],
        [(each, slot) for each, slot in paced if each.facts.message.message_id not in taken],
    )


async def _reserve_credits(
    conn: Connection, moment: Moment, alone: Sequence[tuple[Passed, datetime]]
) -> tuple[list[Granted], list[tuple[Passed, Verdict]]]:
    tries = [Granted(each, moment.new_id(), slot) for each, slot in alone]
    paid = await reserve(conn, moment.now, [_request(each) for each in tries])
    return (
        [each for each in tries if each.attempt_id in paid],
        [(each.passed, BROKE) for each in tries if each.attempt_id not in paid],
    )


async def _book_senders(conn: Connection, granted: Sequence[Granted]) -> None:
    busy_until: dict[UUID, tuple[Sender, datetime]] = {}
    for each in granted:
        sender = each.passed.sender
        until = each.slot + _busy(sender, each.passed.text.measure.segments)
        busy_until[sender.sender_id] = (sender, max(until, busy_until.get(sender.sender_id, (sender, until))[1]))
    if busy_until:
        await move_pace(conn, list(busy_until.values()))


def _request(each: Granted) -> ReserveRequest:
    message = each.passed.facts.message
    return ReserveRequest(message.organization_id, each.attempt_id, message.message_id, each.passed.text.credits)


def _busy(sender: Sender, segments: int) -> timedelta:
    return timedelta(seconds=segments / sender.segments_per_s)


def _phone(each: Passed) -> bytes:
    phone_hash = each.facts.session.phone_hash
    assert phone_hash is not None, "the consent gate saw to it"
    return phone_hash
