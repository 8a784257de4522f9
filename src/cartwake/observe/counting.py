"""From what the rooms return to what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from cartwake.kit import metrics
from cartwake.messages.answers import Move
from cartwake.messages.dispatch import Claimed
from cartwake.messages.inbox import CarrierEvent
from cartwake.messages.model import Gate, MessageState, Outcome, Verdict
from cartwake.messages.recording import verdict_of
from cartwake.observe import harmless

# Reached states that say what became of a text. A text that is held is a decision, not an outcome.
OUTCOMES = frozenset(MessageState) - {MessageState.SCHEDULED, MessageState.HELD}


@harmless
def count_claim(claimed: Claimed) -> None:
    """Transaction A: what the gates decided, and how late the texts start that they let through."""
    for attempt in claimed.attempts:
        metrics.START_LATENESS.observe(max((claimed.at - attempt.message.due_at).total_seconds(), 0.0))
    sent = Verdict(Outcome.SEND, Gate.CARRIER, "all_gates_passed")
    count_decisions([*(each.verdict for each in claimed.decided), *([sent] * len(claimed.attempts))])
    dropped = [each.country for each in claimed.decided if each.verdict.outcome is Outcome.DROP]
    count_texts(MessageState.DROPPED, dropped)
    count_texts(MessageState.SENDING, [attempt.country for attempt in claimed.attempts])


@harmless
def count_answers(moves: Sequence[Move]) -> None:
    """Transaction B: what the carrier's answers made of texts."""
    count_moves(moves)
    count_decisions([verdict_of(move) for move in moves])


@harmless
def count_moves(moves: Sequence[Move]) -> None:
    """Texts that moved, by receipt, answer or question. One that skipped its acceptance was accepted all the same."""
    reached: Counter[tuple[MessageState, str | None]] = Counter()
    for move in moves:
        country = move.message.phone_country
        if move.accepted and move.state is not MessageState.ACCEPTED:
            reached[MessageState.ACCEPTED, country] += 1
        if move.state in OUTCOMES and move.state is not move.message.state:
            reached[move.state, country] += 1
    _count_reached(reached)


@harmless
def count_texts(state: MessageState, countries: Iterable[str | None]) -> None:
    """So many texts reached a state; each with its phone's country."""
    _count_reached(Counter((state, country) for country in countries))


@harmless
def count_decisions(verdicts: Iterable[Verdict]) -> None:
    """What gates decided; at the abandonment scan too."""
    alike = Counter((each.gate, each.outcome, each.reason) for each in verdicts)
    for (gate, outcome, reason), decisions in alike.items():
        metrics.DECISIONS.labels(gate.value, outcome.value, metrics.reason_label(reason)).inc(decisions)


def _count_reached(reached: Mapping[tuple[MessageState, str | None], int]) -> None:
    for (state, country), texts in reached.items():
        metrics.TEXTS.labels(state.value, metrics.country_label(country)).inc(texts)


@harmless
def count_events(now: datetime, events: Sequence[tuple[CarrierEvent, str]]) -> None:
    """Carrier events that were worked off at `now`, each with what came of it."""
    for event, _ in events:
        metrics.EVENT_LAG.labels(event.kind).observe(max((now - event.received_at).total_seconds(), 0.0))
    for (kind, result), count in Counter((event.kind, result) for event, result in events).items():
        metrics.EVENTS.labels(kind, metrics.reason_label(result)).inc(count)


@harmless
def count_set_aside(kind: str) -> None:
    """A carrier event that could not be applied."""
    metrics.EVENTS.labels(kind, "set_aside").inc()
