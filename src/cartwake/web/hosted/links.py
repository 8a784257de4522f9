"""From a token in an address to a link and the language of whoever got it."""

from __future__ import annotations

from dataclasses import dataclass

from cartwake.carts.links import OpenedLink, Purpose, find_link_tenant, read_link_token
from cartwake.carts.sessions import read_session
from cartwake.kit.crypto import Vault
from cartwake.kit.db import WEB, Connection
from cartwake.kit.runtime import Runtime
from cartwake.messages.reading import read_message
from cartwake.messages.templates import choose_locale
from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import read_shop
from cartwake.web.auth import log_whose


@dataclass(frozen=True)
class FoundLink:
    """A link that we made, and whose it is."""

    link_id: bytes
    scope: ShopScope


async def find_link(runtime: Runtime, token: str, purpose: Purpose) -> FoundLink | None:
    """The link that a token names; None when it was not signed for this purpose, or nobody knows it."""
    link_id = read_link_token(runtime.vault, token, purpose)
    if link_id is None:
        return None
    async with runtime.db.transaction(WEB) as conn:
        scope = await find_link_tenant(conn, link_id)
    if scope is None:
        return None
    log_whose(scope.organization_id, scope.shop_id)
    return FoundLink(link_id, scope)


async def locale_of(conn: Connection, vault: Vault, link: OpenedLink) -> str:
    """The language that the link's text was written in."""
    message = await read_message(conn, vault, link.scope, link.message_id)
    session = await read_session(conn, link.scope, message.external_id)
    shop = await read_shop(conn, link.scope)
    return choose_locale(session.locale, shop.default_locale)
