"""All that the sandbox remembers, in memory: texts, numbers, STOP lists, scripted recipients, faults."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cartwake.carriers.sandbox.encoding import segments
from cartwake.carriers.sandbox.faults import Faults
from cartwake.kit.clock import Clock

# Whole body, any case: Twilio's default keywords. "Stop please" is for Cartwake to understand.
STOP_WORDS = frozenset({"STOP", "UNSUBSCRIBE", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT", "CANCEL"})
START_WORDS = frozenset({"START", "UNSTOP"})


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sandbox is set up. Delays are real milliseconds, counted from the acceptance of a text."""

    account_sid: str = "AC" + "0" * 32
    auth_token: str = "development-auth-token"  # noqa: S105 - the development default of the settings
    inbound_url: str | None = None  # where replies go to senders that were never bought here
    sent_after_ms: int = 50
    delivered_after_ms: int = 250
    texts_max: int = 1_000_000  # the oldest are forgotten (about 1.3 kB each)
    webhook_concurrency: int = 64


class Recipient(BaseModel):
    """What becomes of texts to one phone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Literal["delivered", "undelivered", "failed", "rejected", "unsubscribed"] = "delivered"
    error_code: int | None = Field(None, ge=10_000, le=999_999)
    delay_ms: int | None = Field(None, ge=0, le=3_600_000, description="Until the outcome, in real milliseconds.")


@dataclass(slots=True, frozen=True)
class Callback:
    """One status callback, after its last try. `http_status` is None when nobody answered."""

    status: str
    error_code: int | None
    at: datetime
    http_status: int | None


@dataclass(slots=True, eq=False)
class Text:
    """One text, as the carrier sees it. `inbound`: from a shopper to a sender."""

    seq: int
    sid: str
    to: str
    sender: str | None  # None while a messaging service has not chosen one (here: for ever)
    body: str
    status: str
    created_at: datetime
    updated_at: datetime
    inbound: bool = False
    service_sid: str | None = None
    sent_at: datetime | None = None
    error_code: int | None = None
    status_callback: str | None = None
    validity_s: int = 36_000
    callbacks: list[Callback] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What names this attempt to the faults: our token in the callback's address, else the text itself."""
        return attempt_key(self.status_callback, self.to, self.body)

    @property
    def segments(self) -> int:
        """Parts; a messaging service does not know them before it has a sender."""
        return 0 if self.service_sid and self.sent_at is None else segments(self.body)


@dataclass(slots=True)
class Number:
    """A phone number that was bought here."""

    sid: str
    phone_number: str
    sms_url: str | None
    friendly_name: str
    address_sid: str | None
    bundle_sid: str | None
    created_at: datetime


def attempt_key(status_callback: str | None, to: str, body: str) -> str:
    """The `attempt` in a callback's address, or recipient and body where there is none."""
    found = re.search(r"[?&]attempt=([^&#]+)", status_callback or "")
    return found[1] if found else f"{to}|{body}"


def new_sid(prefix: str) -> str:
    """A fresh id in Twilio's form."""
    return prefix + secrets.token_hex(16)


class State:
    """The memory of one sandbox. Not bound to an event loop."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.texts: OrderedDict[str, Text] = OrderedDict()
        self.numbers: dict[str, Number] = {}
        self.recipients: dict[str, Recipient] = {}
        self.stopped: set[tuple[str, str]] = set()  # (sender or messaging service, recipient)
        self.faults = Faults()
        self.accepted = 0
        self._by_party: dict[str, deque[Text]] = {}
        self._seq = 0

    def add(self, *, to: str, sender: str | None, body: str, status: str, inbound: bool = False) -> Text:
        """Remember a new text, and forget the oldest when there are too many."""
        now = self.clock.now()
        self._seq += 1
        text = Text(self._seq, new_sid("SM"), to, sender, body, status, now, now, inbound)
        self.texts[text.sid] = text
        for party in _parties(text):
            self._by_party.setdefault(party, deque()).append(text)
        if len(self.texts) > self.options.texts_max:
            self._forget_oldest()
        return text

    def newest_first(self, to: str | None, sender: str | None) -> Iterable[Text]:
        """Texts with that recipient and sender (None: any), newest first."""
        party = to or sender
        texts = self.texts.values() if party is None else self._by_party.get(party, deque())
        return (t for t in reversed(texts) if to in (None, t.to) and sender in (None, t.sender))

    def conversation(self, phone: str) -> Iterable[Text]:
        """Texts to and from `phone`, newest first."""
        return reversed(self._by_party.get(phone, deque()))

    def number(self, phone_number: str) -> Number | None:
        """The number, if it was bought here."""
        return next((n for n in self.numbers.values() if n.phone_number == phone_number), None)

    def apply_keyword(self, sender: str, recipient: str, body: str) -> None:
        """STOP blocks later texts from `sender` to `recipient`; START lifts the block."""
        word = body.strip().upper()
        if word in STOP_WORDS:
            self.stopped.add((sender, recipient))
        elif word in START_WORDS:
            self.stopped.discard((sender, recipient))

    def _forget_oldest(self) -> None:
        _, oldest = self.texts.popitem(last=False)
        for party in _parties(oldest):
            texts = self._by_party[party]
            texts.popleft()
            if not texts:
                del self._by_party[party]


def _parties(text: Text) -> set[str]:
    return {party for party in (text.to, text.sender) if party is not None}
