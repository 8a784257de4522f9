"""Reserve, then confirm or release, once; and give back what was confirmed when the text did not arrive.

Everything here takes a batch and costs a handful of statements, whatever its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from cartwake.credits import store
from cartwake.credits.ledger import lock_balances, post
from cartwake.credits.model import SMS_ACCOUNT, Account, Change, EntryType, ReserveRequest, choose_affordable
from cartwake.kit.db import Connection, rows

# An organization and a reservation of its own.
ReservationKey = tuple[UUID, UUID]

# How each settlement finds the reservations that are ready for it, and the state it leaves them in.
_SETTLEMENTS = {
    EntryType.SEND_CONFIRM: (store.SETTLE_RESERVATIONS, "confirmed"),
    EntryType.SEND_REFUND: (store.SETTLE_RESERVATIONS, "released"),
    EntryType.DELIVERY_REFUND: (store.SELECT_REFUNDABLE, "confirmed"),
}


async def reserve(
    conn: Connection, now: datetime, requests: Sequence[ReserveRequest], *, account: Account = SMS_ACCOUNT
) -> set[UUID]:
    """Take credits for as many requests as can be paid, in the given order; the reservation ids granted.

    A request too dear for what is left does not stop cheaper ones after it. A reservation that already
    exists is not granted again and takes nothing. Commit before the carrier is called.
    """
    if not requests:
        return set()
    heads = await lock_balances(conn, {request.organization_id for request in requests}, account=account)
    keys = [(request.organization_id, request.reservation_id) for request in requests]
    known = await find_reservations(conn, keys, account=account)
    available = {organization_id: head.available_credits for organization_id, head in heads.items()}
    new = [request for request in requests if (request.organization_id, request.reservation_id) not in known]
    granted = choose_affordable(available, new)
    if granted:
        await _insert(conn, now, granted, account)
        taken = [
            Change(request.organization_id, EntryType.SEND_RESERVE, -request.credits, request.reservation_id)
            for request in granted
        ]
        await post(conn, now, heads, taken, account=account)
    return {request.reservation_id for request in granted}


async def find_reservations(
    conn: Connection, reservations: Sequence[ReservationKey], *, account: Account = SMS_ACCOUNT
) -> set[ReservationKey]:
    """Those of the reservations that exist, in whatever state."""
    found = await rows(conn, store.SELECT_RESERVATIONS, _columns(reservations, account))
    return {(line["organization_id"], line["reservation_id"]) for line in found}


async def confirm(
    conn: Connection, now: datetime, reservations: Sequence[ReservationKey], *, account: Account = SMS_ACCOUNT
) -> set[UUID]:
    """The carrier accepted: the credits are spent. The reservation ids that were open until now."""
    return await _settle(conn, now, reservations, EntryType.SEND_CONFIRM, account=account)


async def release(
    conn: Connection, now: datetime, reservations: Sequence[ReservationKey], *, account: Account = SMS_ACCOUNT
) -> set[UUID]:
    """Nothing was sent: the credits go back. The reservation ids that were open until now."""
    return await _settle(conn, now, reservations, EntryType.SEND_REFUND, account=account)


async def refund_delivery(
    conn: Connection, now: datetime, reservations: Sequence[ReservationKey], *, account: Account = SMS_ACCOUNT
) -> set[UUID]:
    """Accepted, but it did not arrive: confirmed credits go back, once. The reservation ids refunded now."""
    return await _settle(conn, now, reservations, EntryType.DELIVERY_REFUND, account=account)


async def _settle(
    conn: Connection,
    now: datetime,
    reservations: Sequence[ReservationKey],
    entry_type: EntryType,
    *,
    account: Account,
) -> set[UUID]:
    """Post `entry_type` for each of the reservations that is ready for it; the ids of those.

    Readiness is asked under the lock, so nobody else can come between the answer and the entry.
    """
    if not reservations:
        return set()
    heads = await lock_balances(conn, {organization_id for organization_id, _ in reservations}, account=account)
    query, state = _SETTLEMENTS[entry_type]
    found = await rows(conn, query, _columns(reservations, account) | {"now": now, "state": state})
    credits_of = {(line["organization_id"], line["reservation_id"]): line["credits"] for line in found}
    # In the caller's order, not the database's: one seed, one history.
    settled = [key for key in dict.fromkeys(reservations) if key in credits_of]
    changes = [
        Change(key[0], entry_type, 0 if entry_type is EntryType.SEND_CONFIRM else credits_of[key], key[1])
        for key in settled
    ]
    await post(conn, now, heads, changes, account=account)
    return {reservation_id for _, reservation_id in settled}


async def _insert(conn: Connection, now: datetime, granted: Sequence[ReserveRequest], account: Account) -> None:
    columns = {
        "organization_ids": [request.organization_id for request in granted],
        "reservation_ids": [request.reservation_id for request in granted],
        "subject_ids": [request.subject_id for request in granted],
        "credits": [request.credits for request in granted],
    }
    await conn.execute(store.INSERT_RESERVATIONS, {"account": account, "now": now} | columns)


def _columns(reservations: Sequence[ReservationKey], account: Account) -> dict[str, Any]:
    return {
        "account": account,
        "organization_ids": [organization_id for organization_id, _ in reservations],
        "reservation_ids": [reservation_id for _, reservation_id in reservations],
    }
