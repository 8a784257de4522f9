"""For the operator: texts whose fate nobody knows."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cartwake.messages.doubts import list_doubts
from cartwake.web.api.fields import UtcTime
from cartwake.web.api.pages import Before, Limit, cut
from cartwake.web.auth import AtOperator

router = APIRouter(tags=["operator"])


class DoubtView(BaseModel):
    """A text that is `unknown`, or ended `unresolved`."""

    organization_id: UUID
    shop_id: UUID
    message_id: UUID
    state: str
    reason: str | None
    attempt_id: UUID = Field(description="As the carrier knows it, from the status callback's address.")
    attempted_at: UtcTime
    phone_country: str
    credits: int = Field(description="Reserved while `unknown`, given back when `unresolved`.")
    ended_at: UtcTime | None
    advice: str = Field(description="What to do.")


class DoubtPage(BaseModel):
    """Texts in doubt, newest first."""

    data: list[DoubtView]
    next: UUID | None = Field(description="`before` of the next page; null on the last one.")


@router.get("/v1/doubtful-messages")
async def get_doubtful_messages(door: AtOperator, before: Before = None, limit: Limit = 50) -> DoubtPage:
    """Texts that may or may not have reached the carrier, over all merchants, with what to do about each."""
    async with door.open() as conn:
        doubts = await list_doubts(conn, before=before, limit=limit + 1)
    page, following = cut(doubts, limit, lambda doubt: doubt.message_id)
    return DoubtPage(data=[DoubtView(**asdict(doubt), advice=doubt.advice) for doubt in page], next=following)
