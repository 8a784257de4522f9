"""Texts of unknown fate, and texts without a receipt: the carrier is asked; nothing is ever resent.

A worker that died, a timeout, a 5xx: nobody knows whether the carrier took the text. Its credits stay
reserved. The carrier is asked by recipient, sender, time and body. Found: accepted. Clearly absent half
an hour after the attempt: not accepted, credits released. Not to be asked for a day: unresolved, credits
released, for the operator to see.

A text that was taken and about which the carrier then kept silent for three days (a receipt can be lost, and a
carrier gives up telling) is asked about by its id. What the carrier says counts like a receipt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.carriers.protocol import Absent, CannotAsk, Carrier, Found, OutboundText
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.kit.phones import open_phone
from cartwake.messages import store
from cartwake.messages.answers import InFlight, Move, apply_moves, fold_receipts, lock_in_flight
from cartwake.messages.dispatch import opened_text
from cartwake.messages.model import ENDED, TRANSITIONS, MessageState
from cartwake.numbers.senders import read_addresses

# The article's 30 minutes: until then a text that the carrier does not list may still be on its way in.
ABSENT_AFTER = timedelta(minutes=30)
UNRESOLVED_AFTER = timedelta(hours=24)
NO_RECEIPT_AFTER = timedelta(hours=72)
# A carrier that cannot be asked then is asked again for a day.
NO_ANSWER_AFTER = NO_RECEIPT_AFTER + timedelta(hours=24)
# How many seconds before the attempt a listed text may have been created and still be ours: clocks differ.
CLOCK_SKEW = timedelta(seconds=60)

Fate = Found | Absent | CannotAsk


@dataclass(frozen=True)
class Doubtful:
    """A text of unknown fate, with what the carrier must be told to recognize it."""

    message_id: UUID
    attempt_id: UUID
    attempted_at: datetime
    text: OutboundText


async def lapse_leases(conn: Connection, now: datetime, limit: int) -> dict[UUID, str]:
    """`sending` past its lease becomes `unknown`: its worker died. Returns those messages, with the phone's country."""
    found = await rows(conn, store.LAPSE_LEASES, {"now": now, "limit": limit})
    return {each["message_id"]: each["phone_country"] for each in found}


@dataclass(frozen=True)
class Silent:
    """A text that was taken, and whose end nobody has told us."""

    message_id: UUID
    attempt_id: UUID
    accepted_at: datetime
    sid: str


async def read_doubtful(conn: Connection, vault: Vault, now: datetime, limit: int) -> list[Doubtful]:
    """The texts to ask about, longest unasked first. They go to the end of the line, whatever the answer."""
    found = await rows(conn, store.READ_UNKNOWN, {"limit": limit})
    addresses = await read_addresses(conn, [each["sender_id"] for each in found])
    await _touch(conn, now, found)
    return [_doubtful(vault, addresses[each["sender_id"]], each) for each in found]


async def ask(carrier: Carrier, doubtful: Sequence[Doubtful]) -> list[tuple[Doubtful, Fate]]:
    """Ask the carrier about each. No transaction is open."""
    fates = await asyncio.gather(*(carrier.find(each.text, each.attempted_at - CLOCK_SKEW) for each in doubtful))
    return list(zip(doubtful, fates, strict=True))


async def record_fates(
    conn: Connection, moment: Moment, fates: Sequence[tuple[Doubtful, Fate]], refund_on: Sequence[str]
) -> list[Move]:
    """Write down what the carrier said, for messages that are still in doubt."""
    by_attempt = {doubtful.attempt_id: (doubtful, fate) for doubtful, fate in fates}
    found = await lock_in_flight(conn, attempts=list(by_attempt))
    judged = [
        judge(moment.now, message, *by_attempt[message.attempt_id], refund_on)
        for message in found
        if message.attempt_id and message.state is MessageState.UNKNOWN
    ]
    moves = [move for move in judged if move is not None]
    await apply_moves(conn, moment, moves)
    return moves


def judge(now: datetime, message: InFlight, doubtful: Doubtful, fate: Fate, refund_on: Sequence[str]) -> Move | None:
    """What an answer makes of a doubtful message; None while it must wait."""
    age = now - doubtful.attempted_at
    if isinstance(fate, Found):
        return fold_receipts(message, [fate.report], refund_on)
    if isinstance(fate, Absent) and age >= ABSENT_AFTER:
        return Move(message=message, state=MessageState.NOT_ACCEPTED, reason="absent_at_carrier", released=True)
    if isinstance(fate, CannotAsk) and age >= UNRESOLVED_AFTER:
        return Move(message=message, state=MessageState.UNRESOLVED, reason="carrier_cannot_be_asked", released=True)
    return None


async def read_silent(conn: Connection, now: datetime, limit: int) -> list[Silent]:
    """Accepted, and no receipt for three days: the texts to ask about, longest unasked first."""
    found = await rows(conn, store.READ_SILENT, {"cutoff": now - NO_RECEIPT_AFTER, "limit": limit})
    await _touch(conn, now, found)
    return [Silent(**each) for each in found]


async def look_up(carrier: Carrier, silent: Sequence[Silent]) -> list[tuple[Silent, Fate]]:
    """Ask the carrier about each by its id. No transaction is open."""
    fates = await asyncio.gather(*(carrier.look_up(each.sid, each.attempt_id) for each in silent))
    return list(zip(silent, fates, strict=True))


async def record_looked_up(
    conn: Connection, moment: Moment, fates: Sequence[tuple[Silent, Fate]], refund_on: Sequence[str]
) -> list[Move]:
    """Write down what the carrier said, for messages that still have no end."""
    by_attempt = {silent.attempt_id: (silent, fate) for silent, fate in fates}
    found = await lock_in_flight(conn, attempts=list(by_attempt))
    ends = [
        end_silence(moment.now, message, *by_attempt[message.attempt_id], refund_on)
        for message in found
        if message.attempt_id and MessageState.DELIVERY_UNKNOWN in TRANSITIONS[message.state]
    ]
    moves = [move for move in ends if move is not None]
    await apply_moves(conn, moment, moves)
    return moves


def end_silence(now: datetime, message: InFlight, silent: Silent, fate: Fate, refund_on: Sequence[str]) -> Move | None:
    """What an answer makes of a message without a receipt: its end, or that there is none to be had (not refunded).

    None while the carrier is to be asked again.
    """
    if isinstance(fate, CannotAsk) and now - silent.accepted_at < NO_ANSWER_AFTER:
        return None
    told = fold_receipts(message, [fate.report], refund_on) if isinstance(fate, Found) else None
    move = told or Move(message=message, state=message.state)
    if move.state in ENDED:
        return move
    return replace(move, state=MessageState.DELIVERY_UNKNOWN, reason="no_receipt")


async def _touch(conn: Connection, now: datetime, found: Sequence[dict[str, Any]]) -> None:
    """They are being asked about: to the end of the line."""
    await conn.execute(store.TOUCH, {"now": now, "messages": [each["message_id"] for each in found]})


def _doubtful(vault: Vault, address: str, found: dict[str, Any]) -> Doubtful:
    text = OutboundText(
        attempt_id=found["attempt_id"],
        sender=address,
        to=open_phone(vault, found["phone_sealed"]),
        body=opened_text(vault, found["body_sealed"]),
        validity_s=1,
    )
    return Doubtful(found["message_id"], found["attempt_id"], found["attempted_at"], text)
