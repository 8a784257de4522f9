"""Texts and decisions as merchants see them."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from pydantic import BaseModel, Field

from cartwake.messages.model import Decision, MessageState
from cartwake.messages.reading import MessageView
from cartwake.web.api.fields import UtcTime


class DecisionView(BaseModel):
    """One gate's answer to whether the cart may be texted."""

    at: UtcTime
    gate: str
    outcome: str
    reason: str
    until: UtcTime | None = Field(description="When a held text is asked about again.")


class MessageAnswer(BaseModel):
    """A text, without its words."""

    message_id: UUID
    external_id: str = Field(description="Of the checkout session.")
    kind: str
    step: int
    state: MessageState
    reason: str | None
    due_at: UtcTime
    attempts: int
    phone_masked: str | None
    phone_country: str | None
    locale: str | None = Field(description="That it was written in; null until it is on its way.")
    template_version: int | None = Field(description="Of the shop's own text; null for the built-in one.")
    segments: int | None
    credits: int | None
    carrier_sid: str | None
    accepted_at: UtcTime | None
    sent_at: UtcTime | None = Field(description="The receipt that says the carrier passed it on, if one came.")
    error_code: int | None = Field(description="The carrier's own.")
    error_meaning: str | None = Field(description="What that error is, where it is known.")
    ended_at: UtcTime | None = Field(description="When its last state was known: of a delivered text, its receipt.")
    created_at: UtcTime
    updated_at: UtcTime


class MessageStory(MessageAnswer):
    """A text with everything that was decided about its cart."""

    decisions: list[DecisionView] = Field(description="Oldest first.")


class MessagePage(BaseModel):
    """Texts, newest first."""

    data: list[MessageAnswer]
    next: UUID | None = Field(description="`before` of the next page; null on the last one.")


def message_answer(view: MessageView) -> MessageAnswer:
    """A message as it is answered."""
    return MessageAnswer(**_fields(view))


def message_story(view: MessageView, decisions: list[Decision]) -> MessageStory:
    """A message with its trace."""
    return MessageStory(**_fields(view), decisions=decision_views(decisions))


def decision_views(decisions: list[Decision]) -> list[DecisionView]:
    """A trace as it is answered."""
    return [DecisionView(**asdict(each)) for each in decisions]


def _fields(view: MessageView) -> dict[str, object]:
    known = asdict(view) | {"error_meaning": view.error_meaning}
    return {name: value for name, value in known.items() if name in MessageAnswer.model_fields}
