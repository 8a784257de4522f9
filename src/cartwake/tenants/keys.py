"""API keys: 256 random bits behind a prefix that tells their kind; only their hash is kept.

A key is replaced without a gap by a rotation: the new one is good at once, the old one until it expires.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.kit.crypto import b64url, hash_secret
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.errors import Conflict, NotKnown
from cartwake.kit.moment import Moment
from cartwake.tenants import store
from cartwake.tenants.model import KEY_PREFIXES, ApiKey, Caller, KeyKind, Scope

# Live keys of one kind that an organization, a shop, or the operator may have.
KEYS_MAX = 100


@dataclass(frozen=True)
class NewKey:
    """A key that was just made; `secret` is its text."""

    key: ApiKey
    secret: str


async def create_key(conn: Connection, moment: Moment, kind: KeyKind, scope: Scope | None = None) -> str:
    """Make a key and return its text: the only time that anybody sees it. As `issue_key`."""
    return (await issue_key(conn, moment, kind, scope)).secret


async def issue_key(conn: Connection, moment: Moment, kind: KeyKind, scope: Scope | None = None) -> NewKey:
    """Make a key. `scope` is the organization for `ORGANIZATION`, the shop for the two shop kinds.

    None is for `OPERATOR`, whose keys the operator login alone can make. Raises `Conflict` (`key-limit`) when
    there are too many.
    """
    secret = KEY_PREFIXES[kind] + b64url(moment.ids.token_bytes(32))
    organization_id, shop_id = (scope.organization_id, scope.shop_id) if scope else (None, None)
    key = ApiKey(moment.new_id(), kind, organization_id, shop_id, moment.now)
    live = await row(conn, store.COUNT_LIVE_KEYS if scope else store.COUNT_LIVE_OPERATOR_KEYS, vars(key))
    if live and live["keys"] >= KEYS_MAX:
        raise Conflict(f"There are {KEYS_MAX} live keys of this kind. Revoke those not in use.", slug="key-limit")
    await conn.execute(
        store.INSERT_KEY if scope else store.INSERT_OPERATOR_KEY, vars(key) | {"secret_hash": hash_secret(secret)}
    )
    return NewKey(key, secret)


async def rotate_key(
    conn: Connection, moment: Moment, key_id: UUID, overlap: timedelta, organization_id: UUID | None = None
) -> NewKey:
    """Make another key that opens what this one opens, and let this one expire after `overlap`.

    `organization_id` is whose key it is; None: the operator's. Raises `NotKnown` unless the key is live.
    """
    asked = {"organization_id": organization_id, "key_id": key_id, "now": moment.now, "until": moment.now + overlap}
    found = await row(conn, store.EXPIRE_KEY if organization_id else store.EXPIRE_OPERATOR_KEY, asked)
    if found is None:
        whose = "this organization" if organization_id else "the operator"
        raise NotKnown(f"There is no such key of {whose}, or it was revoked or has expired.")
    old = _key(found)
    scope = Scope(old.organization_id, old.shop_id) if old.organization_id else None
    return await issue_key(conn, moment, old.kind, scope)


async def revoke_key(conn: Connection, now: datetime, key_id: UUID, organization_id: UUID | None = None) -> ApiKey:
    """A revoked key opens nothing from the next request on; revoking it again changes nothing.

    `organization_id`: whose key it must be; any organization's that the login sees when None. Raises `NotKnown`.
    """
    found = await row(conn, store.REVOKE_KEY, {"now": now, "key_id": key_id, "organization_id": organization_id})
    if found is None:
        raise NotKnown("There is no such key.")
    return _key(found)


async def revoke_operator_key(conn: Connection, now: datetime, key_id: UUID) -> ApiKey:
    """As `revoke_key`, for the operator's own. Operator login.

    Raises `Conflict` (`last-operator-key`) for the last one that does not expire.
    """
    lasting = [found["key_id"] for found in await rows(conn, store.LOCK_LASTING_OPERATOR_KEYS)]
    if lasting == [key_id]:
        raise Conflict(
            "This is the last operator key that does not expire. Rotate it, or make another one first.",
            slug="last-operator-key",
        )
    found = await row(conn, store.REVOKE_OPERATOR_KEY, [now, key_id])
    if found is None:
        raise NotKnown("There is no such key.")
    return _key(found)


async def list_keys(
    conn: Connection, organization_id: UUID | None, *, before: UUID | None = None, limit: int
) -> list[ApiKey]:
    """A page of an organization's and its shops' keys (None: the operator's), newest first."""
    asked = {"organization_id": organization_id, "before": before, "limit": limit}
    found = await rows(conn, store.LIST_KEYS if organization_id else store.LIST_OPERATOR_KEYS, asked)
    return [_key(each) for each in found]


async def find_caller(conn: Connection, now: datetime, secret_hash: bytes) -> Caller | None:
    """Whose key this is; None when nobody's, or no longer anybody's.

    The secret is looked up by its SHA-256, so no comparison depends on how much of it was right.
    """
    found = await row(conn, store.FIND_KEY, [secret_hash, now])
    return (
        Caller(KeyKind(found["kind"]), found["key_id"], found["organization_id"], found["shop_id"]) if found else None
    )


async def note_use(conn: Connection, hour: datetime, secret_hash: bytes) -> None:
    """Remember that a key was used within `hour`."""
    await conn.execute(store.NOTE_KEY_USE, [secret_hash, hour])


def _key(found: dict[str, Any]) -> ApiKey:
    owner = {name: found.pop(name, None) for name in ("organization_id", "shop_id")}
    return ApiKey(kind=KeyKind(found.pop("kind", KeyKind.OPERATOR)), **owner, **found)
