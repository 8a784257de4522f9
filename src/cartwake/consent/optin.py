"""Layer 2 of consent: what a checkout sends is checked before any payment is created."""

from __future__ import annotations

from cartwake.kit.errors import BadInput
from cartwake.kit.phones import Phone, parse_mobile


def validate_sms_consent(consent: bool, phone: str | None, default_country: str | None = None) -> Phone | None:
    """The phone that a shopper agreed to be texted at, or None when nobody agreed.

    Runs before a payment is created with any provider, so that nobody pays fees for a request that is
    refused anyway. Raises `BadInput`: `consent-without-phone` when consent comes without a phone,
    `invalid-phone` when the phone is not a valid mobile number.
    """
    if not consent:
        return None
    if not phone or not phone.strip():
        raise BadInput(
            "The shopper agreed to texts, so a phone number is required.",
            slug="consent-without-phone",
            field="phone",
        )
    return parse_mobile(phone.strip(), default_country)
