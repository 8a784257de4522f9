"""What people did: the facts from which the witness reckons.

An act has a beginning and, if somebody answered 2xx, an end; in between it took effect, nobody knows when. An
act that was never answered may have happened or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from uuid import UUID

from cartwake.kit.phones import Phone
from simulation.windows import Whereabouts


@dataclass(eq=False)
class Act:
    """Something that somebody asked for."""

    kind: str
    began: int  # step
    began_at: datetime
    amount: int = 0  # of credits
    answered: int | None = None  # step
    answered_at: datetime | None = None
    refused: bool = False  # with a 4xx: it did not happen

    def may_follow(self, other: Act) -> bool:
        """Whether this one may have taken effect after the other."""
        return not self.refused and (self.answered is None or self.answered >= other.began)

    def is_done_before(self, step: int) -> bool:
        """Whether it certainly had taken effect."""
        return self.answered is not None and self.answered < step


@dataclass(eq=False)
class Merchant:
    """An organization."""

    organization_id: UUID
    acts: list[Act] = field(default_factory=list)  # credits, plans


@dataclass(eq=False)
class Shop:
    """A shop, and what was done to it: texts switched off and on, kill switches."""

    merchant: Merchant
    shop_id: UUID
    key: str
    number: str
    opens: time
    closes: time
    cycle_cap: int
    text_delay: timedelta
    payment_timeout: timedelta
    acts: list[Act] = field(default_factory=list)


@dataclass(eq=False)
class Cart:
    """One checkout."""

    shop: Shop
    external_id: str
    phone: Phone
    country: str | None
    acts: list[Act] = field(default_factory=list)

    @property
    def whereabouts(self) -> Whereabouts:
        return Whereabouts(self.phone.e164, self.phone.country, self.country)

    def __str__(self) -> str:
        return f"{self.external_id} ({self.phone.country} phone, ships to {self.country})"


def undone_before(
    step: int, acts: Iterable[Act], no: frozenset[str], yes: frozenset[str], until: int | None = None
) -> Act | None:
    """An act of the kinds `no` that certainly held at `step`: done before, and no act of `yes` may have undone it.

    `until`: it held for all the time from `step` until then.
    """
    acts = list(acts)
    for act in reversed(acts):
        if act.kind in no and act.is_done_before(step):
            answers = (each for each in acts if each.kind in yes and each.began < (until or step))
            if not any(each.may_follow(act) for each in answers):
                return act
    return None
