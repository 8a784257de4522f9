"""The life of a message from due to recorded: transaction A, the network, transaction B.

A claims, evaluates, allocates and reserves, and commits before anything is sent. Then the carrier is
called, with no transaction open. B records what it said. Whatever dies in between leaves a message in
`sending` with its credits reserved, never one that could be sent twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from cartwake.carriers.protocol import Carrier, OutboundText, SendResult, Throttled
from cartwake.carts.links import LinkRow, record_links
from cartwake.kit.clock import Clock
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.kit.phones import open_phone
from cartwake.messages import queue, store
from cartwake.messages.allocation import Granted, allocate
from cartwake.messages.facts import load_facts
from cartwake.messages.gates import Facts, Passed, evaluate
from cartwake.messages.model import DueMessage, Gate, MessageState, Outcome, Verdict, sources
from cartwake.messages.trace import Traced, keep
from cartwake.quiet_hours.windows import validity_s
from cartwake.tenants.model import ShopScope
from cartwake.tenants.switches import NO_PAUSES

# No call to the carrier begins later than this after the claim: consent was checked then.
START_WITHIN_S = 30.0
# Beyond the latest start and the longest call, before a `sending` message counts as abandoned by its worker.
LEASE_MARGIN_S = 30.0
NOT_STARTED = Throttled(code=None, retry_after_s=0, reason="call_not_started")


@dataclass(frozen=True)
class Attempt:
    """One text about to be handed over. Its credits are reserved under `attempt_id`."""

    message: DueMessage
    text: OutboundText
    phone_hash: bytes
    country: str  # the phone's
    slot: datetime
    start_by: datetime
    send_until: datetime


@dataclass(frozen=True)
class Decided:
    """A message that is not sent now: held or dropped."""

    message_id: UUID
    country: str | None  # the phone's
    verdict: Verdict


@dataclass(frozen=True)
class Claimed:
    """What transaction A came to."""

    at: datetime  # when its facts held
    attempts: list[Attempt]
    decided: list[Decided]
    more: bool  # whether shops had something due, so that the next claim should not wait


async def claim_batch(
    conn: Connection, moment: Moment, clock: Clock, settings: Settings, at_most: int | None = None
) -> Claimed:
    """Transaction A. The caller commits it before it calls `send_batch`."""
    turns, messages = await queue.claim(conn, moment.now, settings.dispatch_batch, at_most)
    if not turns:
        return Claimed(moment.now, [], [], more=False)
    began_at = moment.now
    facts: list[Facts] = []
    if messages:
        moment, facts = await load_facts(conn, moment, settings.public_url, messages)
    passed, verdicts = _sift([(each.message, evaluate(each)) for each in facts])
    granted, denied = await allocate(conn, moment, passed) if passed else ([], [])
    verdicts += [(each.facts.message, verdict) for each, verdict in denied]
    attempts = [_attempt(each, moment, clock) for each in granted]
    await _write(conn, moment, clock, settings, granted, verdicts)
    sent = Counter(each.message.shop for each in attempts)
    await queue.end_turns(conn, began_at, turns, dict(sent))
    countries = {each.message.message_id: each.session.phone_country for each in facts}
    decided = [Decided(each.message_id, countries[each.message_id], verdict) for each, verdict in verdicts]
    return Claimed(moment.now, attempts, decided, more=True)


class Calls:
    """One worker's calls to its carrier: so many at a time, and none once something forbids it.

    A claimed text waits for its sender's slot and for a free line. What became true meanwhile, a kill switch or
    a worker that was told to stop, is asked about at the last moment, when nothing has left this machine yet.
    """

    def __init__(self, at_a_time: int, stop: asyncio.Event | None = None) -> None:
        """`at_a_time`: as many as the carrier's adapter has connections, so that nothing waits unseen in there.

        `stop`: set when the worker is told to end.
        """
        self.line = asyncio.Semaphore(at_a_time)
        self.pauses = NO_PAUSES
        self._stop = stop or asyncio.Event()

    def allow(self, shop: ShopScope) -> bool:
        """Whether a call for this shop may start now."""
        return not (self._stop.is_set() or self.pauses.cover(shop))


async def send_batch(
    carrier: Carrier, clock: Clock, attempts: Sequence[Attempt], calls: Calls
) -> list[tuple[Attempt, SendResult]]:
    """The network: hand every text over, each at its sender's slot. No transaction is open."""
    results = await asyncio.gather(*(_send(carrier, clock, attempt, calls) for attempt in attempts))
    return list(zip(attempts, results, strict=True))


async def _send(carrier: Carrier, clock: Clock, attempt: Attempt, calls: Calls) -> SendResult:
    await clock.sleep_until(attempt.slot)
    async with calls.line:
        now = clock.now()
        if now > attempt.start_by or now >= attempt.send_until or not calls.allow(attempt.message.shop):
            return NOT_STARTED
        # Counted anew, so that however late the call is, delivery ends with the window.
        return await carrier.send(replace(attempt.text, validity_s=validity_s(now, attempt.send_until)))


