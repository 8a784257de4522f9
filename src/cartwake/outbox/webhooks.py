"""Where a shop wants to be told, and the secret that it knows us by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cartwake.jobs.trigger import Wake, announce
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, row
from cartwake.kit.errors import BadInput, NotKnown
from cartwake.kit.moment import Moment
from cartwake.outbox import store
from cartwake.outbox.address import is_public_host
from cartwake.outbox.model import BOTH_SECRETS_FOR, SECRET_BYTES, show_secret
from cartwake.tenants.model import ShopScope

URL_SEAL, SECRET_SEAL = "webhook-url", "webhook-secret"


@dataclass(frozen=True, repr=False)
class Webhook:
    """A shop's address. The secret is not in here: nobody sees it twice."""

    url: str
    former_secret_until: datetime | None
    failing_since: datetime | None  # null: the last try was heard, or none was made
    failing_with: str | None
    created_at: datetime
    updated_at: datetime


async def read_webhook(conn: Connection, vault: Vault, scope: ShopScope) -> Webhook:
    """Raises `NotKnown` when the shop has none."""
    found = await row(conn, store.SELECT_WEBHOOK, [scope.organization_id, scope.shop_id])
    if found is None:
        raise NotKnown("This shop has no webhook.")
    url = vault.open(found["url_sealed"], URL_SEAL).decode()
    del found["url_sealed"]
    return Webhook(url=url, **found)


async def save_webhook(conn: Connection, moment: Moment, scope: ShopScope, url: str, *, production: bool) -> str | None:
    """Tell the shop there from now on. Returns the secret when it is a new one, to be shown this once.

    Raises `BadInput` for an address that nothing would be sent to: in production it must be https and public.
    """
    if production:
        _check_address(url)
    secret = moment.ids.token_bytes(SECRET_BYTES)
    params = _keys(scope, moment) | {
        "url": moment.vault.seal(url, URL_SEAL),
        "secret": moment.vault.seal(secret, SECRET_SEAL),
    }
    found = await row(conn, store.SAVE_WEBHOOK, params)
    await conn.execute(store.HURRY, _keys(scope, moment))
    await announce(conn, Wake.OUTBOX)
    return show_secret(secret) if found and found["is_new"] else None


async def rotate_secret(conn: Connection, moment: Moment, scope: ShopScope) -> str:
    """A new secret, to be shown this once; for a day the former one signs as well. Raises `NotKnown`."""
    secret = moment.ids.token_bytes(SECRET_BYTES)
    params = _keys(scope, moment) | {
        "secret": moment.vault.seal(secret, SECRET_SEAL),
        "both_until": moment.now + BOTH_SECRETS_FOR,
    }
    if await row(conn, store.CHANGE_KEY, params) is None:
        raise NotKnown("This shop has no webhook.")
    return show_secret(secret)


async def remove_webhook(conn: Connection, moment: Moment, scope: ShopScope) -> None:
    """Tell the shop nothing any more, and forget what waited. Repeating it changes nothing."""
    await row(conn, store.REMOVE_WEBHOOK, _keys(scope, moment))
    await conn.execute(store.CANCEL_WAITING, _keys(scope, moment))


def _check_address(url: str) -> None:
    if not url.startswith("https://"):
        raise BadInput("The address must begin with https://.", slug="insecure-webhook", field="url")
    if not is_public_host(url):
        raise BadInput("The address is not one of the public internet.", slug="private-webhook", field="url")


def _keys(scope: ShopScope, moment: Moment) -> dict[str, Any]:
    return {"organization_id": scope.organization_id, "shop_id": scope.shop_id, "now": moment.now}
