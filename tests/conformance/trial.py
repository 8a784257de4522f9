"""An adapter whose carrier is in trouble: what the suite plays on, once for each trouble that there is.

A test that meets the carrier takes `trial`, so it holds of a carrier in good health and in every bad one. Who is
right about what was taken is the peer's own record, never the adapter. Requests are counted on the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession

from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    Carrier,
    ErrorClass,
    Found,
    OutboundText,
    Rejected,
    SendResult,
    StatusReport,
    Throttled,
    Unknown,
)
from cartwake.carriers.sandbox.state import Text
from conformance.bench import START, Bench, Webhook, a_text, tapped
from conformance.faults import NOW_AND_THEN, QUICK, TOO_SLOW, TROUBLES, Trouble

TEXTS = 12


@dataclass
class Trial:
    """An adapter, the trouble that its carrier is in, and the wire between them."""

    bench: Bench
    carrier: Carrier
    trouble: Trouble
    posts: list[bytes]  # the address of every POST that went over the wire

    async def send(self, texts: Sequence[OutboundText]) -> list[SendResult]:
        """Hand all of them over at once."""
        return await asyncio.gather(*(self.carrier.send(text) for text in texts))

    async def hand_over(self, text: OutboundText) -> Text | None:
        """Hand a good text over; what the carrier has of it then. The answer is one that this trouble explains."""
        before = len(self.taken(text))
        result = await self.carrier.send(text)
        assert type(result) in self.trouble.outcomes, result
        new = self.taken(text)[before:]
        assert len(new) <= 1
        if isinstance(result, Accepted):
            assert [each.sid for each in new] == [result.sid]
        elif isinstance(result, Throttled | Rejected):
            assert new == []
        return new[0] if new else None

    def taken(self, text: OutboundText) -> list[Text]:
        """What the carrier's record has of an attempt: by its token, whatever else the text says."""
        return [t for t in self.bench.peer.state.texts.values() if t.key == text.attempt_id.hex and not t.inbound]

    def refused(self, text: OutboundText, result: SendResult, code: int, error_class: ErrorClass) -> None:
        """The text was not taken; it is refused for its own reason, or for that of the trouble."""
        assert self.taken(text) == []
        if isinstance(result, Rejected):
            assert (result.code, result.error_class) == (code, error_class)
        else:
            assert self.explains(result)

    def explains(self, result: SendResult) -> bool:
        """Whether the trouble, and not the text, is the reason for this answer."""
        is_the_troubles = isinstance(result, Throttled | Unknown) and type(result) in self.trouble.outcomes
        return is_the_troubles and not self.trouble.refuses

    async def found(self, text: OutboundText) -> Found | None:
        """What the carrier says of a text when it is asked by its words; None when it says that it has none."""
        found = await self.carrier.find(text, START)
        assert isinstance(found, Found | Absent), found
        return found if isinstance(found, Found) else None

    def end_trouble(self) -> None:
        self.bench.go_wrong()

    async def webhooks(self) -> list[Webhook]:
        """What our web was told, in order; once the carrier has no more to tell."""
        await self.bench.peer.settled()
        return self.bench.receiver.received

    async def receipts(self) -> list[StatusReport]:
        """As `webhooks`, verified and read."""
        reports = []
        for webhook in await self.webhooks():
            assert self.carrier.verify(webhook.url, webhook.body, webhook.headers)
            reports.append(self.carrier.read_status(webhook.body, webhook.query))
        return [report for report in reports if report is not None]


def _param(trouble: Trouble) -> Any:
    """One trouble of each kind is quick; where one text is struck and the next is not, or all wait: `make slow`."""
    if trouble in (*TOO_SLOW, *NOW_AND_THEN):
        return pytest.param(trouble, marks=pytest.mark.slow)
    return trouble if trouble in QUICK else pytest.param(trouble, marks=pytest.mark.thorough)


@pytest.fixture(params=map(_param, TROUBLES), ids=str)
async def trial(request: pytest.FixtureRequest, bench: Bench) -> AsyncIterator[Trial]:
    async with tapped(bench.peer.url) as (url, posts):
        carrier = bench.make_carrier(url, timeout_s=request.param.timeout_s)
        await switch_faults(bench, request.param.faults)
        yield Trial(bench, carrier, request.param, posts)
        await carrier.close()


async def switch_faults(bench: Bench, faults: dict[str, Any]) -> None:
    """As an operator does who wants to see them: at the control endpoint."""
    async with ClientSession() as client, client.put(f"{bench.peer.url}/sandbox/faults", json=faults) as answer:
        assert answer.status == 200, await answer.text()


def texts(count: int = TEXTS) -> list[OutboundText]:
    """Texts to as many phones, with attempts that the seed strikes alike in every run."""
    return [a_text(to=f"+3706200{number:04}", attempt_id=UUID(int=number + 1)) for number in range(count)]
