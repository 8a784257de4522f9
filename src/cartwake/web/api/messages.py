"""A shop's texts, and what a text would look like."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cartwake.messages.model import MessageState
from cartwake.messages.preview import preview
from cartwake.messages.reading import list_messages, read_decisions, read_message
from cartwake.messages.templates import choose_locale
from cartwake.tenants.organizations import read_shop
from cartwake.web.api.fields import Body, Country, LocaleTag, ShortText, example
from cartwake.web.api.message_views import MessagePage, MessageStory, message_answer, message_story
from cartwake.web.api.pages import Before, Limit, cut
from cartwake.web.auth import AtShop

router = APIRouter(prefix="/v1", tags=["texts"])


class PreviewForm(Body):
    """Whom the text would go to."""

    model_config = example(phone_country="LT", locale="lt")

    phone_country: Country = Field(description="Of the phone: it makes the price.")
    locale: LocaleTag | None = Field(None, description="The shopper's; the shop's, unless we speak it.")
    shop_name: ShortText | None = Field(None, description="The shop's own, unless given.")
    two_way_sender: bool = Field(True, description="Whether the sender can be answered; if not, a link opts out.")


class PreviewView(BaseModel):
    """The text, and what it costs."""

    text: str
    encoding: str
    segments: int
    forcing_character: str | None = Field(description="The first character that needs the dearer encoding.")
    credits: int


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


@router.post("/previews")
async def post_preview(door: AtShop, form: PreviewForm) -> PreviewView:
    """The text that a shopper would get, with its price. Nothing is sent or stored."""
    async with door.open() as conn:
        shop = await read_shop(conn, door.scope)
    shown = preview(
        locale=choose_locale(form.locale, shop.default_locale),
        shop_name=form.shop_name or shop.name,
        phone_country=form.phone_country,
        two_way_sender=form.two_way_sender,
        public_url=door.runtime.settings.public_url,
        vault=door.moment.vault,
    )
    return PreviewView.model_validate(shown, from_attributes=True)
