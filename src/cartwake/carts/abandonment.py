"""When a cart counts as abandoned, when it is asked about again, and when it is too old to matter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from cartwake.carts import store
from cartwake.carts.model import Refusal, Session, SessionState, sources
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.tenants.model import ShopScope

# Longer than any transaction that brings a new fact: by so much may a scan's clock be ahead of its.
SCAN_AHEAD = timedelta(minutes=1)


async def claim_idle(conn: Connection, now: datetime, limit: int) -> list[Session]:
    """Mark the sessions abandoned that have been idle long enough, and those to be asked again; return them.

    Any number of schedulers may call it at once: each gets other sessions.
    """
    # An abandoned session is claimed again when a new fact made it worth asking.
    from_states = [*sources(SessionState.ABANDONED), SessionState.ABANDONED]
    from_states.remove(SessionState.PAYMENT_PENDING)
    found = await rows(conn, store.CLAIM_IDLE, {"now": now, "limit": limit, "from_states": from_states})
    return [Session.of(each) for each in found]


async def announce_email(
    conn: Connection, moment: Moment, due: Sequence[tuple[Session, int]]
) -> list[tuple[Session, datetime]]:
    """Record `email_due` for newly abandoned sessions; with each its shop's e-mail delay in seconds.

    Returns those that had none yet, and when.
    """
    found = await rows(
        conn,
        store.INSERT_EMAIL_DUE,
        {
            "now": moment.now,
            "organizations": [session.organization_id for session, _ in due],
            "shops": [session.shop_id for session, _ in due],
            "events": [moment.new_id() for _ in due],
            "sessions": [session.session_id for session, _ in due],
            "due_ats": [moment.now + timedelta(seconds=delay_s) for _, delay_s in due],
        },
    )
    new = {each["session_id"]: each["due_at"] for each in found}
    return [(session, new[session.session_id]) for session, _ in due if session.session_id in new]


async def note_refusals(conn: Connection, now: datetime, refusals: Sequence[tuple[Session, Refusal | None]]) -> None:
    """Store with each session why it was refused, or that it was not."""
    await conn.execute(
        store.SET_REFUSALS,
        {
            "now": now,
            "organizations": [session.organization_id for session, _ in refusals],
            "shops": [session.shop_id for session, _ in refusals],
            "sessions": [session.session_id for session, _ in refusals],
            "refusals": [refusal for _, refusal in refusals],
        },
    )


async def ask_again(
    conn: Connection, now: datetime, organization_id: UUID, refusals: Sequence[Refusal], shop_id: UUID | None = None
) -> None:
    """A fact arrived (a plan, a switch, credits): carts refused for want of it are asked about again.

    Belongs into the transaction that writes the fact, before or after it.
    """
    scope = {"now": now, "organization_id": organization_id, "shop_id": shop_id}
    await conn.execute(store.MEET_SCAN, scope | {"soon": now + SCAN_AHEAD})
    await conn.execute(store.ASK_AGAIN, scope | {"refusals": list(refusals)})


async def ask_again_for_phone(conn: Connection, now: datetime, scope: ShopScope, phone_hash: bytes) -> None:
    """A phone's owner agreed again by START: this shop's carts that lacked consent are asked about again."""
    params = {"organization_id": scope.organization_id, "shop_id": scope.shop_id, "phone_hash": phone_hash, "now": now}
    await conn.execute(store.ASK_AGAIN_FOR_PHONE, params)


async def expire_stale(conn: Connection, now: datetime, limit: int) -> int:
    """Close sessions that are too old to text. Returns how many; call again while it is `limit`."""
    return len(await rows(conn, store.EXPIRE, {"now": now, "limit": limit}))


async def time_out_payments(conn: Connection, now: datetime, limit: int) -> int:
    """Give up on payments that never settled. Returns how many; call again while it is `limit`."""
    return len(await rows(conn, store.TIME_OUT_PAYMENTS, {"now": now, "limit": limit}))


async def read_sessions_for_claim(
    conn: Connection, keys: Sequence[tuple[UUID, UUID, UUID]]
) -> dict[tuple[UUID, UUID, UUID], Session]:
    """The sessions of a batch by (organization, shop, session), share-locked until commit.

    A session that somebody is writing just now is left out.
    """
    organizations, shops, sessions = zip(*keys, strict=True)
    params = {"organizations": list(organizations), "shops": list(shops), "sessions": list(sessions)}
    found = [Session.of(each) for each in await rows(conn, store.READ_LOCKED, params)]
    return {(session.organization_id, session.shop_id, session.session_id): session for session in found}
