"""A shop's texts."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from cartwake.messages.model import MessageState
from cartwake.messages.reading import list_messages, read_decisions, read_message
from cartwake.web.api.message_views import MessagePage, MessageStory, message_answer, message_story
from cartwake.web.api.pages import Before, Limit, cut
from cartwake.web.auth import AtShop

router = APIRouter(prefix="/v1", tags=["texts"])


@router.get("/messages")
async def get_messages(
    door: AtShop,
    state: Annotated[MessageState | None, Query(description="Only texts in this state.")] = None,
    before: Before = None,
    limit: Limit = 50,
) -> MessagePage:
    """The shop's texts, newest first."""
    async with door.open() as conn:
        views = await list_messages(conn, door.moment.vault, door.scope, state=state, before=before, limit=limit + 1)
    page, following = cut(views, limit, lambda view: view.message_id)
    return MessagePage(data=[message_answer(view) for view in page], next=following)


@router.get("/messages/{message_id}")
async def get_message(door: AtShop, message_id: UUID) -> MessageStory:
    """A text, and everything that was decided about it."""
    async with door.open() as conn:
        view = await read_message(conn, door.moment.vault, door.scope, message_id)
        decisions = await read_decisions(conn, door.scope, view.session_id)
    return message_story(view, decisions)
