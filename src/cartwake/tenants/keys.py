"""API keys: 256 random bits behind a prefix that tells their kind; only their hash is kept."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from cartwake.kit.crypto import b64url, hash_secret
from cartwake.kit.db import Connection, row
from cartwake.kit.errors import NotKnown
from cartwake.kit.moment import Moment
from cartwake.tenants import store
from cartwake.tenants.model import KEY_PREFIXES, Caller, KeyKind, Scope


async def create_key(conn: Connection, moment: Moment, kind: KeyKind, scope: Scope | None = None) -> str:
    """Make a key and return its text: the only time that anybody sees it. Operator login.

    `scope` is the organization for `ORGANIZATION`, the shop for the two shop kinds, None for `OPERATOR`.
    """
    secret = KEY_PREFIXES[kind] + b64url(moment.ids.token_bytes(32))
    key_id = moment.new_id()
    if scope is None:
        await conn.execute(store.INSERT_OPERATOR_KEY, [key_id, hash_secret(secret), moment.now])
    else:
        await conn.execute(
            store.INSERT_KEY, [scope.organization_id, scope.shop_id, key_id, kind, hash_secret(secret), moment.now]
        )
    return secret


async def find_caller(conn: Connection, secret: str) -> Caller | None:
    """Whose key this is; None when nobody's, or no longer anybody's.

    The secret is looked up by its SHA-256, so no comparison depends on how much of it was right.
    """
    found = await row(conn, store.FIND_KEY, [hash_secret(secret)])
    return (
        Caller(KeyKind(found["kind"]), found["key_id"], found["organization_id"], found["shop_id"]) if found else None
    )


async def revoke_key(conn: Connection, now: datetime, key_id: UUID) -> None:
    """A revoked key opens nothing from the next request on. Operator login. Raises `NotKnown`."""
    if await row(conn, store.REVOKE_KEY, [now, key_id]) is None:
        raise NotKnown("There is no such key, or it was revoked before.")
