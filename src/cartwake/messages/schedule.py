"""The abandonment scan: which abandoned carts get a text, and why the others do not.

Four questions, in this order: consent and a phone? texts enabled? a plan that allows them? credits for
this country? A yes to all writes the message row, which is its own job. A no is stored with the session
and asked again when a new fact arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.carts.abandonment import announce_email, claim_idle, note_refusals
from cartwake.carts.model import Refusal, Session
from cartwake.consent.events import read_consents_for_claim
from cartwake.consent.model import NEVER_ASKED, ConsentState
from cartwake.credits.balance import read_available
from cartwake.credits.model import plan_allows_sms
from cartwake.credits.pricing import price
from cartwake.jobs.text_job import TextJob, Timed
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.messages import queue, store
from cartwake.messages.facts import ShopFacts, load_shops
from cartwake.messages.model import CART_RECOVERY, FIRST_STEP, Gate, Outcome, Verdict
from cartwake.messages.trace import Traced, keep
from cartwake.tenants.model import ShopScope


@dataclass(frozen=True)
class Scanned:
    """What a scan came to."""

    sessions: int
    scheduled: int
    next_due_at: datetime | None  # of what was scheduled now
    verdicts: list[Verdict]
    messages: list[tuple[UUID, str | None]]  # that were scheduled, each with its trace
    due: Sequence[Timed] = ()  # all that was scheduled
    emails: Sequence[Timed] = ()  # the e-mail step of the same carts, and of those refused a text


async def scan(conn: Connection, moment: Moment, limit: int) -> Scanned:
    """Claim idle sessions and schedule or refuse each. Call again while `sessions` is `limit`."""
    sessions = await claim_idle(conn, moment.now, limit)
    if not sessions:
        return Scanned(0, 0, None, [], [])
    shops = await load_shops(conn, [_shop(session) for session in sessions])
    # Queues are locked before consents, by everybody: so before anybody knows who will be refused. A queue that
    # wakes for nothing only looks.
    ticked = [session for session in sessions if session.consented]
    await queue.advance(conn, [(_shop(session), _due_at(session, shops[_shop(session)])) for session in ticked])
    available = await read_available(conn, list({session.organization_id for session in sessions}))
    keys = [(s.organization_id, s.shop_id, s.phone_hash) for s in sessions if s.phone_hash is not None]
    consents, _ = await read_consents_for_claim(conn, keys)
    judged = [
        (
            s,
            refuse(
                s,
                shops[_shop(s)],
                consents.get((s.organization_id, s.shop_id, s.phone_hash or b""), NEVER_ASKED),
                available.get(s.organization_id, 0),
            ),
        )
        for s in sessions
    ]
    emails = await announce_email(conn, moment, [(s, shops[_shop(s)].config.email_delay_s) for s in sessions])
    await note_refusals(conn, moment.now, judged)
    due = [(s, _due_at(s, shops[_shop(s)])) for s, refusal in judged if refusal is None]
    scheduled = await _insert(conn, moment, due)
    traced = [_traced(session, refusal, scheduled) for session, refusal in judged]
    await keep(conn, moment, traced)
    new = [(session, due_at) for session, due_at in due if session.session_id in scheduled]
    return Scanned(
        len(sessions),
        len(scheduled),
        min((due_at for _, due_at in new), default=None),
        [each.verdict for each in traced],
        [(scheduled[session.session_id], session.traceparent) for session, _ in new],
        [(_job(session), due_at) for session, due_at in new],
        [(_job(session), due_at) for session, due_at in emails],
    )


def refuse(session: Session, shop: ShopFacts, consent: ConsentState, available_credits: int) -> Refusal | None:
    """Why this cart gets no text now; None when it does. One segment is the least that a text can cost."""
    if session.phone_hash is None:
        return Refusal.NO_PHONE
    if not session.consented or not consent.granted or consent.suppression is not None:
        return Refusal.NO_CONSENT
    if not shop.config.enabled:
        return Refusal.SMS_DISABLED
    if not plan_allows_sms(shop.plan):
        return Refusal.PLAN
    if available_credits < price(1, session.phone_country or ""):
        return Refusal.INSUFFICIENT_CREDITS
    return None if session.checkout_url_sealed else Refusal.NO_CHECKOUT_URL


async def _insert(conn: Connection, moment: Moment, due: Sequence[tuple[Session, datetime]]) -> dict[UUID, UUID]:
    """Write the message rows; the new ones, by session. A cart that has its message gets no other."""
    if not due:
        return {}
    params: dict[str, Any] = {
        "now": moment.now,
        "kind": CART_RECOVERY,
        "step": FIRST_STEP,
        "organizations": [session.organization_id for session, _ in due],
        "shops": [session.shop_id for session, _ in due],
        "messages": [moment.new_id() for _ in due],
        "sessions": [session.session_id for session, _ in due],
        "due_ats": [due_at for _, due_at in due],
        "traceparents": [session.traceparent for session, _ in due],
    }
    return {found["session_id"]: found["message_id"] for found in await rows(conn, store.INSERT_MESSAGES, params)}


def _due_at(session: Session, shop: ShopFacts) -> datetime:
    return session.last_activity_at + timedelta(seconds=shop.config.text_delay_s)


def _traced(session: Session, refusal: Refusal | None, scheduled: dict[UUID, UUID]) -> Traced:
    message_id = scheduled.get(session.session_id)
    if refusal is not None:
        verdict = Verdict(Outcome.REFUSE, Gate.SCHEDULE, refusal)
    else:
        verdict = Verdict(Outcome.SCHEDULE, Gate.SCHEDULE, "scheduled" if message_id else "scheduled_before")
    return Traced(session.organization_id, session.shop_id, session.session_id, message_id, verdict)


def _job(session: Session) -> TextJob:
    return TextJob(session.organization_id, session.shop_id, session.session_id, FIRST_STEP)


def _shop(session: Session) -> ShopScope:
    return ShopScope(session.organization_id, session.shop_id)
