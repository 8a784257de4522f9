"""The chain over a shop's consent events: what is hashed, byte for byte. Sealer, audit and verifier share this page.

    genesis    = SHA-256(tag, organization and shop)
    link       = SHA-256(tag, the link before it, digest of the event)
    digest     = SHA-256(tag, the event's public fields, with its commitment, its tenant and its position)
    commitment = SHA-256(tag, salt, what happened and its evidence)

Every hash begins with a tag of its own, so that none can pass for another. What is hashed is JSON in one form only
(RFC 8785: keys sorted, no spaces, UTF-8), so anybody can recompute it in any language. The event goes in by its
digest: whoever may see one shopper's events alone checks the whole chain from the digests of the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

GENESIS_TAG = b"cartwake consent genesis 1\n"
EVENT_TAG = b"cartwake consent event 1\n"
LINK_TAG = b"cartwake consent link 1\n"
EVIDENCE_TAG = b"cartwake consent evidence 1\n"

# Of an export, as its first line has it.
FORMAT = "cartwake-consent-chain-1"
# As long as a salt is kept, nobody can guess what it hides; once it is erased, nobody can try (2 to the power of 128).
SALT_BYTES = 16


@dataclass(frozen=True)
class Head:
    """Where a chain stands."""

    position: int
    head: bytes
    sealed_at: datetime | None  # None: nothing was sealed yet


def canonical(value: Any) -> bytes:
    """JSON as RFC 8785 writes it, of texts, whole numbers, objects and null."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def instant(at: datetime) -> str:
    """A time in the one form that is hashed: UTC, with all six digits after the point."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def genesis(organization_id: UUID | str, shop_id: UUID | str) -> bytes:
    """What a shop's first link continues. Another shop's has another, so no chain can be shown for another's."""
    whose = {"organization_id": str(organization_id), "shop_id": str(shop_id)}
    return hashlib.sha256(GENESIS_TAG + canonical(whose)).digest()


def digest_of(event: Mapping[str, Any]) -> bytes:
    """The digest of a sealed event, from its public fields as `public_fields` gives them."""
    return hashlib.sha256(EVENT_TAG + canonical(event)).digest()


def public_fields(event: Mapping[str, Any], position: int, sealed_at: datetime) -> dict[str, Any]:
    """What a link covers, of a row of `consent_events`: nothing of it is personal."""
    return {
        "organization_id": str(event["organization_id"]),
        "shop_id": str(event["shop_id"]),
        "position": position,
        "event_id": str(event["event_id"]),
        "action": event["action"],
        "channel": event["channel"],
        "at": instant(event["at"]),
        "commitment": event["commitment"].hex(),
        "sealed_at": instant(sealed_at),
    }


def link_of(previous: bytes, digest: bytes) -> bytes:
    """The link that continues `previous` (a link, or the genesis) with an event's digest."""
    return hashlib.sha256(LINK_TAG + previous + digest).digest()


def commitment_of(
    salt: bytes, event_id: UUID | str, action: str, channel: str, at: str, evidence: Mapping[str, str]
) -> bytes:
    """What binds an event to its evidence, the shopper's phone among it. `at` as `instant` writes it."""
    body = {"action": action, "at": at, "channel": channel, "event_id": str(event_id), "evidence": evidence}
    return hashlib.sha256(EVIDENCE_TAG + salt + canonical(body)).digest()
