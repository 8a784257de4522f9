"""Giving and taking back consent: the state row and its event, always in one transaction.

Each event carries a commitment, SHA-256 over a random salt and its evidence. Salt and evidence lie in a
side table; erasing them leaves the event and its commitment standing, and nobody can guess what it hid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from cartwake.consent import store
from cartwake.consent.chain import SALT_BYTES, commitment_of, instant
from cartwake.consent.model import (
    NEVER_ASKED,
    Action,
    Channel,
    ConsentChange,
    ConsentEvent,
    ConsentState,
    Evidence,
    Suppression,
)
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection
from cartwake.kit.moment import Moment

EVIDENCE_PURPOSE = "evidence"


async def grant(conn: Connection, moment: Moment, channel: Channel, changes: Sequence[ConsentChange]) -> None:
    """The shopper agreed. A suppressed phone stays suppressed: only START lifts a STOP."""
    await _record(conn, moment, Action.GRANTED, channel, changes)


async def withdraw(conn: Connection, moment: Moment, channel: Channel, changes: Sequence[ConsentChange]) -> None:
    """The shopper took it back. Returns once no later claim can miss it (waits for one that runs)."""
    await _record(conn, moment, Action.WITHDRAWN, channel, changes)


async def suppress(
    conn: Connection,
    moment: Moment,
    channel: Channel,
    reason: Suppression,
    changes: Sequence[ConsentChange],
    *,
    said_at: datetime | None = None,
) -> None:
    """No more texts to these phones from these shops; `NOT_MY_NUMBER` stops every shop of the deployment.

    `said_at`: when it reached us, where that was earlier than now; what was said before it does not lift it.
    """
    await _record(conn, moment, Action.SUPPRESSED, channel, changes, reason=reason, said_at=said_at)
    if reason is Suppression.NOT_MY_NUMBER:
        for phone_hash in sorted({change.phone_hash for change in changes}):
            await conn.execute(store.SUPPRESS_EVERYWHERE, [phone_hash, moment.now])


async def say_again(conn: Connection, now: datetime, reason: Suppression, change: ConsentChange) -> bool:
    """What was said before and still holds, holds as of `now`: no START before that lifts it. Whether it was."""
    return await store.say_again(conn, now, reason, _key(change))


async def lift(
    conn: Connection, moment: Moment, channel: Channel, changes: Sequence[ConsentChange], *, said_at: datetime
) -> list[ConsentChange]:
    """START: takes back a STOP and is consent in the owner's own words. Returns the changes that lifted one."""
    lifted = await store.change_states(conn, moment.now, Action.UNSUPPRESSED, changes, said_at=said_at)
    real = [change for change in changes if _key(change) in lifted]
    await _write_events(conn, moment, Action.UNSUPPRESSED, channel, real, lifted)
    return real


async def read_consent(conn: Connection, key: store.StateKey) -> ConsentState:
    """What holds now for one phone at one shop."""
    return await store.read_state(conn, key) or NEVER_ASKED


async def last_events(conn: Connection, key: store.StateKey, limit: int) -> list[ConsentEvent]:
    """The last `limit` things that happened to one phone's consent at one shop, oldest first."""
    return (await store.read_events(conn, key, limit))[::-1]


async def read_consents_for_claim(
    conn: Connection, keys: Sequence[store.StateKey]
) -> tuple[dict[store.StateKey, ConsentState], set[bytes]]:
    """The states of many phones, share-locked until commit, and the phones suppressed everywhere."""
    states = await store.read_states_locked(conn, keys)
    return states, await store.read_suppressed_everywhere(conn, [key[2] for key in keys])


async def _record(
    conn: Connection,
    moment: Moment,
    action: Action,
    channel: Channel,
    changes: Sequence[ConsentChange],
    *,
    reason: Suppression | None = None,
    said_at: datetime | None = None,
) -> None:
    if not changes:
        return
    last = await store.change_states(conn, moment.now, action, changes, reason=reason, said_at=said_at or moment.now)
    await _write_events(conn, moment, action, channel, changes, last)


async def _write_events(
    conn: Connection,
    moment: Moment,
    action: Action,
    channel: Channel,
    changes: Sequence[ConsentChange],
    last: Mapping[store.StateKey, datetime],
) -> None:
    """What was said, in the order in which it took effect: the states' rows are locked, and claims read them.

    So the time is that of the lock. With an earlier one the proof would show a text after a no that came after
    it, or a no after the yes that took it back. `last`: when each row's last event was. Another machine, whose
    clock may be ahead of ours, may have written it: this one is later all the same.
    """
    if not changes:
        return
    now = moment.after_waiting().now
    ats = [max(now, last[_key(change)] + store.INSTANT) for change in changes]
    event_ids = [moment.ids.new(at) for at in ats]
    evidence = await _evidence_of(conn, moment, changes)
    salts = [moment.ids.token_bytes(SALT_BYTES) for _ in changes]
    proofs: dict[str, list[Any]] = {
        "events": event_ids,
        "ats": ats,
        "salts": salts,
        "commitments": [
            commitment_of(salt, event_id, action, channel, instant(at), plain)
            for salt, event_id, at, plain in zip(salts, event_ids, ats, evidence, strict=True)
        ],
        "evidence": [moment.vault.seal(json.dumps(plain, ensure_ascii=False), EVIDENCE_PURPOSE) for plain in evidence],
    }
    await store.insert_events(conn, action, channel, changes, proofs=proofs)


async def _evidence_of(conn: Connection, moment: Moment, changes: Sequence[ConsentChange]) -> list[dict[str, str]]:
    """Each change's evidence, with the phone in plain: who knows only its hash has it from the phone's last event."""
    nameless = [change for change in changes if change.evidence.phone is None]
    known = await store.read_latest_evidence(conn, nameless) if nameless else {}
    phones = {key: _phone_in(moment.vault, sealed) for key, sealed in known.items()}
    return [
        _plain(replace(change.evidence, phone=change.evidence.phone or phones.get(_key(change)))) for change in changes
    ]


def open_evidence(vault: Vault, sealed: bytes) -> dict[str, str]:
    """An event's evidence. Raises `ValueError` when it was altered or its key is gone."""
    evidence: dict[str, str] = json.loads(vault.open(sealed, EVIDENCE_PURPOSE))
    return evidence


def _phone_in(vault: Vault, sealed: bytes) -> str | None:
    try:
        return open_evidence(vault, sealed).get("phone")
    except ValueError:  # `cartwake audit` tells of it; nobody's STOP has to wait until it is mended
        return None


def _plain(evidence: Evidence) -> dict[str, str]:
    return {name: value for name, value in asdict(evidence).items() if value is not None}


def _key(change: ConsentChange) -> store.StateKey:
    return change.organization_id, change.shop_id, change.phone_hash
