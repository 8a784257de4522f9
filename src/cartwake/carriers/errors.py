"""What a Twilio error code means for us: one table, and the rule for codes that are not in it.

Codes and meanings: Twilio's error dictionary (twilio.com/docs/api/errors). The classes are ours.
Twilio adds codes without notice, so an unknown one must have a safe reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cartwake.carriers.protocol import ErrorClass

# Error codes begin here; smaller numbers are HTTP statuses that the SDK puts where a code is missing.
LOWEST_CODE = 10_000

_BY_CLASS: dict[ErrorClass, dict[int, str]] = {
    ErrorClass.RECIPIENT_PERMANENT: {
        21211: "the recipient's number is not valid",
        21614: "the recipient's number is not a mobile number",
        21635: "the recipient's number is a landline",
        30005: "the recipient's number is unknown or no longer in use",
        30006: "the recipient's number is a landline or its network cannot be reached",
    },
    ErrorClass.OPTED_OUT: {
        21610: "the recipient has opted out of this sender",
    },
    ErrorClass.RECIPIENT_SOFT: {
        21612: "this sender cannot reach this recipient at present",
        30003: "the recipient's phone is switched off or out of reach",
        30004: "the recipient or their network blocks the text",
        30008: "delivery failed for a reason that the network did not give",
    },
    ErrorClass.CONTENT: {
        21602: "the text has no body",
        21617: "the body is longer than 1600 characters",
        30007: "the network filtered the text out",
    },
    ErrorClass.ACCOUNT: {
        10001: "the account is not active",
        20003: "the account SID or auth token is wrong",
        20005: "the account is not active",
        20404: "the account or resource does not exist",
        21212: "the sender is not valid",
        21408: "texting the recipient's region is not permitted for this account",
        21422: "the phone number is not available",
        21603: "no sender was given",
        21604: "no recipient was given",
        21606: "the sender does not belong to this account or cannot send texts",
        21608: "a trial account may text verified numbers only",
        21609: "the status callback address is not valid",
        21631: "the phone number needs an address",
        21649: "the phone number needs an approved regulatory bundle",
        21650: "the phone number's regulatory requirements are not met",
        21651: "a document does not meet the phone number's regulatory requirements",
        21659: "the sender is not a number of this carrier",
        21701: "the messaging service does not exist",
        21702: "the messaging service is missing",
        21703: "the messaging service has no sender",
        21704: "the messaging service has no sender for this recipient",
        21705: "the messaging service is not valid",
        30002: "the account is suspended",
        30018: "the recipient's network wants the sender registered first",
        30032: "the toll-free sender is not verified",
        30034: "the sender is not registered for US application traffic (10DLC)",
        30035: "the sender's registration for US traffic is not complete",
        63038: "the account has used up its texts for the day",
        90007: "the validity period is not between 1 and 36000 seconds",
        90014: "the validity period is not a whole number",
    },
    ErrorClass.THROTTLE: {
        14107: "too many texts between these two numbers",
        20429: "too many requests at a time",
        21611: "the sender's queue is full",
        30001: "the sender's queue overflowed",
        30022: "the network's rate limit for the sender is exceeded",
        30023: "the network's daily limit for the sender is reached",
    },
    ErrorClass.UNKNOWN_OUTCOME: {
        20500: "the carrier had an internal error",
        20503: "the carrier is unavailable for now",
        30410: "the network did not answer in time",
        30500: "the carrier had an internal error while sending",
    },
    ErrorClass.EXPIRED: {
        30036: "the text was not delivered within its validity period",
        30450: "the text was not delivered in time",
    },
}

CODES: Mapping[int, tuple[ErrorClass, str]] = MappingProxyType(
    {code: (kind, meaning) for kind, codes in _BY_CLASS.items() for code, meaning in codes.items()}
)


def classify(code: int | None, http_status: int) -> ErrorClass:
    """The class of a refusal (`http_status` as answered) or of a receipt's error code (`http_status` 200).

    The status speaks first: after a 5xx nobody knows what happened, whatever the body says, and a
    429 was not processed. 408 counts with the 5xx, because a proxy may answer it for a request that
    got through.

    A refusal with an unknown code is ACCOUNT: the text is certainly not sent, no shopper's number
    or consent may be marked on a guess, and somebody should look. A *receipt* with an unknown code
    says that one text failed, which is no reason to pause a sender: RECIPIENT_SOFT.
    """
    if http_status >= 500 or http_status == 408:
        return ErrorClass.UNKNOWN_OUTCOME
    if http_status == 429:
        return ErrorClass.THROTTLE
    if (known := CODES.get(code or 0)) is not None:
        return known[0]
    return ErrorClass.ACCOUNT if http_status >= 300 else ErrorClass.RECIPIENT_SOFT


def describe(code: int | None, http_status: int) -> str:
    """A sentence for people, in our own words: the carrier's may quote the recipient's number."""
    if (known := CODES.get(code or 0)) is not None:
        return known[1]
    if code is not None:
        return f"the carrier's error {code}"
    return f"the carrier answered HTTP {http_status}"
