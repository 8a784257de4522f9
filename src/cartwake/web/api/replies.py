"""What shoppers wrote back, and the shop's server that is told of it."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cartwake.messages.replies import ReplyView as FoundReply
from cartwake.messages.replies import list_replies
from cartwake.outbox.model import DeliveryState
from cartwake.outbox.webhooks import read_webhook, remove_webhook, rotate_secret, save_webhook
from cartwake.web.api.fields import Body, UtcTime, WebAddress, example
from cartwake.web.api.pages import Before, Limit, cut
from cartwake.web.auth import AtShop
from cartwake.web.openapi import NOT_KNOWN

router = APIRouter(prefix="/v1", tags=["replies"])


class DeliveryView(BaseModel):
    """How far a reply has come on its way to the shop's webhook."""

    state: DeliveryState
    attempts: int
    next_try_at: UtcTime | None
    last_status: int | None = Field(description="HTTP status of the last answer; null: none came.")
    last_error: str | None = Field(description="Why none came: timeout, unreachable, forbidden_address, not_https.")
    ended_at: UtcTime | None


class ReplyView(BaseModel):
    """A text from a shopper that is neither STOP nor START."""

    reply_id: UUID
    meaning: str = Field(description="`help` when it is nothing but a word for help, else `other`.")
    message_id: UUID | None = Field(description="The shop's text that it answers, where one is known.")
    external_id: str | None = Field(description="Of that text's checkout session.")
    sent_to: str
    phone_masked: str
    body: str
    received_at: UtcTime
    delivery: DeliveryView | None = Field(description="Null: there was no webhook when the reply came.")


class ReplyPage(BaseModel):
    """Replies, newest first."""

    data: list[ReplyView]
    next: UUID | None = Field(description="`before` of the next page; null on the last one.")


class WebhookForm(Body):
    """Where the shop's server takes replies."""

    model_config = example(url="https://shop.example/replies")

    url: WebAddress = Field(description="https, and on the public internet.")


class WebhookView(BaseModel):
    """Where the shop's server takes replies."""

    url: str
    former_secret_until: UtcTime | None = Field(description="Until then the secret before the last one signs too.")
    failing_since: UtcTime | None = Field(description="It has taken nothing since; null: all is well, or untried.")
    failing_with: str | None = Field(description="What the last try came to: `HTTP 503`, `timeout`, `unreachable`.")
    created_at: UtcTime
    updated_at: UtcTime


class WebhookWithSecret(WebhookView):
    """The webhook, with the secret when it is a new one."""

    secret: str | None = Field(description="Shown this once: it proves that a delivery is ours.")


@router.get("/replies")
async def get_replies(door: AtShop, before: Before = None, limit: Limit = 50) -> ReplyPage:
    """What shoppers wrote back, newest first."""
    async with door.open() as conn:
        found = await list_replies(conn, door.moment.vault, door.scope, before=before, limit=limit + 1)
    page, following = cut(found, limit, lambda reply: reply.reply_id)
    return ReplyPage(data=[_reply(each) for each in page], next=following)


@router.get("/reply-webhook", responses=NOT_KNOWN)
async def get_reply_webhook(door: AtShop) -> WebhookView:
    """Where replies are delivered."""
    async with door.open() as conn:
        return WebhookView(**vars(await read_webhook(conn, door.moment.vault, door.scope)))


@router.put("/reply-webhook")
async def put_reply_webhook(door: AtShop, form: WebhookForm) -> WebhookWithSecret:
    """Deliver replies there from now on, and those that still wait. The first time it answers with the secret.

    A secret whose answer was lost is replaced by a new one.
    """
    production = door.runtime.settings.environment == "production"
    async with door.open() as conn:
        secret = await save_webhook(conn, door.moment, door.scope, form.url, production=production)
        webhook = await read_webhook(conn, door.moment.vault, door.scope)
    return WebhookWithSecret(**vars(webhook), secret=secret)


@router.post("/reply-webhook/secrets", responses=NOT_KNOWN)
async def post_reply_webhook_secret(door: AtShop) -> WebhookWithSecret:
    """A new secret. For 24 hours every delivery is signed with the former one as well."""
    async with door.open() as conn:
        secret = await rotate_secret(conn, door.moment, door.scope)
        webhook = await read_webhook(conn, door.moment.vault, door.scope)
    return WebhookWithSecret(**vars(webhook), secret=secret)


@router.delete("/reply-webhook", status_code=204)
async def delete_reply_webhook(door: AtShop) -> None:
    """Deliver no more replies; those that wait are cancelled. They are still listed."""
    async with door.open() as conn:
        await remove_webhook(conn, door.moment, door.scope)


def _reply(found: FoundReply) -> ReplyView:
    delivery = DeliveryView(**vars(found.delivery)) if found.delivery else None
    return ReplyView(**(vars(found) | {"delivery": delivery}))