def _sift(
    evaluated: Sequence[tuple[DueMessage, Passed | Verdict]],
) -> tuple[list[Passed], list[tuple[DueMessage, Verdict]]]:
    passed = [result for _, result in evaluated if isinstance(result, Passed)]
    return passed, [(message, result) for message, result in evaluated if isinstance(result, Verdict)]


def _attempt(granted: Granted, moment: Moment, clock: Clock) -> Attempt:
    passed = granted.passed
    session = passed.facts.session
    assert session.phone_sealed is not None and session.phone_hash is not None
    assert session.phone_country is not None
    text = OutboundText(
        attempt_id=granted.attempt_id,
        sender=passed.sender.address,
        to=open_phone(moment.vault, session.phone_sealed),
        body=passed.text.body,
        validity_s=validity_s(moment.now, passed.opening.closes_at),
    )
    return Attempt(
        passed.facts.message,
        text,
        session.phone_hash,
        session.phone_country,
        granted.slot,
        start_by=max(moment.now, granted.slot) + clock.machine(START_WITHIN_S),
        send_until=passed.opening.closes_at,
    )


async def _write(
    conn: Connection,
    moment: Moment,
    clock: Clock,
    settings: Settings,
    granted: Sequence[Granted],
    verdicts: Sequence[tuple[DueMessage, Verdict]],
) -> None:
    if granted:
        await _begin_sending(conn, moment, clock, settings, granted)
        await record_links(conn, moment, [_link(each, moment) for each in granted])
    if verdicts:
        await _hold_or_drop(conn, moment, verdicts)
    sends = [(each.passed.facts.message, Verdict(Outcome.SEND, Gate.CARRIER, "all_gates_passed")) for each in granted]
    await keep(
        conn,
        moment,
        [
            Traced(message.organization_id, message.shop_id, message.session_id, message.message_id, verdict)
            for message, verdict in [*verdicts, *sends]
        ],
    )


async def _begin_sending(
    conn: Connection, moment: Moment, clock: Clock, settings: Settings, granted: Sequence[Granted]
) -> None:
    messages = [each.passed.facts.message for each in granted]
    sessions = [each.passed.facts.session for each in granted]
    longest_s = START_WITHIN_S + settings.twilio_timeout_s + LEASE_MARGIN_S
    began = await rows(
        conn,
        store.BEGIN_SENDING,
        _keys(messages)
        | {
            "now": moment.now,
            "lease_until": max(each.slot for each in granted) + clock.machine(longest_s),
            "from_states": sources(MessageState.SENDING),
            "attempts": [each.attempt_id for each in granted],
            "senders": [each.passed.sender.sender_id for each in granted],
            "sealed_phones": [session.phone_sealed for session in sessions],
            "phones": [session.phone_hash for session in sessions],
            "countries": [session.phone_country for session in sessions],
            "bodies": [moment.vault.seal(each.passed.text.body, "text") for each in granted],
            "locales": [each.passed.text.locale for each in granted],
            "template_versions": [each.passed.text.template_version for each in granted],
            "segments": [each.passed.text.measure.segments for each in granted],
            "credits": [each.passed.text.credits for each in granted],
            "send_untils": [each.passed.opening.closes_at for each in granted],
        },
    )
    if len(began) != len(granted):
        # Only a queue row's lock stands between two claims of one message; without it, nothing may be sent.
        raise RuntimeError("a claimed message had moved on; the batch is rolled back")


async def _hold_or_drop(conn: Connection, moment: Moment, verdicts: Sequence[tuple[DueMessage, Verdict]]) -> None:
    await conn.execute(
        store.HOLD_OR_DROP,
        _keys([message for message, _ in verdicts])
        | {
            "now": moment.now,
            "from_states": sources(MessageState.DROPPED),
            "states": [
                MessageState.HELD if verdict.outcome is Outcome.HOLD else MessageState.DROPPED
                for _, verdict in verdicts
            ],
            "reasons": [verdict.reason for _, verdict in verdicts],
            "untils": [verdict.until for _, verdict in verdicts],
        },
    )


def _link(granted: Granted, moment: Moment) -> LinkRow:
    facts, text = granted.passed.facts, granted.passed.text
    message = facts.message
    scope = ShopScope(message.organization_id, message.shop_id)
    lifetime = facts.config.attribution_window_s
    expires_at = datetime.fromtimestamp(moment.now.timestamp() + lifetime, moment.now.tzinfo)
    return LinkRow(scope, text.link_id, message.session_id, message.message_id, expires_at)


def _keys(messages: Sequence[DueMessage]) -> dict[str, list[object]]:
    return {
        "organizations": [message.organization_id for message in messages],
        "shops": [message.shop_id for message in messages],
        "messages": [message.message_id for message in messages],
    }


def opened_text(vault: Vault, sealed: bytes) -> str:
    """A text's body as it was sent."""
    return vault.open(sealed, "text").decode()
