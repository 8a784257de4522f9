"""The way back: short links in texts, and the signed token that they put into the checkout's address.

A short link's path carries 18 bytes: a 72-bit id that says nothing about the message, and a 72-bit MAC
over it that differs by purpose, so a recovery link cannot be turned into an opt-out link. `/r/` and 24
characters make 27, and every character costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

from cartwake.carts import store
from cartwake.kit.crypto import Vault, b64url, un_b64url
from cartwake.kit.db import Connection, row
from cartwake.kit.moment import Moment
from cartwake.tenants.model import ShopScope

LINK_ID_BYTES = 9
LINK_MAC_BYTES = 9
STEP = "cart_recovery_sms"  # tells the storefront's analytics what brought the shopper
TOKEN_PARAMETER = "cartwake_token"  # noqa: S105 - the parameter's name

Purpose = Literal["recover", "opt-out"]
PATHS: dict[Purpose, str] = {"recover": "/r/", "opt-out": "/o/"}


@dataclass(frozen=True)
class LinkRow:
    """A link about to go out with a text."""

    scope: ShopScope
    link_id: bytes
    session_id: UUID
    message_id: UUID
    expires_at: datetime


@dataclass(frozen=True)
class OpenedLink:
    """A link that somebody opened, its tenant known."""

    scope: ShopScope
    link_id: bytes
    session_id: UUID
    message_id: UUID
    expires_at: datetime
    checkout_url: str | None


@dataclass(frozen=True)
class RecoveryClaim:
    """What a recovery token says: this text brought the shopper back to this session."""

    message_id: UUID
    session_id: UUID


def link_id_of(vault: Vault, message_id: UUID) -> bytes:
    """The message's link id: derived, so that a text renders the same each time it is rendered."""
    return vault.sign(message_id.bytes, "link-id", LINK_ID_BYTES)


def link_path(vault: Vault, link_id: bytes, purpose: Purpose) -> str:
    """The path of a short link: 27 characters."""
    return PATHS[purpose] + b64url(link_id + vault.sign(link_id, "link-" + purpose, LINK_MAC_BYTES))


def longest_link_path(purpose: Purpose) -> str:
    """A path as long as any: all are."""
    return PATHS[purpose] + b64url(bytes(LINK_ID_BYTES + LINK_MAC_BYTES))


async def record_links(conn: Connection, moment: Moment, links: Sequence[LinkRow]) -> None:
    """Make the links of a batch of texts open from now on."""
    await conn.execute(
        store.INSERT_LINKS,
        {
            "now": moment.now,
            "organizations": [link.scope.organization_id for link in links],
            "shops": [link.scope.shop_id for link in links],
            "links": [link.link_id for link in links],
            "sessions": [link.session_id for link in links],
            "messages": [link.message_id for link in links],
            "expiries": [link.expires_at for link in links],
        },
    )


def read_link_token(vault: Vault, token: str, purpose: Purpose) -> bytes | None:
    """The link id in the last part of a short link's path; None when it was not signed for this purpose."""
    try:
        raw = un_b64url(token)
    except ValueError:
        return None
    link_id, mac = raw[:LINK_ID_BYTES], raw[LINK_ID_BYTES:]
    if len(raw) != LINK_ID_BYTES + LINK_MAC_BYTES or not vault.verify(link_id, mac, "link-" + purpose):
        return None
    return link_id


async def find_link_tenant(conn: Connection, link_id: bytes) -> ShopScope | None:
    """Whose link it is, before any tenant is known."""
    found = await row(conn, store.FIND_LINK, [link_id])
    return ShopScope(found["organization_id"], found["shop_id"]) if found else None


async def open_link(conn: Connection, vault: Vault, scope: ShopScope, link_id: bytes) -> OpenedLink | None:
    """Everything about a link, within its tenant."""
    found = await row(conn, store.SELECT_LINK, [link_id])
    if found is None:
        return None
    sealed = found.pop("checkout_url_sealed")
    url = vault.open(sealed, "checkout-url").decode() if sealed else None
    return OpenedLink(scope=scope, link_id=link_id, checkout_url=url, **found)


async def record_click(conn: Connection, moment: Moment, link_id: bytes) -> None:
    """A person tapped the link."""
    await conn.execute(store.RECORD_CLICK, {"link_id": link_id, "now": moment.now})


def sign_recovery_token(vault: Vault, claim: RecoveryClaim, expires_at: datetime) -> str:
    """What the checkout hands back with the order, so that the order is attributed to the text."""
    body = claim.message_id.bytes + claim.session_id.bytes + int(expires_at.timestamp()).to_bytes(8, "big")
    return b64url(body + vault.sign(body, "recovery-token", 16))


def read_recovery_token(vault: Vault, now: datetime, token: str) -> RecoveryClaim | None:
    """The claim in a token; None when it is forged, altered or expired."""
    try:
        raw = un_b64url(token)
    except ValueError:
        return None
    body, mac = raw[:40], raw[40:]
    if len(mac) != 16 or not vault.verify(body, mac, "recovery-token"):
        return None
    if datetime.fromtimestamp(int.from_bytes(body[32:40], "big"), UTC) <= now:
        return None
    return RecoveryClaim(UUID(bytes=body[:16]), UUID(bytes=body[16:32]))


def checkout_address(checkout_url: str, token: str) -> str:
    """The checkout's address with the step and the token added to whatever query it has."""
    parts = urlsplit(checkout_url)
    ours = {"step": STEP, TOKEN_PARAMETER: token}
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in ours]
    return urlunsplit(parts._replace(query=urlencode([*query, *ours.items()])))
