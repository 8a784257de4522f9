"""What happens to a checkout: activity, a payment, an order."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from cartwake.carts import store
from cartwake.carts.model import CheckoutFacts, Session, SessionState, sources
from cartwake.kit.db import Connection, row
from cartwake.kit.errors import Conflict, NotKnown
from cartwake.kit.moment import Moment
from cartwake.tenants.model import ShopScope, SmsConfig


async def record_activity(
    conn: Connection, moment: Moment, scope: ShopScope, config: SmsConfig, external_id: str, facts: CheckoutFacts
) -> tuple[Session, bool]:
    """Take note of a checkout's activity; its abandonment slides with it.

    Returns the session, and whether the news counted: what is older than the last known activity, or
    comes after the order or the expiry, changes nothing. Idempotent by `external_id` and time.
    """
    params = (
        _scope(scope)
        | asdict(facts)
        | _timing(config, facts.occurred_at)
        | {"external_id": external_id, "session_id": moment.new_id(), "now": moment.now}
        | {"traceparent": moment.traceparent}
    )
    found = await row(conn, store.UPSERT_ACTIVITY, params)
    if found is not None:
        return Session.of(found), True
    return await read_session(conn, scope, external_id), False


async def remember_consent(conn: Connection, moment: Moment, session: Session, phone_hash: bytes | None) -> None:
    """For which phone the box was ticked in this session (None: unticked)."""
    await conn.execute(
        store.SET_CONSENTED_PHONE,
        [phone_hash, moment.now, session.organization_id, session.shop_id, session.session_id],
    )


async def read_session(conn: Connection, scope: ShopScope, external_id: str) -> Session:
    """Raises `NotKnown`."""
    return await _one(conn, store.SELECT_SESSION, scope, external_id)


async def lock_session(conn: Connection, scope: ShopScope, external_id: str) -> Session:
    """The session, locked until commit. Raises `NotKnown`."""
    return await _one(conn, store.LOCK_SESSION, scope, external_id)


async def begin_payment(
    conn: Connection, moment: Moment, config: SmsConfig, session: Session, occurred_at: datetime
) -> Session:
    """A payment is in flight: no text until it settles or times out, nor until another that began later does.

    `session` is locked. Raises `Conflict` when the cart is completed or expired.
    """
    until = occurred_at + timedelta(seconds=config.payment_timeout_s)
    if session.state == SessionState.PAYMENT_PENDING:
        if session.payment_until is not None and until <= session.payment_until:
            return session
    elif session.state not in sources(SessionState.PAYMENT_PENDING):
        raise Conflict(f"The checkout is {session.state}; no payment can begin for it.")
    times = {
        "occurred_at": occurred_at,
        "payment_until": until,
        "stale_at": _timing(config, max(occurred_at, session.last_activity_at))["stale_at"],
    }
    return await _changed(conn, moment, store.BEGIN_PAYMENT, session, times)


async def fail_payment(
    conn: Connection, moment: Moment, config: SmsConfig, session: Session, occurred_at: datetime
) -> Session:
    """The payment came to nothing; the cart is open again and may be abandoned from here. `session` is locked."""
    if session.state != SessionState.PAYMENT_PENDING:
        return session  # it settled or timed out before: the news is old
    timeout = timedelta(seconds=config.payment_timeout_s)
    if session.payment_until is not None and occurred_at < session.payment_until - timeout:
        return session  # another began since, and is in flight
    latest = max(occurred_at, session.last_activity_at)
    return await _changed(
        conn, moment, store.END_PAYMENT, session, {"occurred_at": occurred_at} | _timing(config, latest)
    )


def _timing(config: SmsConfig, last_activity_at: datetime) -> dict[str, datetime]:
    return {
        "scan_at": last_activity_at + timedelta(seconds=config.idle_s),
        "stale_at": last_activity_at + timedelta(seconds=config.stale_after_s),
    }


async def _one(conn: Connection, query: str, scope: ShopScope, external_id: str) -> Session:
    found = await row(conn, query, _scope(scope) | {"external_id": external_id})
    if found is None:
        raise NotKnown("There is no checkout session with this external id.")
    return Session.of(found)


async def _changed(conn: Connection, moment: Moment, query: str, session: Session, params: dict[str, Any]) -> Session:
    keys = {
        "organization_id": session.organization_id,
        "shop_id": session.shop_id,
        "session_id": session.session_id,
        "now": moment.now,
    }
    found = await row(conn, query, keys | params)
    assert found is not None, "the row is locked, so it is there"
    return Session.of(found)


def _scope(scope: ShopScope) -> dict[str, Any]:
    return {"organization_id": scope.organization_id, "shop_id": scope.shop_id}
