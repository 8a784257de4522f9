"""A carrier whose calls are timed and whose answers are counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    CannotAsk,
    Carrier,
    ErrorClass,
    Found,
    InboundText,
    OutboundText,
    Rejected,
    SendResult,
    StatusReport,
    Throttled,
)
from cartwake.kit import metrics


class CarrierAround:
    """A carrier around another, which it passes everything on to."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    async def send(self, text: OutboundText) -> SendResult:
        """Hand one text over, once."""
        return await self._carrier.send(text)

    async def find(self, text: OutboundText, since: datetime) -> Found | Absent | CannotAsk:
        """Ask whether a text was taken."""
        return await self._carrier.find(text, since)

    async def look_up(self, sid: str, attempt_id: UUID) -> Found | Absent | CannotAsk:
        """Ask what became of a text that was taken."""
        return await self._carrier.look_up(sid, attempt_id)

    def verify(self, url: str, body: bytes, headers: Mapping[str, str]) -> bool:
        """Whether the carrier signed this webhook."""
        return self._carrier.verify(url, body, headers)

    def read_status(self, body: bytes, query: Mapping[str, str]) -> StatusReport | None:
        """The receipt in a verified callback."""
        return self._carrier.read_status(body, query)

    def read_inbound(self, body: bytes) -> InboundText:
        """The text in a verified inbound webhook."""
        return self._carrier.read_inbound(body)

    async def close(self) -> None:
        """Give connections back."""
        await self._carrier.close()


class ObservedCarrier(CarrierAround):
    """The `Carrier` that worker and scheduler call."""

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier)
        for error_class in ErrorClass:  # an alert on the first refusal needs a nought before it
            metrics.CARRIER_ANSWERS.labels("send", "rejected", error_class.value)

    async def send(self, text: OutboundText) -> SendResult:
        """Hand one text over, once."""
        began_s = time.perf_counter()
        result = await self._carrier.send(text)
        _count("send", time.perf_counter() - began_s, *words_of(result))
        return result

    async def find(self, text: OutboundText, since: datetime) -> Found | Absent | CannotAsk:
        """Ask whether a text was taken."""
        began_s = time.perf_counter()
        result = await self._carrier.find(text, since)
        _count("find", time.perf_counter() - began_s, word_of(result), "")
        return result

    async def look_up(self, sid: str, attempt_id: UUID) -> Found | Absent | CannotAsk:
        """Ask what became of a text that was taken."""
        began_s = time.perf_counter()
        result = await self._carrier.look_up(sid, attempt_id)
        _count("look_up", time.perf_counter() - began_s, word_of(result), "")
        return result


def _count(call: str, took_s: float, answer: str, error_class: str) -> None:
    metrics.CARRIER_SECONDS.labels(call).observe(took_s)
    metrics.CARRIER_ANSWERS.labels(call, answer, error_class).inc()


def word_of(fate: Found | Absent | CannotAsk) -> str:
    """What the carrier answered when it was asked about a text."""
    if isinstance(fate, Found):
        return "found"
    return "absent" if isinstance(fate, Absent) else "cannot_ask"


def words_of(result: SendResult) -> tuple[str, str]:
    """What the carrier answered, and the class of its refusal."""
    if isinstance(result, Accepted):
        return "accepted", ""
    if isinstance(result, Rejected):
        return "rejected", result.error_class.value
    return ("throttled" if isinstance(result, Throttled) else "unknown"), ""
