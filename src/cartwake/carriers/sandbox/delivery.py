"""What becomes of an accepted text: sent, delivered or not, and its status callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from cartwake.carriers.sandbox.callbacks import Webhooks
from cartwake.carriers.sandbox.state import Callback, Options, Recipient, State, Text

# The code of an outcome for which the script names none.
DEFAULT_CODES = {"undelivered": 30003, "failed": 30008}
VALIDITY_EXPIRED = 30036


@dataclass(frozen=True)
class Step:
    """One change of a text's status, `after_s` real seconds after the change before it."""

    after_s: float
    status: str
    error_code: int | None = None


def plan(recipient: Recipient, validity_s: int, clock_speed: float, options: Options) -> list[Step]:
    """The life of a text, decided when it is accepted.

    Delays are real, but validity is counted on the clock: under one that runs 300 times as fast,
    300 seconds of validity are one real second.
    """
    delay_ms = options.delivered_after_ms if recipient.delay_ms is None else recipient.delay_ms
    delay_s, validity_left_s = delay_ms / 1000, validity_s / clock_speed
    if delay_s > validity_left_s:
        return [Step(validity_left_s, "failed", VALIDITY_EXPIRED)]
    code = recipient.error_code or DEFAULT_CODES.get(recipient.outcome)
    if recipient.outcome == "failed":  # never left the carrier
        return [Step(delay_s, "failed", code)]
    sent_s = min(options.sent_after_ms / 1000, delay_s)
    return [Step(sent_s, "sent"), Step(delay_s - sent_s, recipient.outcome, code)]


class Courier:
    """Carries accepted texts, each in a task of its own, and tells our web about them."""

    def __init__(self, state: State, webhooks: Webhooks) -> None:
        self._state = state
        self._webhooks = webhooks
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Texts and callbacks still under way."""
        return len(self._tasks)

    def carry(self, text: Text) -> None:
        """Start the life of an accepted text."""
        self._spawn(self._live(text))

    async def settled(self) -> None:
        """Return once every text has reached its end and every callback was sent."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Drop everything under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _live(self, text: Text) -> None:
        steps = plan(
            self._state.recipients.get(text.to, Recipient()),
            text.validity_s,
            self._state.clock.machine(1).total_seconds(),
            self._state.options,
        )
        reorder = self._state.faults.strikes("reordered_callback", text.key)
        held_back: list[Step] = []
        for step in steps:
            await asyncio.sleep(step.after_s)
            self._change(text, step)
            if reorder and step is not steps[-1]:
                held_back.append(step)
            else:
                await self._report(text, step)
        for step in held_back:
            await self._report(text, step)

    def _change(self, text: Text, step: Step) -> None:
        now = self._state.clock.now()
        text.status, text.error_code, text.updated_at = step.status, step.error_code, now
        if step.status == "sent":
            text.sent_at = now
        self._state.note_status(text)

    async def _report(self, text: Text, step: Step) -> None:
        faults, key = self._state.faults, f"{text.key}|{step.status}"
        if text.status_callback is None or faults.strikes("lost_callback", key):
            return
        copies = 2 if faults.strikes("duplicate_callback", key) else 1
        for _ in range(copies):
            if faults.strikes("late_callback", key):  # in the background: the rest of its life goes on
                self._spawn(self._call_back(text, step, faults.late_callback_ms / 1000))
            else:
                await self._call_back(text, step, 0)

    async def _call_back(self, text: Text, step: Step, after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        assert text.status_callback is not None
        http_status = await self._webhooks.post(text.status_callback, self._fields(text, step))
        callback = Callback(step.status, step.error_code, self._state.clock.now(), http_status)
        self._state.note_callback(text, callback)

    def _fields(self, text: Text, step: Step) -> dict[str, str]:
        fields = {
            "AccountSid": self._state.options.account_sid,
            "ApiVersion": "2010-04-01",
            "From": text.sender or "",
            "MessageSid": text.sid,
            "MessageStatus": step.status,
            "SmsSid": text.sid,
            "SmsStatus": step.status,
            "To": text.to,
        }
        if text.service_sid:
            fields["MessagingServiceSid"] = text.service_sid
        if step.error_code is not None:
            fields["ErrorCode"] = str(step.error_code)
        if step.status == "delivered":  # Twilio adds the network's own time, without a zone
            fields["RawDlrDoneDate"] = self._state.clock.now().strftime("%y%m%d%H%M")
        return fields

    def _spawn(self, life: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(life)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
