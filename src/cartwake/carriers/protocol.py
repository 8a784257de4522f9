"""What Cartwake needs of a carrier, and nothing more.

A send has exactly four outcomes. The one that matters most is `Unknown`: carriers of this kind have
no idempotency keys (Twilio error 20500), so a text whose fate is unknown is asked about, never resent.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class ErrorClass(enum.StrEnum):
    """What follows from a carrier's error code."""

    RECIPIENT_PERMANENT = "recipient_permanent"  # never try this number again
    OPTED_OUT = "opted_out"  # as above, and consent is withdrawn (21610)
    RECIPIENT_SOFT = "recipient_soft"  # this time not
    CONTENT = "content"  # the text itself is at fault
    ACCOUNT = "account"  # the sender, route or account is at fault: tell the operator
    THROTTLE = "throttle"  # not processed; later
    UNKNOWN_OUTCOME = "unknown_outcome"  # may or may not have been processed; ask
    EXPIRED = "expired"  # its validity ran out before delivery


@dataclass(frozen=True, kw_only=True)
class OutboundText:
    """One text, ready to go."""

    attempt_id: UUID  # echoed in the callback's address, so that a receipt finds its attempt
    sender: str  # E.164 number or alphanumeric sender id
    to: str  # E.164
    body: str
    validity_s: int  # the carrier must not deliver later than this many seconds from now

    def __repr__(self) -> str:
        return f"OutboundText(attempt_id={self.attempt_id})"


@dataclass(frozen=True)
class Accepted:
    """The carrier took the text and gave it this id."""

    sid: str


@dataclass(frozen=True)
class Rejected:
    """The carrier refused the text; it will not be sent."""

    code: int | None
    error_class: ErrorClass
    reason: str


@dataclass(frozen=True)
class Throttled:
    """The carrier did not process the text; it may be handed over again after `retry_after_s` seconds."""

    code: int | None
    retry_after_s: float
    reason: str = "throttled"


@dataclass(frozen=True)
class Unknown:
    """Nobody can say yet whether the text was taken: a timeout, a 5xx, a dropped connection."""

    reason: str


SendResult = Accepted | Rejected | Throttled | Unknown


class MessageStatus(enum.StrEnum):
    """The states of a text at the carrier that Cartwake acts on, in order of rank."""

    ACCEPTED = "accepted"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    UNSUBSCRIBED = "unsubscribed"  # not sent by Twilio, but some carriers report an opt-out so


@dataclass(frozen=True, kw_only=True)
class StatusReport:
    """A delivery receipt, as any carrier would tell it."""

    sid: str
    attempt_id: UUID | None
    status: MessageStatus
    error_code: int | None


@dataclass(frozen=True, kw_only=True, repr=False)
class InboundText:
    """A text that a shopper sent to one of our senders."""

    sid: str
    sender: str  # the shopper's phone, E.164
    to: str  # our number
    body: str
    opt_out_type: str | None  # STOP, START or HELP where the carrier classified it itself


@dataclass(frozen=True)
class Found:
    """The carrier knows the text."""

    report: StatusReport


@dataclass(frozen=True)
class Absent:
    """The carrier answered, and does not know the text."""


@dataclass(frozen=True)
class CannotAsk:
    """The carrier could not be asked just now."""

    reason: str


@dataclass(frozen=True, kw_only=True, repr=False)
class ListedText:
    """One text in a carrier's own record, in either direction."""

    sid: str
    sender: str
    to: str
    body: str
    created_at: datetime
    inbound: bool
    status: MessageStatus


class KeepsRecord(Protocol):
    """A carrier that can say what it took. Needed after a restore, and for nothing else."""

    def history(self, since: datetime) -> AsyncIterator[ListedText]:
        """Every text taken or received since then, newest first. Raises `CarrierError` when it cannot be asked."""


class Trouble(enum.StrEnum):
    """What kept a carrier from answering a question."""

    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"
    CREDENTIALS = "credentials"  # it does not know account and secret together
    NO_ACCOUNT = "no_account"  # it knows us, but not this account
    REFUSED = "refused"  # it answered something else


class CarrierError(Exception):
    """The carrier could not be asked; the message says why."""

    def __init__(self, why: str, trouble: Trouble = Trouble.REFUSED) -> None:
        super().__init__(why)
        self.trouble = trouble


@dataclass(frozen=True)
class Account:
    """Our account at the carrier, as it describes it."""

    status: str  # `active`, or why it is not
    kind: str  # Twilio: Full or Trial; our sandbox: Sandbox
    answered_at: datetime | None  # by the carrier's clock, in whole seconds; None where it does not say


@dataclass(frozen=True, repr=False)
class OwnedNumber:
    """A number of our account, and where the carrier posts what is texted to it."""

    address: str
    inbound_url: str | None


class Examinable(Protocol):
    """A carrier that can be asked about our account, without anything being sent. For `cartwake doctor`."""

    async def account(self) -> Account:
        """Our account. Raises `CarrierError`."""

    async def owned_numbers(self) -> list[OwnedNumber]:
        """Every number of our account. Raises `CarrierError`."""

    def sign(self, url: str, form: Mapping[str, str]) -> dict[str, str]:
        """The headers by which the carrier would prove a webhook with this form to `url` (full, with its query)."""

    async def close(self) -> None:
        """Give connections back."""


class Carrier(Protocol):
    """An adapter to one carrier. `send`, `find` and `look_up` never raise for what a carrier or network does."""

    async def send(self, text: OutboundText) -> SendResult:
        """Hand one text over, once. Never retries by itself."""

    async def find(self, text: OutboundText, since: datetime) -> Found | Absent | CannotAsk:
        """Ask whether a text handed over at or after `since` was taken (by to, from, time and body)."""

    async def look_up(self, sid: str, attempt_id: UUID) -> Found | Absent | CannotAsk:
        """Ask what became of a text that was taken, by the id that it was given. `attempt_id`: whose it is."""

    def verify(self, url: str, body: bytes, headers: Mapping[str, str]) -> bool:
        """Whether the carrier signed this webhook: full public URL, raw form body, headers. Constant time."""

    def read_status(self, body: bytes, query: Mapping[str, str]) -> StatusReport | None:
        """The receipt in a verified callback, or None where it says nothing that Cartwake acts on.

        Raises `BadInput` when required fields are missing.
        """

    def read_inbound(self, body: bytes) -> InboundText:
        """The text in a verified inbound webhook. Raises `BadInput` when required fields are missing."""

    async def close(self) -> None:
        """Give connections back."""
