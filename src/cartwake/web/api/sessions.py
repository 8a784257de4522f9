"""Checkout sessions: what a storefront tells about a cart, and what became of it."""

from __future__ import annotations

from fastapi import APIRouter, Response

from cartwake.carts.completion import Order, complete
from cartwake.carts.sessions import begin_payment, fail_payment, lock_session, read_session
from cartwake.messages.reading import message_of_session, read_decisions
from cartwake.tenants.organizations import read_sms_config
from cartwake.web.api.fields import ExternalId, not_ahead
from cartwake.web.api.message_views import decision_views, message_answer
from cartwake.web.api.opt_in import read_consent_of, record_checkout
from cartwake.web.api.session_forms import (
    CompletionForm,
    CompletionView,
    PaymentForm,
    SessionForm,
    SessionStory,
    SessionView,
    completion_view,
    session_fields,
)
from cartwake.web.auth import AtShop
from cartwake.web.openapi import CONFLICT

router = APIRouter(prefix="/v1/checkout-sessions/{external_id}", tags=["checkout sessions"])


@router.put("", responses={201: {"model": SessionView, "description": "The first news of this checkout."}})
async def put_session(door: AtShop, external_id: ExternalId, form: SessionForm, response: Response) -> SessionView:
    """Tell about a checkout: once at its start, and again whenever something changes.

    Send it with the phone and the consent box before a payment is created, with any provider: consent
    without a usable phone is refused here with 400. Repeating a request changes nothing. News older than
    what is known changes nothing either, except that consent taken back is always taken back.
    """
    async with door.open() as conn:
        recorded = await record_checkout(conn, door.moment, door.scope, external_id, form)
    response.status_code = 201 if recorded.is_new else 200
    return SessionView.model_validate(
        session_fields(door.moment.vault, recorded.session, recorded.consent, recorded.phone_problem)
    )


@router.get("")
async def get_session(door: AtShop, external_id: ExternalId) -> SessionStory:
    """A checkout, its text if it has one, and why it was or was not texted."""
    vault = door.moment.vault
    async with door.open() as conn:
        session = await read_session(conn, door.scope, external_id)
        consent = await read_consent_of(conn, session)
        decisions = await read_decisions(conn, door.scope, session.session_id)
        message = await message_of_session(conn, vault, door.scope, session.session_id)
    return SessionStory.model_validate(
        session_fields(vault, session, consent)
        | {"decisions": decision_views(decisions), "message": message_answer(message) if message else None}
    )


@router.put("/payment", responses=CONFLICT)
async def put_payment(door: AtShop, external_id: ExternalId, form: PaymentForm) -> SessionView:
    """Tell that a payment is under way, or that it failed. While one is under way, no text goes out."""
    occurred_at = not_ahead(form.occurred_at, door.moment.now, "occurred_at")
    record = begin_payment if form.status == "pending" else fail_payment
    async with door.open() as conn:
        session = await lock_session(conn, door.scope, external_id)
        config, _ = await read_sms_config(conn, door.scope)
        session = await record(conn, door.moment, config, session, occurred_at)
        consent = await read_consent_of(conn, session)
    return SessionView.model_validate(session_fields(door.moment.vault, session, consent))


@router.put("/completion")
async def put_completion(door: AtShop, external_id: ExternalId, form: CompletionForm) -> CompletionView:
    """Tell about the order. No text follows it; the answer says whether a text brought it back.

    The first completion stands: another one is answered with it.
    """
    order = Order(
        completed_at=not_ahead(form.completed_at, door.moment.now, "completed_at"),
        order_id=form.order_id,
        value_minor=form.value_minor,
        currency=form.currency,
        recovery_token=form.recovery_token,
    )
    async with door.open() as conn:
        session = await lock_session(conn, door.scope, external_id)
        config, _ = await read_sms_config(conn, door.scope)
        session = await complete(conn, door.moment, config, session, order)
    return completion_view(session)
