"""A carrier inside the story, with a memory of its own of what it took: the independent witness's eyes.

What it is asked travels on the carrier's own tasks, so a worker that dies does not take its request back. A
text that is taken lives on by itself: sent, then delivered or not, and each change is told to our web in
webhooks that may be lost, late, doubled or out of order, and are tried again when nobody answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import httpx

from cartwake.carriers.errors import classify, describe
from cartwake.carriers.open import INBOUND_PATH, STATUS_PATH, open_carrier
from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    CannotAsk,
    Found,
    InboundText,
    MessageStatus,
    OutboundText,
    Rejected,
    SendResult,
    StatusReport,
    Throttled,
    Unknown,
)
from cartwake.carriers.sandbox.callbacks import sign
from cartwake.carriers.sandbox.state import START_WORDS, STOP_WORDS
from cartwake.kit.config import Settings
from simulation.chaos import Chaos
from simulation.process import CURRENT, ERRAND, Process

REFUSALS = (21614, 21408, 21612, 21211)
FAILURES = {"undelivered": (30003, 30005, 30007), "failed": (30008, 30004)}
EXPIRED = 30036
POSTS_MAX = 6
# How far a worker is with a text that it has called the carrier for.
CALLING, TAKEN, ANSWERED = (
    "with a call and the text not taken",
    "with a text taken and no answer yet",
    "with an answer that is not recorded",
)


@dataclass(eq=False)
class Taken:
    """A text that the carrier took."""

    sid: str
    text: OutboundText
    handed_at: datetime  # when the worker handed it over; validity counts from here
    status: str = "queued"
    error_code: int | None = None
    told: list[str] = field(default_factory=list)  # statuses whose webhook was answered
    taken_at: datetime | None = None

    @property
    def path(self) -> str:
        return f"{STATUS_PATH}?attempt={self.text.attempt_id.hex}"


class Watcher(Protocol):
    """Somebody who wants to know what reaches the carrier and its phones."""

    def handed_over(self, text: OutboundText) -> None: ...
    def taken(self, taken: Taken) -> None: ...
    def refused(self, text: OutboundText, code: int | None) -> None: ...
    def delivered(self, taken: Taken) -> None: ...


class StoryCarrier:
    """Implements `Carrier`. Its processes' deaths are not its own."""

    def __init__(self, process: Process, chaos: Chaos, settings: Settings, watcher: Watcher) -> None:
        self.texts: dict[UUID, Taken] = {}
        self.stopped: set[tuple[str, str]] = set()
        self._process = process
        self._chaos = chaos
        self._dice = chaos.dice("carrier")
        self._settings = settings
        self._watcher = watcher
        self._adapter = open_carrier(settings)  # for reading webhooks; it never sends
        self._no_questions_until: dict[UUID, datetime] = {}
        # With a STOP list of its own, a carrier hides what we forget; in half of the stories it has none.
        self._keeps_stop_list = chaos.dice("stop list").random() < 0.5
        self._webs: Callable[[], Web | None] = lambda: None

    # --- the protocol ------------------------------------------------------------------------------

    async def send(self, text: OutboundText) -> SendResult:
        self._watcher.handed_over(text)
        worker = CURRENT.get()
        assert worker is not None
        worker.in_hand[text.attempt_id] = CALLING
        answer: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
        ERRAND.set("")  # whatever made a worker send, the request is on its own now
        self._process.start(self._exchange(text, worker, answer))
        try:
            return await asyncio.wait_for(answer, self._settings.twilio_timeout_s)
        except TimeoutError:
            return Unknown("TimeoutError")
        finally:
            worker.in_hand[text.attempt_id] = ANSWERED

    async def find(self, text: OutboundText, since: datetime) -> Found | Absent | CannotAsk:
        await self._be_asked()
        if self._now() < self._questions_from(text.attempt_id):
            return CannotAsk("TimeoutError")
        for taken in reversed(self.texts.values()):
            theirs = taken.text
            is_this = (theirs.to, theirs.sender, theirs.body) == (text.to, text.sender, text.body)
            if is_this and taken.taken_at is not None and taken.taken_at >= since - timedelta(minutes=2):
                return Found(self._report(taken, text.attempt_id))
        return Absent()

    async def look_up(self, sid: str, attempt_id: UUID) -> Found | Absent | CannotAsk:
        await self._be_asked()
        if self._now() < self._questions_from(attempt_id):
            return CannotAsk("TimeoutError")
        taken = self.texts.get(attempt_id)
        return Found(self._report(taken, attempt_id)) if taken and taken.sid == sid else Absent()

    async def _be_asked(self) -> None:
        asking = CURRENT.get()
        assert asking is not None
        with asking.busy("asking the carrier"):
            await asking.gate("asks the carrier")
            await asyncio.sleep(self._dice.uniform(0.01, 1))
            await asking.gate("is told by the carrier")

    def verify(self, url: str, body: bytes, headers: Mapping[str, str]) -> bool:
        return self._adapter.verify(url, body, headers)

    def read_status(self, body: bytes, query: Mapping[str, str]) -> StatusReport | None:
        return self._adapter.read_status(body, query)

    def read_inbound(self, body: bytes) -> InboundText:
        return self._adapter.read_inbound(body)

    async def close(self) -> None:
        await self._adapter.close()

    # --- phones ------------------------------------------------------------------------------------

    async def text_back(self, phone: str, to: str, body: str) -> bool:
        """A shopper texts one of our numbers. Whether our web has answered."""
        word = body.strip().upper()
        if self._keeps_stop_list and word in STOP_WORDS:
            self.stopped.add((to, phone))
        elif word in START_WORDS:
            self.stopped.discard((to, phone))
        form = {"MessageSid": self._sid(), "From": phone, "To": to, "Body": body}
        return await self._post(INBOUND_PATH, form)

    def serve(self, webs: Callable[[], Web | None]) -> None:
        """Where webhooks go from now on: some web that listens, or None."""
        self._webs = webs

    # --- what becomes of a text -----------------------------------------------------------------------

    async def _exchange(self, text: OutboundText, worker: Process, answer: asyncio.Future[SendResult]) -> None:
        handed_at = self._now()
        await asyncio.sleep(self._dice.choice([0.02, 0.1, 0.4, 3.0, 8.0]))
        result = self._refusal(text)
        if result is None and not self._chaos.strikes("timeout_before"):
            if worker.in_hand.get(text.attempt_id) == CALLING:  # else it has given up waiting
                worker.in_hand[text.attempt_id] = TAKEN
            result = await self._take(text, handed_at)
        if result is not None and not answer.done():
            answer.set_result(result)

    def _refusal(self, text: OutboundText) -> SendResult | None:
        """Why the text is not taken, in words that the worker gets to hear; None when nothing speaks against it."""
        if self._chaos.strikes("error_before"):
            return Unknown("the carrier answered HTTP 500")
        if self._chaos.strikes("unreachable"):
            return self._denied(text, Throttled(None, 15.0))
        if self._chaos.strikes("throttle"):
            return self._denied(text, Throttled(20429, float(self._dice.choice([0, 1, 30, 300]))))
        code = 21610 if (text.sender, text.to) in self.stopped else None
        if code is None and self._chaos.strikes("reject"):
            code = self._dice.choice(REFUSALS)
        if code is None:
            return None
        return self._denied(text, Rejected(code, classify(code, 400), describe(code, 400)))

    def _denied(self, text: OutboundText, result: Throttled | Rejected) -> SendResult:
        self._watcher.refused(text, result.code if isinstance(result, Rejected) else None)
        return result

    async def _take(self, text: OutboundText, handed_at: datetime) -> SendResult | None:
        taken = Taken(self._sid(), text, handed_at, taken_at=self._now())
        self._watcher.taken(taken)
        self.texts[text.attempt_id] = taken
        self._process.start(self._live(taken))
        if self._chaos.strikes("timeout_after"):
            return None
        if self._chaos.strikes("error_after"):
            return Unknown("the carrier answered HTTP 503")
        await asyncio.sleep(self._dice.choice([0.0, 0.05, 1.0]))
        return Accepted(taken.sid)

    async def _live(self, taken: Taken) -> None:
        left_s = (taken.handed_at + timedelta(seconds=taken.text.validity_s) - self._now()).total_seconds()
        outcome, after_s = self._outcome(max(left_s, 0.0))
        sent_after_s = min(self._dice.choice([0.05, 1.0, 5.0]), after_s)
        await asyncio.sleep(sent_after_s)
        if outcome != "failed":
            self._change(taken, "sent", None)
        await asyncio.sleep(after_s - sent_after_s)
        code = EXPIRED if outcome == "expired" else None
        status = "failed" if outcome == "expired" else outcome
        if code is None and status in FAILURES:
            code = self._dice.choice(FAILURES[status])
        self._change(taken, status, code)

    def _outcome(self, left_s: float) -> tuple[str, float]:
        """What becomes of the text, and when: before its validity ends, or just then."""
        if self._chaos.strikes("expired"):
            return self._dice.choice([("expired", left_s), ("delivered", max(left_s - 0.01, 0.0))])
        after_s = self._dice.choice([0.2, 3.0, 60.0, 900.0])
        if after_s >= left_s:
            return "expired", left_s
        outcome = self._dice.choice(["undelivered", "failed"]) if self._chaos.strikes("undelivered") else "delivered"
        return outcome, after_s

    def _change(self, taken: Taken, status: str, error_code: int | None) -> None:
        taken.status, taken.error_code = status, error_code
        self._process.director.tell("carrier", f"{status} {taken.sid}", [taken.text.attempt_id])
        if status == "delivered":
            self._watcher.delivered(taken)
        for delay_s in self._receipt_delays(status):
            self._process.start(self._tell(taken, status, error_code, delay_s))

    def _receipt_delays(self, status: str) -> list[float]:
        """After how long the web is told, each time that it is."""
        if self._chaos.strikes("lost_receipt"):
            return []
        copies = 2 if self._chaos.strikes("duplicate_receipt") else 1
        late_s = self._dice.choice([70.0, 2000.0, 11_000.0]) if self._chaos.strikes("late_receipt") else 0.0
        swapped_s = 120.0 if status == "sent" and self._chaos.strikes("reordered_receipt") else 0.0
        return [late_s + swapped_s + copy * 0.3 + self._dice.uniform(0.01, 0.5) for copy in range(copies)]

    async def _tell(self, taken: Taken, status: str, error_code: int | None, delay_s: float) -> None:
        ERRAND.set("a receipt")
        await asyncio.sleep(delay_s)
        form = {"MessageSid": taken.sid, "MessageStatus": status, "AccountSid": self._settings.twilio_account_sid}
        if error_code is not None:
            form["ErrorCode"] = str(error_code)
        if await self._post(taken.path, form):
            taken.told.append(status)

    async def _post(self, path: str, form: Mapping[str, str]) -> bool:
        """Post a webhook, again and again when nobody answers well. Whether somebody did."""
        token = self._settings.twilio_auth_token.get_secret_value()
        headers = {"X-Twilio-Signature": sign(token, self._settings.public_url + path, form)}
        for attempt in range(POSTS_MAX):
            web = self._webs()
            answer = await web.request("POST", path, data=dict(form), headers=headers) if web else None
            if answer is not None and answer.is_success:
                return True
            await asyncio.sleep(2.0**attempt)
        return False

    def _questions_from(self, attempt_id: UUID) -> datetime:
        """Until when the carrier cannot be asked about an attempt."""
        if attempt_id not in self._no_questions_until:
            hours = self._dice.choice([0.2, 2.0, 40.0]) if self._chaos.strikes("cannot_ask") else 0.0
            self._no_questions_until[attempt_id] = self._now() + timedelta(hours=hours)
        return self._no_questions_until[attempt_id]

    def _report(self, taken: Taken, attempt_id: UUID) -> StatusReport:
        status = MessageStatus.ACCEPTED if taken.status == "queued" else MessageStatus(taken.status)
        return StatusReport(sid=taken.sid, attempt_id=attempt_id, status=status, error_code=taken.error_code)

    def _sid(self) -> str:
        return f"SM{self._dice.getrandbits(128):032x}"

    def _now(self) -> datetime:
        return self._process.director.now()


class Web(Protocol):
    """A web process, as whoever calls it sees it."""

    async def request(self, method: str, path: str, **options: object) -> httpx.Response | None:
        """The answer; None when the process died before it answered."""
