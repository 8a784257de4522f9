"""Phone numbers: parsing to E.164, what kind of line it is, and how to show one without showing it.

Rules of libphonenumber (the `phonenumbers` package). US and Canadian mobiles cannot be told from
landlines by their number, so FIXED_LINE_OR_MOBILE is accepted as well as MOBILE.
"""

from __future__ import annotations

from dataclasses import dataclass

import phonenumbers
from phonenumbers import PhoneNumberType

from cartwake.kit.crypto import Vault
from cartwake.kit.errors import BadInput

TEXTABLE_TYPES = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE})


@dataclass(frozen=True, repr=False)
class Phone:
    """A valid number that can receive texts. Its `repr` is masked, so that a log line cannot leak it."""

    e164: str
    country: str  # ISO 3166-1 alpha-2 of the number itself, not of the shopper's address

    def __repr__(self) -> str:
        return f"Phone({mask(self.e164)})"


def parse_mobile(text: str, default_country: str | None = None) -> Phone:
    """Read what a shopper typed as a mobile number.

    `default_country` (ISO alpha-2) reads national formats; international ones need none.
    Raises `BadInput` (slug `invalid-phone`) when it is not a valid number or cannot be texted.
    """
    # Longer than any way of writing 15 digits: do not hand a megabyte to the parser.
    if len(text) > 64:
        raise BadInput("The phone number is too long to be one.", slug="invalid-phone", field="phone")
    try:
        number = phonenumbers.parse(text, default_country)
    except phonenumbers.NumberParseException:
        raise BadInput(
            "The phone number could not be read; send it in international format, like +37061234567.",
            slug="invalid-phone",
            field="phone",
        ) from None
    country = phonenumbers.region_code_for_number(number)
    if not phonenumbers.is_valid_number(number) or country is None or len(country) != 2:
        raise BadInput(
            "The phone number is not a valid number; send it whole, in international format, like +37061234567.",
            slug="invalid-phone",
            field="phone",
        )
    if phonenumbers.number_type(number) not in TEXTABLE_TYPES:
        raise BadInput(
            "The phone number is not a mobile number, so it cannot receive texts.",
            slug="invalid-phone",
            field="phone",
        )
    return Phone(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164), country)


def country_of(e164: str) -> str:
    """ISO country of a number that was parsed before (`""` when libphonenumber no longer knows it)."""
    return phonenumbers.region_code_for_number(phonenumbers.parse(e164)) or ""


def mask(e164: str) -> str:
    """The form that people see: calling code and the last two digits (`+370······67`)."""
    return e164[:4] + "·" * max(len(e164) - 6, 0) + e164[-2:]


def hash_phone(vault: Vault, e164: str) -> bytes:
    """What a number is looked up by: a keyed hash of all its digits, the same in every tenant."""
    return vault.hash(e164, "phone")


def seal_phone(vault: Vault, e164: str) -> bytes:
    """The number as it is stored."""
    return vault.seal(e164, "phone")


def open_phone(vault: Vault, sealed: bytes) -> str:
    """The number that `seal_phone` stored. Raises `ValueError` when its key is gone."""
    return vault.open(sealed, "phone").decode()
