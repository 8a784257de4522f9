"""All that the sandbox remembers: texts, numbers, STOP lists, scripted recipients, faults.

In memory, and with a journal also beyond the end of the process, save the numbers.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cartwake.carriers.sandbox.encoding import segments
from cartwake.carriers.sandbox.faults import Faults
from cartwake.carriers.sandbox.journal import Journal
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
    faults: Faults | None = None  # what goes wrong from the start; the control API may change it
    journal: Path | None = None  # a file that remembers when this process is killed


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


# How a text and a callback are written into the journal.
TEXT, CALLBACK = TypeAdapter(Text), TypeAdapter(Callback)
FINAL = frozenset({"delivered", "undelivered", "failed", "unsubscribed", "received"})


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
        self._journal = Journal(options.journal)
        self._forget()
        for kind, facts in self._journal.lines():
            self._recall(kind, facts)

    def reset(self) -> None:
        """Forget everything, in the journal too."""
        self._journal.clear()
        self._forget()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _forget(self) -> None:
        self.texts: OrderedDict[str, Text] = OrderedDict()
        self.numbers: dict[str, Number] = {}
        self.recipients: dict[str, Recipient] = {}
        self.stopped: set[tuple[str, str]] = set()  # (sender or messaging service, recipient)
        self.faults = self.options.faults or Faults()
        self.accepted = 0
        self._by_party: dict[str, deque[Text]] = {}
        self._seq = 0

    def add(self, *, to: str, sender: str | None, body: str, status: str, inbound: bool = False) -> Text:
        """Make a new text and remember it. Once it is complete, `note_text` has to follow."""
        now = self.clock.now()
        text = Text(self._seq + 1, new_sid("SM"), to, sender, body, status, now, now, inbound)
        self._remember(text)
        return text

    def note_text(self, text: Text) -> None:
        """The text is as it will be answered: from now on it outlives this process."""
        self._journal.note("text", TEXT.dump_python(text, mode="json"))

    def note_status(self, text: Text) -> None:
        """The text's status has changed."""
        at = text.updated_at.isoformat()
        facts = {"sid": text.sid, "status": text.status, "error_code": text.error_code, "at": at}
        self._journal.note("status", facts)

    def note_callback(self, text: Text, callback: Callback) -> None:
        """Our web was told about the text, or not."""
        text.callbacks.append(callback)
        self._journal.note("callback", {"sid": text.sid} | CALLBACK.dump_python(callback, mode="json"))

    def script(self, phone: str, recipient: Recipient) -> None:
        """Decide what becomes of later texts to one phone."""
        self.recipients[phone] = recipient
        self._journal.note("recipient", {"phone": phone} | recipient.model_dump())

    def go_wrong(self, faults: Faults) -> None:
        """What goes wrong from now on."""
        self.faults = faults
        self._journal.note("faults", faults.model_dump())

    def under_way(self) -> list[Text]:
        """Accepted texts that have not reached their end."""
        return [text for text in self.texts.values() if text.status not in FINAL]

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

    def _remember(self, text: Text) -> None:
        """Keep a text, and forget the oldest when there are too many."""
        self._seq = text.seq
        self.accepted += not text.inbound
        self.texts[text.sid] = text
        for party in _parties(text):
            self._by_party.setdefault(party, deque()).append(text)
        if len(self.texts) > self.options.texts_max:
            self._forget_oldest()

    def _recall(self, kind: str, facts: dict[str, Any]) -> None:
        """One line of the journal, in the order in which they were written."""
        if kind == "text":
            text = TEXT.validate_python(facts)
            self._remember(text)
            if text.inbound and text.sender:
                self.apply_keyword(text.to, text.sender, text.body)
        elif kind == "recipient":
            phone = facts.pop("phone")
            self.recipients[phone] = Recipient.model_validate(facts)
        elif kind == "faults":
            self.faults = Faults.model_validate(facts)
        elif known := self.texts.get(facts.pop("sid")):
            _recall_life(known, kind, facts)

    def _forget_oldest(self) -> None:
        _, oldest = self.texts.popitem(last=False)
        for party in _parties(oldest):
            texts = self._by_party[party]
            texts.popleft()
            if not texts:
                del self._by_party[party]


def _recall_life(text: Text, kind: str, facts: Mapping[str, Any]) -> None:
    """What became of a text, by its journal."""
    if kind == "callback":
        text.callbacks.append(CALLBACK.validate_python(facts))
        return
    text.status, text.error_code = facts["status"], facts["error_code"]
    text.updated_at = datetime.fromisoformat(facts["at"])
    if text.status == "sent":
        text.sent_at = text.updated_at


def _parties(text: Text) -> set[str]:
    return {party for party in (text.to, text.sender) if party is not None}
