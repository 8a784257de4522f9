"""A shop's own texts, one per locale, and every version of them that there ever was.

A change is a new row and nothing is ever changed in place, so that what was sent can be explained: each
message names the version that it was rendered from. A version without a text takes the shop back to the
built-in one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cartwake.kit.db import Connection, row, rows
from cartwake.kit.moment import Moment
from cartwake.messages import store
from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import read_sms_config


@dataclass(frozen=True)
class Template:
    """A shop's own text in one locale, as a message is rendered from it."""

    version: int
    text: str


@dataclass(frozen=True)
class TemplateVersion:
    """One change of a shop's text in one locale."""

    locale: str
    version: int
    text: str | None  # None: back to the built-in text
    changed_by: str
    at: datetime


async def read_templates(
    conn: Connection, wanted: Collection[tuple[ShopScope, str]]
) -> dict[tuple[ShopScope, str], Template]:
    """The texts of many shops and locales at once; those that have none of their own are left out."""
    if not wanted:
        return {}
    shops = [shop for shop, _ in wanted]
    params = {
        "organizations": [shop.organization_id for shop in shops],
        "shops": [shop.shop_id for shop in shops],
        "locales": [locale for _, locale in wanted],
    }
    return {
        (ShopScope(found["organization_id"], found["shop_id"]), found["locale"]): Template(
            found["version"], found["text"]
        )
        for found in await rows(conn, store.READ_TEMPLATES, params)
    }


async def newest_versions(conn: Connection, scope: ShopScope) -> dict[str, TemplateVersion]:
    """The last change of each locale that was ever changed."""
    found = await rows(conn, store.LIST_NEWEST_TEMPLATES, [scope.organization_id, scope.shop_id])
    return {each["locale"]: TemplateVersion(**each) for each in found}


async def list_versions(
    conn: Connection, scope: ShopScope, locale: str, *, before: int | None = None, limit: int = 50
) -> Sequence[TemplateVersion]:
    """A page of a locale's changes, newest first; `before` is the last version of the page before."""
    params = _keys(scope, locale) | {"before": before, "limit": limit}
    return [TemplateVersion(**each) for each in await rows(conn, store.LIST_TEMPLATE_VERSIONS, params)]


async def change_template(
    conn: Connection, moment: Moment, scope: ShopScope, locale: str, text: str | None, changed_by: str
) -> TemplateVersion | None:
    """From here on texts in this locale are rendered from `text` (None: the built-in one); it has been accepted.

    What is the same already changes nothing. Returns the newest version, None when there never was one.
    """
    # Two changes at once take their numbers in turn.
    await read_sms_config(conn, scope, lock=True)
    found = await row(conn, store.LIST_TEMPLATE_VERSIONS, _keys(scope, locale) | {"before": None, "limit": 1})
    newest = TemplateVersion(**found) if found else None
    if (newest.text if newest else None) == text:
        return newest
    changed = TemplateVersion(locale, newest.version + 1 if newest else 1, text, changed_by, moment.now)
    await conn.execute(store.INSERT_TEMPLATE_VERSION, _keys(scope, locale) | vars(changed))
    return changed


def _keys(scope: ShopScope, locale: str) -> dict[str, Any]:
    return {"organization_id": scope.organization_id, "shop_id": scope.shop_id, "locale": locale}
