"""The only two ways to write credits: lock balances, then post entries onto them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import psycopg

from cartwake.credits import store
from cartwake.credits.model import SMS_ACCOUNT, Account, Change, EntryType, Head, chain
from cartwake.kit.db import Connection, rows
from cartwake.kit.errors import NotKnown


async def open_accounts(
    conn: Connection, now: datetime, organization_ids: Iterable[UUID], *, account: Account = SMS_ACCOUNT
) -> None:
    """Give each organization an account of 0 credits, unless it has one.

    Raises `NotKnown` when there is no such organization.
    """
    asked = {"account": account, "now": now, "organization_ids": list(organization_ids)}
    try:
        await conn.execute(store.OPEN_ACCOUNTS, asked)
    except psycopg.errors.ForeignKeyViolation:
        raise NotKnown("There is no such organization.") from None


async def lock_balances(
    conn: Connection, organization_ids: Iterable[UUID], *, account: Account = SMS_ACCOUNT
) -> dict[UUID, Head]:
    """Lock balances until the transaction ends, in sorted order; an organization without an account is left out.

    Every verb of the room does this by itself. A transaction that calls several verbs for several
    organizations calls this first, with all of them, or it may meet another one halfway and deadlock.
    """
    asked = {"account": account, "organization_ids": list(organization_ids)}
    found = await rows(conn, store.LOCK_BALANCES, asked)
    return {line["organization_id"]: Head(line["available_credits"], line["last_entry_no"]) for line in found}


async def find_posted(
    conn: Connection,
    organization_ids: Iterable[UUID],
    entry_type: EntryType,
    reference: str,
    *,
    account: Account = SMS_ACCOUNT,
) -> set[UUID]:
    """The organizations that already have this entry. The answer holds while their balances are locked."""
    asked = {
        "account": account,
        "organization_ids": list(organization_ids),
        "entry_type": entry_type.value,
        "reference": reference,
    }
    return {line["organization_id"] for line in await rows(conn, store.SELECT_POSTED, asked)}


async def post(
    conn: Connection,
    now: datetime,
    heads: Mapping[UUID, Head],
    changes: Sequence[Change],
    *,
    account: Account = SMS_ACCOUNT,
) -> None:
    """Append `changes` in order and move the balances. `heads` is what `lock_balances` answered just before.

    A change below zero fails on the schema's own check: nothing of the transaction remains.
    """
    if not changes:
        return
    entries = chain(heads, changes, now)
    columns = {
        "organization_ids": [entry.organization_id for entry in entries],
        "entry_nos": [entry.entry_no for entry in entries],
        "entry_types": [entry.entry_type.value for entry in entries],
        "credits": [entry.credits for entry in entries],
        "balances_after": [entry.balance_after for entry in entries],
        "reservation_ids": [entry.reservation_id for entry in entries],
        "references": [entry.reference for entry in entries],
        "notes": [entry.note for entry in entries],
    }
    await conn.execute(store.POST_ENTRIES, {"account": account, "now": now} | columns)
