"""A shop's chain as a file that proves itself: one JSON object a line, in chain order, from `docs/comply.md`.

chain    whose it is, and whether it is whole: false where it is about one shopper
waiting  an event that was not sealed yet when the export began: bound to its evidence, not yet to the chain
event    a link with its event's public fields, and its proof: salt and evidence; null once that is erased, and then it
         is in every file, for nobody can say any more whose it was
other    a link with its event's digest alone, where the export is about one shopper and this is another's
head     where the chain stands; a file without it was cut off
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

from cartwake.consent import chain_store
from cartwake.consent.chain import FORMAT, canonical, digest_of, instant, public_fields
from cartwake.consent.chain_store import EVER, NOBODY
from cartwake.consent.events import open_evidence
from cartwake.consent.sealing import read_head
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection

MEDIA_TYPE = "application/x-ndjson"
# Lines of one page: some hundred kilobytes.
PAGE = 500

Begin = Callable[[], AbstractAsyncContextManager[Connection]]


async def export_chain(
    begin: Begin, vault: Vault, organization_id: UUID, shop_id: UUID, phone_hash: bytes | None = None
) -> AsyncIterator[bytes]:
    """The file, some hundred lines at a time. With `phone_hash`, of other shoppers' events the digests alone.

    `begin` opens a transaction with the shop's scope. Each page has its own, so however slowly somebody reads, no
    connection and no old snapshot waits for them: what is sealed does not change any more, and what is sealed meanwhile
    comes with the later pages. Only what was waiting when the export began may be there twice, as both.
    """
    whose = {"organization_id": str(organization_id), "shop_id": str(shop_id)}
    yield _line("chain", format=FORMAT, **whose, whole=phone_hash is None)
    after = (EVER, NOBODY)
    while True:
        async with begin() as conn:
            waiting = await chain_store.read_waiting(conn, organization_id, shop_id, after, PAGE)
        if not waiting:
            break
        yield b"".join(_waiting(vault, found) for found in waiting if _is_theirs(found, phone_hash))
        after = waiting[-1]["waits_at"], waiting[-1]["event_id"]
    position = 0
    while True:
        async with begin() as conn:
            # First the head: were it read last, links that come between the two would be missing below it.
            head = await read_head(conn, organization_id, shop_id)
            links = await chain_store.read_links(conn, (organization_id, shop_id, position), PAGE)
        if not links:
            break
        yield b"".join(_link(vault, found, phone_hash) for found in links)
        position = links[-1]["position"]
    yield _line("head", position=head.position, head=head.head.hex())


def _link(vault: Vault, found: Mapping[str, Any], phone_hash: bytes | None) -> bytes:
    position, link = found["position"], found["link"].hex()
    if found["action"] is None:  # the event was removed; nobody who does that may have a quiet export
        return _line("event", position=position, link=link, event_id=str(found["event_id"]))
    fields = public_fields(found, position, found["sealed_at"])
    if not _is_theirs(found, phone_hash):
        return _line("other", position=position, link=link, digest=digest_of(fields).hex())
    del fields["organization_id"], fields["shop_id"]  # as in the first line
    return _line("event", **fields, link=link, proof=_proof(vault, found))


def _waiting(vault: Vault, found: Mapping[str, Any]) -> bytes:
    fields = {name: found[name] for name in ("action", "channel")}
    fields |= {"event_id": str(found["event_id"]), "at": instant(found["at"]), "commitment": found["commitment"].hex()}
    return _line("waiting", **fields, proof=_proof(vault, found))


def _proof(vault: Vault, found: Mapping[str, Any]) -> dict[str, Any] | None:
    if found["salt"] is None:
        return None
    evidence: dict[str, str] | None
    try:
        evidence = open_evidence(vault, found["evidence_sealed"])
    except ValueError:  # altered, or its key is gone: the rest is still worth having, and a verifier says what is not
        evidence = None
    return {"salt": found["salt"].hex(), "evidence": evidence}


def _is_theirs(found: Mapping[str, Any], phone_hash: bytes | None) -> bool:
    # Evidence that is erased was anybody's: left out, a yes would look as if no withdrawal had followed it.
    return phone_hash is None or found["phone_hash"] in (None, phone_hash)


def _line(kind: str, **fields: Any) -> bytes:
    return canonical({"type": kind} | fields) + b"\n"
