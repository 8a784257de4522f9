"""What a POST with an `Idempotency-Key` was answered, kept beside the work that it did.

The answer is written in the work's own transaction, so there is never one without the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, row
from cartwake.kit.errors import Conflict
from cartwake.kit.moment import Moment
from cartwake.tenants import store
from cartwake.tenants.model import Scope, ShopScope

KEPT_FOR = timedelta(hours=24)

# Whose key it is: None is the operator's. The same key of another tenant is another key.
Owner = Scope | ShopScope | None


class KeyInUse(Conflict):
    """Another transaction works on the same request; it will be done in a moment."""

    slug = "idempotency-key-in-use"


@dataclass(frozen=True)
class Answer:
    """What was answered: an HTTP status, and JSON."""

    status: int
    body: str


@dataclass(frozen=True)
class KeyedRequest:
    """A request by its key and a hash of everything that it asks for."""

    owner: Owner
    key_hash: bytes
    request_hash: bytes

    def params(self) -> dict[str, Any]:
        """Of the statements."""
        return {
            "organization_id": self.owner.organization_id if self.owner else None,
            "shop_id": self.owner.shop_id if self.owner else None,
            "key_hash": self.key_hash,
        }


async def claim_answer(conn: Connection, vault: Vault, request: KeyedRequest) -> Answer | None:
    """What this request was answered before; None when it is the first with its key, which is then ours until commit.

    Raises `KeyInUse` while another transaction has the key, and `Conflict` (`idempotency-key-reused`) when it was
    used for another request. Nobody waits for a key: that would hold a connection.
    """
    lock = int.from_bytes(sha256(_identity(request)).digest()[:8], "big", signed=True)
    locked = await row(conn, store.LOCK_ANSWER, [lock])
    if locked is None or not locked["locked"]:
        raise KeyInUse("The first request with this key is still under way.")
    # A statement of its own: one that began before the lock was had would not see what was committed meanwhile.
    found = await row(conn, store.SELECT_ANSWER if request.owner else store.SELECT_OPERATOR_ANSWER, request.params())
    if found is None:
        return None
    if found["request_hash"] != request.request_hash:
        raise Conflict(
            "This Idempotency-Key was used for another request. Use a new key for a new request.",
            slug="idempotency-key-reused",
        )
    return Answer(**json.loads(vault.open(found["answer_sealed"], "idempotent-answer")))


async def keep_answer(conn: Connection, moment: Moment, request: KeyedRequest, answer: Answer) -> None:
    """Write down what the request is answered, to be committed with what it did."""
    sealed = moment.vault.seal(json.dumps(vars(answer)), "idempotent-answer")
    await conn.execute(
        store.INSERT_ANSWER if request.owner else store.INSERT_OPERATOR_ANSWER,
        request.params() | {"request_hash": request.request_hash, "answer_sealed": sealed, "now": moment.now},
    )


async def forget_answers(conn: Connection, now: datetime) -> None:
    """Remove every answer older than a day. Engine login."""
    for statement in (store.DELETE_ANSWERS, store.DELETE_OPERATOR_ANSWERS):
        await conn.execute(statement, [now - KEPT_FOR])


def _identity(request: KeyedRequest) -> bytes:
    params = request.params()
    return f"{params['organization_id']} {params['shop_id']} ".encode() + request.key_hash
