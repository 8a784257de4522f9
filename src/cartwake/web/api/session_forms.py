"""What a storefront sends about a checkout, and what it gets to see of it."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from cartwake.carts.model import Session, SessionState
from cartwake.consent.model import ConsentState
from cartwake.kit.crypto import Vault
from cartwake.web.api.fields import (
    Body,
    Country,
    Currency,
    Instant,
    IpAddress,
    LocaleTag,
    LongText,
    MinorUnits,
    PhoneText,
    ShortText,
    TimeZone,
    TokenText,
    UtcTime,
    WebAddress,
    example,
    masked,
)
from cartwake.web.api.message_views import DecisionView, MessageAnswer


class ConsentForm(Body):
    """The state of the consent box, and the proof of what stood beside it."""

    granted: bool = Field(description="Whether the box is ticked. It must not be ticked before the shopper does it.")
    wording: LongText | None = Field(None, description="The exact text beside the box; required when granted.")
    wording_version: ShortText | None = Field(None, description="Your own name for that wording.")
    locale: LocaleTag | None = Field(None, description="The wording's language.")
    page_url: WebAddress | None = Field(None, description="Where the box was ticked.")
    form_field: ShortText | None = Field(None, description="The box's name in the page.")
    ip: IpAddress | None = Field(None, description="The shopper's; kept as a keyed hash only.")
    actor: ShortText | None = Field(None, description="Who ticked it, if not the shopper.")


class SessionForm(Body):
    """A checkout's news. What is absent or null says nothing new: what is known stays."""

    model_config = example(
        phone="+37061234567",
        country="LT",
        locale="lt",
        cart_value_minor=5990,
        currency="EUR",
        checkout_url="https://shop.example/checkout?cart=1",
        consent={
            "granted": True,
            "wording": "Text me about my cart, at most once. Reply STOP at any time.",
            "wording_version": "2026-11",
            "locale": "en",
            "page_url": "https://shop.example/checkout",
        },
    )

    phone: PhoneText | None = Field(
        None, description="International, or national for `country` (else the shop's country). Required with consent."
    )
    country: Country | None = Field(None, description="Of the shipping address.")
    province: ShortText | None = Field(None, description="Of the shipping address; tells the time zone in large ones.")
    time_zone: TimeZone | None = Field(None, description="Of the shipping address, if the storefront knows it.")
    locale: LocaleTag | None = Field(None, description="The language in which the shopper shops; that of the text.")
    cart_value_minor: MinorUnits | None = None
    currency: Currency | None = Field(None, description="Of the cart's value.")
    checkout_url: WebAddress | None = Field(None, description="Where a recovered shopper is sent.")
    occurred_at: Instant | None = Field(None, description="When it happened; now, unless given.")
    consent: ConsentForm | None = Field(None, description="The box, ticked or not, whenever it was on the page.")


class PaymentForm(Body):
    """News of a payment."""

    model_config = example(status="pending")

    status: Literal["pending", "failed"] = Field(description="Under way, or failed. A success is a completion.")
    occurred_at: Instant | None = Field(None, description="When it happened; now, unless given.")


class CompletionForm(Body):
    """The order that the checkout became."""

    model_config = example(order_id="order-1", value_minor=5990, currency="EUR")

    order_id: ShortText = Field(description="The storefront's own.")
    value_minor: MinorUnits
    currency: Currency
    completed_at: Instant | None = Field(None, description="When it happened; now, unless given.")
    recovery_token: TokenText | None = Field(None, description="`cartwake_token` of the checkout's address, if any.")


class ConsentView(BaseModel):
    """Consent as it stands for the session's phone."""

    granted: bool = Field(description="The box was ticked in this session for this phone, and nobody took it back.")
    suppressed: bool = Field(description="The phone's owner said STOP, or it cannot be texted.")


class SessionView(BaseModel):
    """A checkout as Cartwake knows it."""

    external_id: str
    state: SessionState
    phone: str | None = Field(description="Masked.")
    phone_country: str | None
    phone_problem: str | None = Field(None, description="Why the phone that was just sent was left out.")
    consent: ConsentView
    country: str | None
    province: str | None
    time_zone: str | None
    locale: str | None
    cart_value_minor: int | None
    currency: str | None
    has_checkout_url: bool
    last_activity_at: UtcTime
    abandoned_at: UtcTime | None
    refusal: str | None = Field(description="Why no text was scheduled, when that was last asked.")
    payment_until: UtcTime | None
    completed_at: UtcTime | None
    order_id: str | None
    recovered: bool
    created_at: UtcTime
    updated_at: UtcTime


class SessionStory(SessionView):
    """A checkout with everything that was decided about texting it."""

    decisions: list[DecisionView] = Field(description="Oldest first.")
    message: MessageAnswer | None


class CompletionView(BaseModel):
    """The order, and whether a text brought it back."""

    model_config = example(
        external_id="cart-1",
        state="completed",
        order_id="order-1",
        value_minor=5990,
        currency="EUR",
        completed_at="2026-11-24T09:40:00Z",
        recovered=True,
        message_id="0198f0a0-0000-7000-8000-000000000001",
        attribution="token",
    )

    external_id: str
    state: SessionState
    order_id: str | None
    value_minor: int | None
    currency: str | None
    completed_at: UtcTime | None
    recovered: bool
    message_id: UUID | None = Field(description="The text that the order is attributed to.")
    attribution: str | None = Field(description="`token`: the recovery link's token came back; `click`: it was tapped.")


def session_fields(
    vault: Vault, session: Session, consent: ConsentState, phone_problem: str | None = None
) -> dict[str, object]:
    """The fields of a `SessionView`."""
    fields = {name: getattr(session, name) for name in SessionView.model_fields if hasattr(session, name)}
    return fields | {
        "phone": masked(vault, session.phone_sealed),
        "phone_problem": phone_problem,
        "consent": ConsentView(
            granted=session.consented and consent.granted, suppressed=consent.suppression is not None
        ),
        "has_checkout_url": session.checkout_url_sealed is not None,
        "recovered": session.attributed_to is not None,
    }


def completion_view(session: Session) -> CompletionView:
    """What the order came to."""
    return CompletionView(
        external_id=session.external_id,
        state=SessionState(session.state),
        order_id=session.order_id,
        value_minor=session.order_value_minor,
        currency=session.order_currency,
        completed_at=session.completed_at,
        recovered=session.attributed_to is not None,
        message_id=session.attributed_to,
        attribution=session.attribution,
    )
