"""The credits that come with a plan, once a month."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from cartwake.credits.ledger import find_posted, lock_balances, open_accounts, post
from cartwake.credits.model import PLANS, SMS_ACCOUNT, Account, Change, EntryType
from cartwake.kit.db import Connection


async def due_for_refill(
    conn: Connection, now: datetime, plans: Sequence[tuple[UUID, str]], *, account: Account = SMS_ACCOUNT
) -> list[tuple[UUID, str]]:
    """Those of some organizations, with their plans, that have this UTC month's credits still to come.

    Unlocked, so that the hourly look does not hold up everybody's texts for nothing. `refill` asks again.
    """
    due = await _without_refilled(conn, _credits_of(plans), _month(now), account)
    return [(org, plan) for org, plan in plans if org in due]


async def refill(
    conn: Connection, now: datetime, plans: Sequence[tuple[UUID, str]], *, account: Account = SMS_ACCOUNT
) -> list[UUID]:
    """Add this UTC month's credits to each organization that has not had them; those refilled now.

    `plans` is organizations with the names of their plans. Any number of schedulers may do this at once,
    as often as they like. The balances stay locked until the commit: hand over some hundreds at a time.
    """
    month, due = _month(now), _credits_of(plans)
    if not due:
        return []
    await open_accounts(conn, now, due, account=account)
    heads = await lock_balances(conn, due, account=account)
    # Asked under the lock, because only this answer cannot change any more.
    due = await _without_refilled(conn, due, month, account)
    changes = [Change(org, EntryType.TIER_REFILL, credits, reference=month) for org, credits in due.items()]
    await post(conn, now, heads, changes, account=account)
    return list(due)


def _month(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m")


def _credits_of(plans: Sequence[tuple[UUID, str]]) -> dict[UUID, int]:
    return {org: PLANS[plan].monthly_credits for org, plan in plans if PLANS[plan].monthly_credits}


async def _without_refilled(conn: Connection, due: dict[UUID, int], month: str, account: Account) -> dict[UUID, int]:
    refilled = await find_posted(conn, due, EntryType.TIER_REFILL, month, account=account)
    return {org: credits for org, credits in due.items() if org not in refilled}
