"""What an organization has, how it came to that, and the two ways credits arrive by hand or by money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from cartwake.credits import store
from cartwake.credits.ledger import find_posted, lock_balances, open_accounts, post
from cartwake.credits.model import SMS_ACCOUNT, Account, Balance, Change, Entry, EntryType
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.errors import BadInput, Conflict

# No honest change is larger; far below where a balance would overflow.
CHANGE_MAX_CREDITS = 1_000_000_000


async def open_account(
    conn: Connection, now: datetime, organization_id: UUID, *, account: Account = SMS_ACCOUNT
) -> None:
    """An account of 0 credits, unless there is one. Raises `NotKnown` when there is no such organization."""
    await open_accounts(conn, now, [organization_id], account=account)


async def read_balance(conn: Connection, organization_id: UUID, *, account: Account = SMS_ACCOUNT) -> Balance:
    """What is available and what is reserved; both 0 when there is no account."""
    found = await row(conn, store.SELECT_BALANCE, {"organization_id": organization_id, "account": account})
    return Balance(**found) if found else Balance(available_credits=0, reserved_credits=0)


async def read_available(
    conn: Connection, organization_ids: Sequence[UUID], *, account: Account = SMS_ACCOUNT
) -> dict[UUID, int]:
    """What many organizations have available, unlocked: a forecast, no promise. Without an account: left out."""
    asked = {"organization_ids": list(organization_ids), "account": account}
    return {
        found["organization_id"]: found["available_credits"]
        for found in await rows(conn, store.SELECT_AVAILABLE, asked)
    }


async def read_ledger(
    conn: Connection, organization_id: UUID, *, limit: int, before: int | None = None, account: Account = SMS_ACCOUNT
) -> list[Entry]:
    """A page of at most `limit` entries, newest first. `before`: the `entry_no` that the last page ended with."""
    asked = {"organization_id": organization_id, "account": account, "limit": limit, "before": before}
    return [
        Entry(**line | {"entry_type": EntryType(line["entry_type"])})
        for line in await rows(conn, store.SELECT_LEDGER, asked)
    ]


async def adjust(
    conn: Connection,
    now: datetime,
    organization_id: UUID,
    credits: int,
    *,
    reference: str | None = None,
    note: str | None = None,
    account: Account = SMS_ACCOUNT,
) -> Balance:
    """An operator's correction, positive or negative; the balance after it.

    A reference that was used before changes nothing. Raises `Conflict` when the balance would fall below
    zero, `BadInput` for 0 or an absurd amount, `NotKnown` when there is no such organization.
    """
    change = Change(organization_id, EntryType.ADJUSTMENT, credits, reference=reference, note=note)
    return await _post_once(conn, now, change, account)


async def purchase(
    conn: Connection,
    now: datetime,
    organization_id: UUID,
    credits: int,
    *,
    reference: str,
    account: Account = SMS_ACCOUNT,
) -> Balance:
    """Credits that were paid for; the balance after it. `reference` is the checkout's: it counts once.

    Raises `BadInput` for an amount that nobody sells, `NotKnown` when there is no such organization.
    """
    if credits < 1:
        raise BadInput("A purchase brings at least one credit.", field="credits")
    change = Change(organization_id, EntryType.PURCHASE, credits, reference=reference)
    return await _post_once(conn, now, change, account)


async def _post_once(conn: Connection, now: datetime, change: Change, account: Account) -> Balance:
    """Post one change, unless its reference was posted before."""
    organization_id = change.organization_id
    if change.credits == 0 or abs(change.credits) > CHANGE_MAX_CREDITS:
        raise BadInput(f"The change must not be 0, nor more than {CHANGE_MAX_CREDITS} credits.", field="credits")
    await open_accounts(conn, now, [organization_id], account=account)
    heads = await lock_balances(conn, [organization_id], account=account)
    if not await _is_posted(conn, change, account):
        available = heads[organization_id].available_credits
        if available + change.credits < 0:
            raise Conflict(f"Only {available} credits are available.", slug="insufficient-credits", field="credits")
        await post(conn, now, heads, [change], account=account)
    return await read_balance(conn, organization_id, account=account)


async def _is_posted(conn: Connection, change: Change, account: Account) -> bool:
    if change.reference is None:
        return False
    posted = await find_posted(conn, [change.organization_id], change.entry_type, change.reference, account=account)
    return bool(posted)
