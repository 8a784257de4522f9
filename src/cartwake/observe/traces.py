"""What is done about a message, as spans of the trace that its cart began. Nothing where traces are off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from cartwake.carriers.protocol import Carrier, OutboundText, SendResult
from cartwake.kit import tracing
from cartwake.messages.answers import Move
from cartwake.messages.dispatch import Attempt
from cartwake.observe import harmless
from cartwake.observe.carrier import CarrierAround, words_of


@harmless
def trace(name: str, began_ns: int, messages: Iterable[tuple[UUID, str | None]]) -> None:
    """A batch of messages, each with its `traceparent`, has been through this step."""
    if tracing.is_on():
        tracing.note(name, began_ns, [(parent, {"cartwake.message_id": str(which)}) for which, parent in messages])


@harmless
def trace_moves(name: str, began_ns: int, moves: Sequence[Move]) -> None:
    """Messages moved to another state."""
    if tracing.is_on():
        about = [(move.message.traceparent, move.message.message_id, move.state.value) for move in moves]
        tracing.note(
            name,
            began_ns,
            [(parent, {"cartwake.message_id": str(which), "cartwake.state": state}) for parent, which, state in about],
        )


def traced(carrier: Carrier, attempts: Sequence[Attempt]) -> Carrier:
    """The carrier for this batch, each of whose calls is a span of its message's trace."""
    if not tracing.is_on():
        return carrier
    return _TracedSends(carrier, {attempt.text.attempt_id: attempt for attempt in attempts})


class _TracedSends(CarrierAround):
    def __init__(self, carrier: Carrier, attempts: Mapping[UUID, Attempt]) -> None:
        super().__init__(carrier)
        self._attempts = attempts

    async def send(self, text: OutboundText) -> SendResult:
        message = self._attempts[text.attempt_id].message
        if message.traceparent is None:
            return await self._carrier.send(text)
        with tracing.span("carrier.send", message.traceparent, "CLIENT") as note:
            result = await self._carrier.send(text)
            answer, error_class = words_of(result)
            note.say(cartwake__message_id=str(message.message_id), cartwake__answer=answer)
            if error_class:
                note.say(cartwake__error_class=error_class)
        return result
