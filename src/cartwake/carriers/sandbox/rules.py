"""What Twilio refuses at once, and how: the documented validations and the magic numbers of its test mode.

Sources: Messages resource, error dictionary and "Test credentials" of Twilio's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

BODY_MAX = 1600
VALIDITY_RANGE_S = (1, 36_000)

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_SHORT_CODE = re.compile(r"[0-9]{3,8}")
_ALPHANUMERIC = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}")

MAGIC_TO = {
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}
MAGIC_FROM = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}

# The HTTP status that goes with a code; every other one is a 400.
HTTP_STATUS = {20003: 401, 20404: 404, 20429: 429, 20500: 500, 20503: 503}

MEANING = {
    20001: "A parameter is not valid",
    20003: "Authentication failed",
    20404: "The requested resource was not found",
    20429: "Too many requests",
    20500: "An internal error occurred",
    21211: "The 'To' number is not a valid phone number",
    21212: "The 'From' number or sender is not valid",
    21408: "Texting the region of the 'To' number is not permitted",
    21422: "The phone number is not available",
    21602: "A body is required",
    21603: "A 'From' number or messaging service is required",
    21604: "A 'To' number is required",
    21606: "The 'From' number is not one of this account's that can send texts",
    21609: "The status callback is not a valid address",
    21610: "The recipient has unsubscribed from this sender",
    21611: "The queue of the 'From' number is full",
    21612: "The 'To' number cannot be reached from this sender",
    21614: "The 'To' number is not a mobile number",
    21617: "The body exceeds 1600 characters",
    21631: "The phone number requires an address",
    21649: "The phone number requires an approved regulatory bundle",
    90007: "The validity period must be between 1 and 36000 seconds",
    90014: "The validity period must be a positive integer",
}


@dataclass(frozen=True)
class Refusal:
    """Twilio's answer to what it will not do."""

    code: int

    @property
    def http_status(self) -> int:
        return HTTP_STATUS.get(self.code, 400)

    @property
    def message(self) -> str:
        return MEANING.get(self.code, "The request was refused")


def is_phone(text: str) -> bool:
    """Whether `text` is written as E.164; whether such a number exists is not asked."""
    return _E164.fullmatch(text) is not None


def refusal(form: Mapping[str, str]) -> Refusal | None:
    """Why this form makes no text, or None when it does. What depends on the recipient's past is asked elsewhere."""
    code = _missing(form) or _malformed(form) or MAGIC_TO.get(form["To"]) or MAGIC_FROM.get(form.get("From", ""))
    return Refusal(code) if code else None


def _missing(form: Mapping[str, str]) -> int | None:
    if not form.get("To"):
        return 21604
    if not (form.get("From") or form.get("MessagingServiceSid")):
        return 21603
    return None if form.get("Body") else 21602


def _malformed(form: Mapping[str, str]) -> int | None:
    sender = form.get("From")
    if not is_phone(form["To"]):
        return 21211
    if sender and not any(kind.fullmatch(sender) for kind in (_E164, _SHORT_CODE, _ALPHANUMERIC)):
        return 21212
    if len(form["Body"]) > BODY_MAX:
        return 21617
    return _bad_validity(form.get("ValidityPeriod")) or _bad_callback(form.get("StatusCallback"))


def _bad_validity(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        return 90014
    low, high = VALIDITY_RANGE_S
    return None if low <= int(text) <= high else 90007


def _bad_callback(url: str | None) -> int | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return 21609
    good = parts.scheme in ("http", "https") and parts.hostname and "_" not in parts.hostname
    return None if good else 21609
