"""The independent count: every cart has one fate, every credit one place. Pure.

It knows what was fed (the plan), what was answered (the diary), what the carrier took (its journal), and
asks the database for nothing but what it says became of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from chaos.evidence import CartRow, Evidence, Text
from chaos.plan import COUNTRIES, Act, Cart, Plan
from chaos.storefronts import Diary

NOT_ENDED = "not ended"
TEXTED = frozenset({"delivered", "undelivered", "failed", "no receipt"})
# How the database's states read in the table. What is not here has not ended.
FATES = {
    "delivered": "delivered",
    "undelivered": "undelivered",
    "failed": "failed",
    "delivery_unknown": "no receipt",
    "dropped": "dropped",
    "rejected": "rejected",
    "not_accepted": "not accepted",
    "unresolved": "unresolved",
}
WITH_REASON = frozenset({"dropped", "rejected", "not accepted", "unresolved", "not scheduled", "no receipt"})
REFILL_CREDITS = 100  # PRO, once in the month that a run lasts
# These hold from their answer on, to the instant. A STOP takes effect when a worker comes to it.
NOES_AT_ONCE = frozenset({Act.BUY, Act.WITHDRAW})
REFUNDED = frozenset({"undelivered", "failed"})
EXAMPLES = 5


@dataclass
class Tally:
    """One line of the table: an organization, or all of them."""

    name: str
    fates: Counter[str] = field(default_factory=Counter)
    texted: Counter[str] = field(default_factory=Counter)  # "once", "twice"
    credits: Counter[str] = field(default_factory=Counter)


@dataclass
class Check:
    """Something that must not be; with some that are so all the same."""

    name: str
    wrong: list[str] = field(default_factory=list)


@dataclass
class Count:
    """What was found."""

    tallies: list[Tally]
    reasons: Counter[tuple[str, str]]
    checks: list[Check]

    @property
    def total(self) -> Tally:
        """All organizations together."""
        total = Tally("total")
        for tally in self.tallies:
            total.fates += tally.fates
            total.texted += tally.texted
            total.credits += tally.credits
        return total


def count(plan: Plan, diary: Diary, ids: Sequence[UUID], evidence: Evidence, grace: timedelta) -> Count:
    """Lay everything side by side. `grace`: how long after a no a text that was already claimed may still leave."""
    counting = _Counting(plan, diary, ids, evidence, grace)
    for cart in plan.carts:
        counting.cart(cart)
    for organization in plan.organizations:
        counting.account(organization.number)
    counting.strays()
    return Count(counting.tallies, counting.reasons, list(counting.checks.values()))


class _Counting:
    def __init__(self, plan: Plan, diary: Diary, ids: Sequence[UUID], evidence: Evidence, grace: timedelta) -> None:
        self._plan, self._diary, self._ids, self._evidence, self._grace = plan, diary, ids, evidence, grace
        self.tallies = [Tally(f"{each.number} {each.purse}") for each in plan.organizations]
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.checks: dict[str, Check] = {name: Check(name) for name in CHECKS}

    def cart(self, cart: Cart) -> None:
        """One cart: its fate, its texts, and whether both sides say the same."""
        row = self._evidence.carts.get(cart.external_id)
        texts = self._evidence.texts.get(cart.phone, [])
        fate, reason = fate_of(row)
        tally = self.tallies[cart.organization]
        tally.fates[fate] += 1
        self.reasons[fate, reason or ""] += 1
        tally.texted.update({"once": len(texts) == 1, "twice": len(texts) > 1})
        tally.credits["at the carrier"] += sum(_price(cart, text) for text in texts)
        if fate in REFUNDED:
            tally.credits["came back"] += sum(_price(cart, text) for text in texts if text.outcome == fate)
        for name in self._wrongs(cart, row, texts, fate, reason):
            self.checks[name].wrong.append(f"{cart.external_id}: {fate} ({reason}), {len(texts)} at the carrier")

    def account(self, organization: int) -> None:
        """One organization's credits: what there must be, and what there is."""
        tally, account = self.tallies[organization], self._evidence.accounts[self._ids[organization]]
        put_in = self._diary.put_in[organization] + REFILL_CREDITS
        expected = put_in - tally.credits["at the carrier"] + tally.credits["came back"]
        tally.credits.update({"put in": put_in} | vars(account) | {"off": abs(account.balance - expected)})
        wrong = {
            "credits missing or doubled": account.balance != expected
            or account.added + account.refilled != put_in
            or account.spent != tally.credits["at the carrier"]
            or account.refunded != tally.credits["came back"],
            "organizations below zero": min(account.balance, account.lowest) < 0,
            "balances that are not their ledger's sum": account.balance != account.ledger,
            "reservations open": account.open_reservations > 0,
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                self.checks[name].wrong.append(f"organization {tally.name}: expected {expected}, {account}")

    def strays(self) -> None:
        """Texts to phones that nobody left."""
        known = {cart.phone for cart in self._plan.carts}
        self.checks["texts at the carrier that no cart asked for"].wrong += self._evidence.texts.keys() - known

    def _wrongs(
        self, cart: Cart, row: CartRow | None, texts: Sequence[Text], fate: str, reason: str | None
    ) -> Iterator[str]:
        if len(texts) > 1:
            yield "carts texted twice"
        if fate == NOT_ENDED:
            yield "messages lost (no end)"
        if fate in WITH_REASON and not reason:
            yield "ended without a reason"
        if fate in TEXTED and (not texts or row is None or row.carrier_sid != texts[0].sid):
            yield "said to be texted, and the carrier knows nothing of it"
        if texts and fate not in TEXTED:
            yield "texted, and not said so"
        if texts and fate in TEXTED - {"no receipt"} and texts[0].outcome != fate:
            yield "another outcome than the carrier's"
        if fate == "no receipt" and any(text.told & {"delivered", "undelivered", "failed"} for text in texts):
            yield "receipts answered 2xx and lost"
        if self._is_lost(cart, row):
            yield "carts and acts answered 2xx and lost"
        no_at = self._diary.said_no.get(cart.number)
        if no_at and any(text.at > no_at + self._grace for text in texts):
            yield "texted after a no"
        if no_at and cart.act in NOES_AT_ONCE and row and row.attempted_at and row.attempted_at > no_at:
            yield "claimed after a no was answered"

    def _is_lost(self, cart: Cart, row: CartRow | None) -> bool:
        """Whether anything that was answered with 2xx about this cart is not there."""
        if row is None:
            return cart.number in self._diary.carts_api | self._diary.carts_bulk
        acts = {act for act, carts in self._diary.acts.items() if cart.number in carts}
        return (
            not row.consented
            or (Act.BUY in acts and (row.cart, row.order_id) != ("completed", f"order-{cart.number}"))
            or (Act.WITHDRAW in acts and row.consent != "withdrawn")
            or (Act.STOP in acts and row.suppression not in ("stop", "carrier_opt_out"))
        )


CHECKS = (
    "carts texted twice",
    "texts at the carrier that no cart asked for",
    "messages lost (no end)",
    "ended without a reason",
    "said to be texted, and the carrier knows nothing of it",
    "texted, and not said so",
    "another outcome than the carrier's",
    "texted after a no",
    "claimed after a no was answered",
    "carts and acts answered 2xx and lost",
    "receipts answered 2xx and lost",
    "credits missing or doubled",
    "organizations below zero",
    "balances that are not their ledger's sum",
    "reservations open",
)


def fate_of(row: CartRow | None) -> tuple[str, str | None]:
    """What became of a cart's text, and why, in the table's words."""
    if row is None:
        return NOT_ENDED, "no such cart"
    if row.text is not None:
        return FATES.get(row.text, NOT_ENDED), row.reason or (row.text if row.text not in FATES else None)
    if row.refusal:
        return "not scheduled", row.refusal
    if row.cart == "completed":
        return "not scheduled", "bought before"
    return NOT_ENDED, f"{row.cart}, never asked"


def _price(cart: Cart, text: Text) -> int:
    return text.segments * COUNTRIES[cart.country][2]
