"""Variants of the product with a defect, which the simulator must notice.

Each breaks one promise in the smallest way that somebody might: a lock left out, a result misread, a limit
forgotten. They live here alone; the product has no switch for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID

from cartwake import invariants, scheduler, worker
from cartwake.carriers.protocol import Absent, Throttled, Unknown
from cartwake.carts import store as carts
from cartwake.consent import chain_store as chains
from cartwake.consent import store as consents
from cartwake.credits import ledger, reservations
from cartwake.credits.model import Change, EntryType
from cartwake.credits.refills import refill
from cartwake.kit.db import rows
from cartwake.kit.moment import Moment
from cartwake.messages import allocation, answers, dispatch, facts, reconcile
from cartwake.quiet_hours import windows
from simulation import chaos, stage


async def _send_as_if_refused(*batch: Any) -> list[tuple[Any, Any]]:
    results = await dispatch.send_batch(*batch)
    return [(attempt, Throttled(None, 1.0) if isinstance(it, Unknown) else it) for attempt, it in results]


def _opening_at_greenwich(now: Any, **where: Any) -> Any:
    return windows.next_opening(now, **where | {"zones": ("Etc/UTC",)})


def _opening_of_the_day_after(now: Any, **where: Any) -> Any:
    opening = windows.next_opening(now, **where)
    return opening if opening is None or opening.opens_at <= now else windows.next_opening(opening.closes_at, **where)


async def _nobody_looks_up(_carrier: Any, silent: Any) -> list[tuple[Any, Any]]:
    return [(each, Absent()) for each in silent]


def _without(module: Any, constant: str, words: str) -> AbstractContextManager[Any]:
    """Leave `words` out of a statement."""
    statement: str = getattr(module, constant)
    assert words in statement, f"{constant} has changed; the variant breaks nothing"
    return patch.object(module, constant, statement.replace(words, ""))


@contextmanager
def _stamped_when_the_batch_began() -> Iterator[None]:
    with patch.object(Moment, "after_waiting", lambda self: self), patch.object(consents, "INSTANT", timedelta(0)):
        yield


@contextmanager
def _clocks_without_tolerance() -> Iterator[None]:
    """The invariant takes two machines' clocks for an order; and they are wrong more often than elsewhere."""
    strict = invariants.TEXTED_WITHOUT_CONSENT.replace("interval '5 seconds'", "interval '0 seconds'")
    assert strict != invariants.TEXTED_WITHOUT_CONSENT, "the invariant has changed; the variant breaks nothing"

    async def query(conn: Any, _now: Any) -> Any:
        return await rows(conn, strict)

    played = [(name, g, query if name == "texted_with_consent" else asks) for name, g, asks in invariants.INVARIANTS]
    often = patch.dict(chaos.RATES, clock_step=0.05)
    with patch.object(invariants, "INVARIANTS", tuple(played)), often:
        yield


async def _refill_all_but_one(conn: Any, now: Any, plans: Any) -> Any:
    return await refill(conn, now, plans[1:])


@contextmanager
def _one_credit_too_many() -> Iterator[None]:
    """A release gives back a credit more, and the next one takes it away again: in the ledger all of it adds up."""
    lent: dict[UUID, int] = {}

    async def release(conn: Any, now: Any, keys: Any) -> Any:
        done = await reservations.release(conn, now, keys)
        for organization_id in sorted({key[0] for key in keys if key[1] in done}):
            lent[organization_id] = credits = -lent.get(organization_id, -1)
            heads = await ledger.lock_balances(conn, [organization_id])
            await ledger.post(conn, now, heads, [Change(organization_id, EntryType.ADJUSTMENT, credits)])
        return done

    with patch.object(answers, "release", release):
        yield


VARIANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    # A withdrawal slips in between a claim's reading of consent and its commit.
    "consent_unlocked": lambda: _without(consents, "READ_STATES_LOCKED", "FOR SHARE OF s"),
    # An order or a payment does.
    "cart_unlocked": lambda: _without(carts, "READ_LOCKED", "FOR SHARE OF s SKIP LOCKED"),
    # A timeout or a 5xx is taken for a refusal, and the text is sent once more.
    "resend": lambda: patch.object(worker, "send_batch", _send_as_if_refused),
    # A second shop texts the same phone on the same day.
    "no_recipient_cap": lambda: patch.object(allocation, "RECIPIENT_PAUSE", timedelta(minutes=1)),
    # A consent event says when its request came in, not when it had its lock.
    "stamped_early": lambda: patch.object(Moment, "after_waiting", lambda self: self),
    # The carrier is not asked about a text without a receipt.
    "no_look_up": lambda: patch.object(reconcile, "look_up", _nobody_looks_up),
    # A text waits for a later day than it must.
    "opens_late": lambda: patch.object(facts, "next_opening", _opening_of_the_day_after),
    # The window is looked up in one zone for everybody.
    "one_zone": lambda: patch.object(facts, "next_opening", _opening_at_greenwich),
    # STOP and START in one batch of events, and the proof has them at one instant.
    "stamped_by_batch": _stamped_when_the_batch_began,
    # A month's credits do not come to everybody.
    "refill_skipped": lambda: patch.object(scheduler, "refill", _refill_all_but_one),
    # Nor do they come when they should.
    "refills_rarely": lambda: patch.dict(stage.SLOWER, plan_refills="10 3 * * *"),
    # A release gives back too much, which is put right later.
    "credit_too_many": _one_credit_too_many,
    # The first link of every batch is not written, though the head goes on from it.
    "link_lost": lambda: patch.object(chains, "INSERT_LINKS", chains.INSERT_LINKS + "OFFSET 1"),
    # An invariant that is broken where only two clocks differ: a false alarm.
    "clocks_in_order": _clocks_without_tolerance,
}


@contextmanager
def variant(name: str | None) -> Iterator[None]:
    """Play with a defect for as long as the block lasts; None: without."""
    with VARIANTS[name]() if name else nullcontext():
        yield
