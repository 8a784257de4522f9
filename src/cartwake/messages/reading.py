"""Messages and their traces, for people: the API, the dashboard, `cartwake explain`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from cartwake.carriers.errors import CODES
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.errors import NotKnown
from cartwake.kit.phones import mask, open_phone
from cartwake.messages import store
from cartwake.messages.model import Decision
from cartwake.tenants.model import ShopScope


@dataclass(frozen=True)
class MessageView:
    """A message without what only the engine may see."""

    message_id: UUID
    session_id: UUID
    external_id: str
    kind: str
    step: int
    state: str
    reason: str | None
    due_at: datetime
    attempts: int
    phone_masked: str | None
    phone_country: str | None
    locale: str | None
    template_version: int | None
    segments: int | None
    credits: int | None
    carrier_sid: str | None
    accepted_at: datetime | None
    sent_at: datetime | None
    error_code: int | None
    ended_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def error_meaning(self) -> str | None:
        """The carrier's error in our own words; None without one, or for one that we do not know."""
        known = CODES.get(self.error_code or 0)
        return known[1] if known else None


async def list_messages(
    conn: Connection,
    vault: Vault,
    scope: ShopScope,
    *,
    state: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[MessageView]:
    """A page of a shop's messages, newest first; `before` is the last id of the page before."""
    return await _list(conn, vault, scope, state=state, before=before, limit=limit)


async def read_message(conn: Connection, vault: Vault, scope: ShopScope, message_id: UUID) -> MessageView:
    """Raises `NotKnown`."""
    found = await _list(conn, vault, scope, message_id=message_id)
    if not found:
        raise NotKnown("There is no such message.")
    return found[0]


async def message_of_session(conn: Connection, vault: Vault, scope: ShopScope, session_id: UUID) -> MessageView | None:
    """The session's message, if it has one."""
    found = await _list(conn, vault, scope, session_id=session_id)
    return found[0] if found else None


async def read_decisions(conn: Connection, scope: ShopScope, session_id: UUID) -> list[Decision]:
    """The session's trace, oldest first: why it was, or was not, texted."""
    found = await rows(conn, store.LIST_DECISIONS, [scope.organization_id, scope.shop_id, session_id])
    return [Decision(**each) for each in found]


async def recipient_of(conn: Connection, scope: ShopScope, message_id: UUID) -> bytes | None:
    """Hash of the phone that got this text; None when nobody did."""
    found = await row(conn, store.RECIPIENT_OF, [scope.organization_id, scope.shop_id, message_id])
    return found["phone_hash"] if found else None


async def _list(
    conn: Connection,
    vault: Vault,
    scope: ShopScope,
    *,
    state: str | None = None,
    before: UUID | None = None,
    message_id: UUID | None = None,
    session_id: UUID | None = None,
    limit: int = 1,
) -> list[MessageView]:
    params = {
        "organization_id": scope.organization_id,
        "shop_id": scope.shop_id,
        "state": state,
        "before": before,
        "message_id": message_id,
        "session_id": session_id,
        "limit": limit,
    }
    return [_view(vault, found) for found in await rows(conn, store.LIST_MESSAGES, params)]


def _view(vault: Vault, found: dict[str, Any]) -> MessageView:
    sealed = found.pop("phone_sealed")
    return MessageView(**found, phone_masked=mask(open_phone(vault, sealed)) if sealed else None)
