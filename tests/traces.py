"""Whether a phone number stands in a text, however it is written."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import phonenumbers
from phonenumbers import PhoneNumberFormat


def traces_of(phone: str) -> set[str]:
    """The ways in which a number could stand in a text: as people and programs write it, and as bytes in hex."""
    number = phonenumbers.parse(phone)
    national = phonenumbers.national_significant_number(number)
    formats = (PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL, PhoneNumberFormat.RFC3966)
    written = {phonenumbers.format_number(number, each) for each in formats} | {phone, phone[1:], national}
    return (
        written | {quote(each) for each in written} | {quote_plus(each) for each in written} | {national.encode().hex()}
    )


def holds(text: str, phone: str) -> list[str]:
    return sorted(trace for trace in traces_of(phone) if trace in text)
