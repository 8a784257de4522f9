"""What should be true, reckoned from what people did and what the carrier took, with no help from the product.

Two numbers tell before from after: the step at which an act was answered, and the steps at which a claim began
and committed. What the product reads under lock (consent, the cart) must be heeded by every claim that commits
later; what it reads without (switches, plans) by every claim that begins later.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.carriers.protocol import OutboundText
from cartwake.carriers.sandbox.encoding import segments
from cartwake.consent.model import Action
from cartwake.consent.store import CHANGES, INSERT_EVENTS
from cartwake.jobs import periodic
from cartwake.kit.crypto import Vault
from cartwake.kit.phones import Phone, hash_phone
from cartwake.messages import store
from simulation.acts import Act, Cart, Merchant, Shop, undone_before
from simulation.books import REFILLS, Books
from simulation.carrier import Taken
from simulation.chaos import CLOCK_WRONG_MAX_S
from simulation.coverage import SAME_SHOP
from simulation.database import Transaction
from simulation.director import Director
from simulation.process import Process
from simulation.story import Broken
from simulation.windows import AREA_CODES, LOOK_EVERY, clock, clock_change, continent, first_opening, may_be_texted

STALE_AFTER = timedelta(hours=96)
# A call begins at most 30 s after its slot, which is at most 5 s after the claim.
CALL_WITHIN = timedelta(seconds=35)
# Two clocks may be wrong by so much in opposite directions.
TOLERANCE = timedelta(seconds=2 * CLOCK_WRONG_MAX_S)

SPREAD_MAX = timedelta(seconds=900)  # as merchants set it

# Credits per segment, as the article lists them.
PRICES = {
    **dict.fromkeys(("US", "CA", "LT", "LV", "EE"), 1),
    **dict.fromkeys(("GB", "IE", "PL", "FI", "SE", "NO", "DK", "NL", "BE", "IT", "ES", "PT"), 2),
    **dict.fromkeys(("DE", "FR", "AT", "CH", "AU", "NZ"), 3),
}

GRANTED, WITHDRAWN, SUPPRESSED, STARTED, NOT_MINE = "granted", "withdrawn", "suppressed", "started", "not my number"
# What certainly moves the last activity, and what may: news of a payment that is settled already is old news.
ACTIVITY = frozenset({"left", "back"})
PERHAPS_ACTIVITY = ACTIVITY | {"paying", "payment failed"}
# What may race with a claim, as the coverage calls it.
RACING = {
    "completed": "an order",
    "paying": "a payment",
    WITHDRAWN: "a withdrawal",
    "unticked": "an unticked box",
    SUPPRESSED: "a STOP",
}


@dataclass(frozen=True)
class Claim:
    """A message that a worker took, and when."""

    message_id: UUID
    phone_hash: bytes
    began: int
    looked: int  # when it had its shop's lock
    began_at: datetime
    decided_at: datetime  # when it had its locks, as it says itself
    committed: int
    worker: str
    credits: int  # what its text costs

    def was_met(self, look: Look) -> bool:
        """Whether another worker looked for due texts while the shop of this one was locked."""
        return look.worker != self.worker and self.looked < look.step < self.committed

    def overlaps(self, began: int, ended: int) -> bool:
        """Whether something that lasted from step to step was under way while this was claimed."""
        return began <= self.committed and ended >= self.began


@dataclass(frozen=True)
class Look:
    """A worker looked for shops that have something due."""

    worker: str
    step: int


@dataclass(frozen=True)
class Held:
    """A message that waits for an opening."""

    since: datetime
    until: datetime


class Witness:
    """Sees every act, every commit and everything that reaches the carrier; raises `Broken`."""

    def __init__(self, director: Director, vault: Vault) -> None:
        self.books = Books(director)
        self.merchants: list[Merchant] = []
        self.shops: dict[UUID, Shop] = {}
        self.carts: dict[tuple[UUID, str], Cart] = {}
        self.deployment: list[Act] = []  # kill switches
        self.consents: defaultdict[tuple[UUID, bytes], list[Act]] = defaultdict(list)  # by shop and phone
        self.claims: dict[UUID, Claim] = {}  # by attempt
        self.handed: dict[UUID, list[UUID]] = {}  # attempts of each message, as they were handed over
        self.denied: set[UUID] = set()  # attempts that the carrier certainly did not take
        self.unreachable: set[str] = set()  # phones that the carrier refused or could not find
        self.taken_by: dict[UUID, Taken] = {}  # by message
        self.texts_to: defaultdict[str, list[Taken]] = defaultdict(list)  # by phone
        self.phones: dict[bytes, Phone] = {}
        self.said: list[tuple[Cart, str, int]] = []  # texts that our web has answered, and the steps they began at
        self.held: dict[UUID, Held] = {}  # by message
        self.proved_at: dict[tuple[UUID, bytes], datetime] = {}  # the last consent event, by shop and phone
        self._looks: list[Look] = []
        self._director = director
        self._vault = vault
        self._clocks_are_right = "clock_step" not in director.chaos.plan.faults  # else they tell no order
        self._cart_of: dict[UUID, Cart] = {}

    # --- acts -----------------------------------------------------------------------------------------

    def act(self, acts: list[Act], kind: str, amount: int = 0) -> Act:
        """Somebody begins to do something."""
        act = Act(kind, self._director.step_number, self._director.now(), amount)
        acts.append(act)
        return act

    def answered(self, acts: list[Act]) -> None:
        """They are done: somebody said so."""
        for act in acts:
            act.answered, act.answered_at = self._director.step_number, self._director.now()

    def consent_acts(self, shop: Shop, phone: Phone) -> list[Act]:
        """What was said about one phone at one shop."""
        phone_hash = hash_phone(self._vault, phone.e164)
        self.phones[phone_hash] = phone
        return self.consents[shop.shop_id, phone_hash]

    # --- what the database commits ------------------------------------------------------------------------

    def committed(self, transaction: Transaction) -> None:
        """Note the looks, claims and suppressions of a transaction."""
        if transaction.looked is not None:
            self._cover_look(Look(transaction.process.name, transaction.looked))
        for query, params in transaction.statements:
            if query is store.BEGIN_SENDING:
                self._note_claims(transaction, params)
            elif query is store.HOLD_OR_DROP:
                self._note_holds(params)
            elif query is periodic.CLAIM and params["name"] == REFILLS and transaction.wrote:
                self.books.begun()
            elif query is INSERT_EVENTS:
                self._note_proof(params)
            elif query is store.MOVE:
                self._note_answers(transaction.process, params["messages"])
            elif query is CHANGES[Action.SUPPRESSED]:
                for shop_id, phone_hash in zip(params["shops"], params["phones"], strict=True):
                    self.answered([self.act(self.consents[shop_id, phone_hash], SUPPRESSED)])
                    self._cover_stop(transaction, phone_hash)

    def _note_claims(self, transaction: Transaction, params: dict[str, Any]) -> None:
        decided_at, now = params["now"], self._director.now()
        if not transaction.began_at - TOLERANCE <= decided_at <= now + TOLERANCE:
            raise Broken("a claim says when it was made", f"{decided_at}, not {transaction.began_at} to {now}")
        columns = (params["attempts"], params["messages"], params["phones"], params["bodies"])
        for attempt_id, message_id, phone, body in zip(*columns, strict=True):
            self.claims[attempt_id] = claim = Claim(
                message_id,
                phone,
                transaction.began_step,
                transaction.looked or transaction.began_step,
                transaction.began_at,
                decided_at,
                self._director.step_number,
                transaction.process.name,
                _price(self._vault.open(body, "text").decode(), self.cart_of(message_id)),
            )
            self._cover_claim(claim)
            transaction.process.in_hand[attempt_id] = "between claim and call"
            proved_at = self.proved_at.get((self.cart_of(message_id).shop.shop_id, phone))
            if self._clocks_are_right and (proved_at is None or decided_at <= proved_at):
                raise Broken("the proof is in order", f"claimed at {decided_at}, after {proved_at}", [message_id])

    def _note_holds(self, params: dict[str, Any]) -> None:
        """Messages wait for an opening: for the first one that there is, by the clock of whoever decided it."""
        now = params["now"]
        for message_id, reason, until in zip(params["messages"], params["reasons"], params["untils"], strict=True):
            if reason != "quiet_hours":
                self.held.pop(message_id, None)
                continue
            held = self.held.setdefault(message_id, Held(now, until))
            self.held[message_id] = Held(held.since, until)
            cart = self.cart_of(message_id)
            first = first_opening(now, cart.whereabouts, cart.shop.opens, cart.shop.closes)
            if first is None or not first - TOLERANCE <= until <= first + SPREAD_MAX + LOOK_EVERY + TOLERANCE:
                raise Broken("a text waits for the next opening", f"{cart}: {until}, not {first}", [message_id])

    def _note_proof(self, params: dict[str, Any]) -> None:
        """Consent changed: later than it did before, as the proof says, for this is the order of the commits."""
        for shop_id, phone_hash, at in zip(params["shops"], params["phones"], params["ats"], strict=True):
            last = self.proved_at.get((shop_id, phone_hash))
            if last is not None and at <= last:
                raise Broken("the proof is in order", f"{params['action']} at {at}, after {last}", [shop_id])
            self.proved_at[shop_id, phone_hash] = at
            claims = [claim for claim in self.claims.values() if claim.phone_hash == phone_hash]
            mine = [claim.decided_at for claim in claims if self.cart_of(claim.message_id).shop.shop_id == shop_id]
            if self._clocks_are_right and mine and at <= max(mine):
                raise Broken("the proof is in order", f"{params['action']} at {at}, after {max(mine)}", [shop_id])

    def _note_answers(self, process: Process, message_ids: list[UUID]) -> None:
        """What a worker has recorded is in its hands no more."""
        for attempt_id in list(process.in_hand):
            if self.claims[attempt_id].message_id in message_ids:
                del process.in_hand[attempt_id]

    # --- what reaches the carrier -------------------------------------------------------------------------

    def handed_over(self, text: OutboundText) -> None:
        """A worker hands a text over: was it allowed to?"""
        now = self._director.now()
        self._director.tell("carrier", f"is handed {text.attempt_id}", [text.attempt_id])
        claim = self.claims.get(text.attempt_id)
        if claim is None:
            raise Broken("nothing is sent before its claim is committed", str(text.attempt_id), [text.attempt_id])
        ids = [text.attempt_id, claim.message_id]
        earlier = self.handed.setdefault(claim.message_id, [])
        if any(attempt not in self.denied for attempt in earlier):
            raise Broken("nothing is resent unless the carrier refused it", f"{earlier}", [*ids, *earlier])
        earlier.append(text.attempt_id)
        cart = self.cart_of(claim.message_id)
        if cart.phone.e164 != text.to:
            raise Broken("a text goes to the cart's phone", f"{cart.external_id}", ids)
        for why in (self._unwanted(claim, cart), self._switched_off(claim, cart), self._untimely(claim, cart, now)):
            if why is not None:
                raise Broken(why[0], f"{cart.external_id}: {why[1]}", ids)

    def refused(self, text: OutboundText, code: int | None) -> None:
        """The carrier did not take it, and said so."""
        self._director.tell("carrier", f"refuses {text.attempt_id} ({code or 'later'})", [text.attempt_id])
        self.denied.add(text.attempt_id)
        if code is not None:
            self.unreachable.add(text.to)

    def taken(self, taken: Taken) -> None:
        """The carrier took a text: once for its message, once a day for its phone."""
        text = taken.text
        self._director.tell("carrier", f"takes {text.attempt_id} as {taken.sid}", [text.attempt_id])
        message_id = self.claims[text.attempt_id].message_id
        if message_id in self.taken_by:
            raise Broken("no text is taken twice", f"{self.taken_by[message_id].sid}, {taken.sid}", [message_id])
        self.taken_by[message_id] = taken
        for other in self.texts_to[text.to]:
            if taken.handed_at - other.handed_at < timedelta(days=1) - CALL_WITHIN - TOLERANCE:
                both = [text.attempt_id, other.text.attempt_id]
                raise Broken("one text per phone and day", f"{other.handed_at} and {taken.handed_at}", both)
        self.texts_to[text.to].append(taken)
        self._cover(self.cart_of(message_id), self.held.pop(message_id, None))

    def delivered(self, taken: Taken) -> None:
        """A text reached its phone: at a time when it may?"""
        now = self._director.now()
        cart = self.cart_of(self.claims[taken.text.attempt_id].message_id)
        if not self.is_open(cart, now, early=TOLERANCE):
            raise Broken("no text is delivered at night", f"{cart.phone.country} {now}", [taken.text.attempt_id])

    def _cover_claim(self, claim: Claim) -> None:
        """What went on while a text was claimed."""
        cart, meetings = self.cart_of(claim.message_id), self._director.coverage.meetings
        for act in [*cart.acts, *self.consents[cart.shop.shop_id, claim.phone_hash]]:
            ended = act.began if act.answered is None else act.answered
            if act.kind in RACING and not act.refused and claim.overlaps(act.began, ended):
                meetings[RACING[act.kind]] += 1
        others = (other for other in self.claims.values() if other.worker != claim.worker)
        if any(claim.overlaps(other.began, other.committed) for other in others):
            meetings["another claim"] += 1
        if met := sum(claim.was_met(look) for look in self._looks):
            meetings[SAME_SHOP] += met

    def _cover_look(self, look: Look) -> None:
        """Whoever of the two commits later, a look and the claim that it met are counted once."""
        self._looks.append(look)
        met = sum(claim.was_met(look) for claim in self.claims.values())
        if met:
            self._director.coverage.meetings[SAME_SHOP] += met

    def _cover_stop(self, transaction: Transaction, phone_hash: bytes) -> None:
        """A STOP took effect; its transaction had begun before the claim of a text to that phone was done."""
        mine = (claim for claim in self.claims.values() if claim.phone_hash == phone_hash)
        if any(claim.overlaps(transaction.began_step, self._director.step_number) for claim in mine):
            self._director.coverage.meetings["a STOP"] += 1

    def _cover(self, cart: Cart, held: Held | None) -> None:
        """A text went out, and waited for its opening perhaps."""
        coverage, country = self._director.coverage, cart.phone.country
        coverage.texted[country] += 1
        if country in AREA_CODES:
            coverage.zones.update(f"{country} {zone}" for zone in AREA_CODES[country][cart.phone.e164[:5]])
        if held is None:
            return
        coverage.openings[country] += 1
        for zone in cart.whereabouts.zones:
            coverage.opened_at[f"{zone} {held.until.astimezone(clock(zone)):%a %H:%M}"] += 1
            if change := clock_change(zone, held.since, self._director.now()):
                coverage.clock_changes[f"{continent(zone)} {change}"] += 1

    # --- rules ----------------------------------------------------------------------------------------------

    def _unwanted(self, claim: Claim, cart: Cart) -> tuple[str, str] | None:
        """What the shopper said before the claim committed."""
        consents, everywhere = self.consents[cart.shop.shop_id, claim.phone_hash], self._not_mine(claim.phone_hash)
        agreed = frozenset({GRANTED, STARTED})
        wrongs = (
            ("no text without consent", consents, frozenset({WITHDRAWN}), agreed),
            ("no text after STOP", consents, frozenset({SUPPRESSED}), frozenset({STARTED})),
            ("no text to somebody else's number", everywhere, frozenset({NOT_MINE}), frozenset[str]()),
            ("no text when the box was unticked", cart.acts, frozenset({"unticked"}), frozenset({"left"})),
            ("no text for a completed cart", cart.acts, frozenset({"completed"}), frozenset[str]()),
        )
        for what, acts, no, yes in wrongs:
            if (act := undone_before(claim.committed, acts, no, yes)) is not None:
                return what, f"{act.kind} at step {act.answered}, claimed at {claim.began} to {claim.committed}"
        if not any(act.kind == "left" and not act.refused and act.began < claim.committed for act in cart.acts):
            return "no text without consent", "nobody ticked a box in this checkout"
        return self._paying(claim, cart)

    def _paying(self, claim: Claim, cart: Cart) -> tuple[str, str] | None:
        act = undone_before(claim.committed, cart.acts, frozenset({"paying"}), frozenset({"payment failed"}))
        if act is None:
            return None
        # The first of several that were told counts: the others change nothing.
        first = min(each.began_at for each in cart.acts if each.kind == "paying" and not each.refused)
        if claim.decided_at >= first + cart.shop.payment_timeout - TOLERANCE:
            return None
        return "no text while a payment is under way", f"paying at step {act.answered}, claimed at {claim.began}"

    def _switched_off(self, claim: Claim, cart: Cart) -> tuple[str, str] | None:
        """What merchant and operator had switched off before the claim began."""
        switches = (
            (cart.shop.acts, "disabled", "enabled"),
            (cart.shop.acts, "paused", "resumed"),
            (self.deployment, "paused", "resumed"),
            (cart.shop.merchant.acts, "FREE", "PRO"),
        )
        for acts, off, on in switches:
            if act := undone_before(claim.began, acts, frozenset({off}), frozenset({on}), claim.committed):
                return "no text while texts are off", f"{act.kind} at step {act.answered}, claimed at {claim.began}"
        return None

    def _untimely(self, claim: Claim, cart: Cart, now: datetime) -> tuple[str, str] | None:
        """Whether the text comes at a wrong time: too soon, too late, at night."""
        if now > claim.decided_at + CALL_WITHIN + TOLERANCE:
            return "no call begins long after its claim", f"claimed {claim.decided_at}, called {now}"
        seen = [act for act in cart.acts if act.kind in ACTIVITY and act.is_done_before(claim.committed)]
        last = max(act.began_at for act in seen) if seen else None
        if last is not None and claim.decided_at < last + cart.shop.text_delay - TOLERANCE:
            return "no text before the shopper has been away long enough", f"active {last}, claimed {claim.decided_at}"
        possible = [act.answered_at or now for act in cart.acts if act.kind in PERHAPS_ACTIVITY and not act.refused]
        if possible and claim.decided_at > max(possible) + STALE_AFTER + TOLERANCE:
            return "no text for a stale cart", f"active {max(possible)}, claimed {claim.decided_at}"
        if not self.is_open(cart, now, early=TOLERANCE):
            return "no text at night", f"{cart.phone.country} and {cart.country} at {now}"
        return None

    # --- looking things up ------------------------------------------------------------------------------------

    def is_open(self, cart: Cart, at: datetime, early: timedelta) -> bool:
        """Whether the recipient may be texted at `at`, or would be if clocks were wrong by no more than `early`."""
        return any(
            may_be_texted(at + wrong_by, cart.whereabouts, cart.shop.opens, cart.shop.closes)
            for wrong_by in (timedelta(0), early, -early)
        )

    def cart_of(self, message_id: UUID) -> Cart:
        """The cart that a message is about."""
        if message_id not in self._cart_of:
            found = self._director.server.conn.execute(
                "SELECT s.shop_id, s.external_id FROM sms_messages"
                " JOIN checkout_sessions s USING (organization_id, shop_id, session_id) WHERE message_id = %s",
                [message_id],
            ).fetchone()
            assert found is not None, "it was claimed, so it is there"
            self._cart_of[message_id] = self.carts[found[0], found[1]]
        return self._cart_of[message_id]

    def price(self, taken: Taken) -> int:
        """What a text costs."""
        return _price(taken.text.body, self.cart_of_attempt(taken.text.attempt_id))

    def cart_of_attempt(self, attempt_id: UUID) -> Cart:
        """The cart that an attempt was made for."""
        return self.cart_of(self.claims[attempt_id].message_id)

    def _not_mine(self, phone_hash: bytes) -> list[Act]:
        """ "Not my number" counts at every shop, wherever it was said."""
        acts = [act for (_, phone), acts in self.consents.items() if phone == phone_hash for act in acts]
        return sorted((act for act in acts if act.kind == NOT_MINE), key=lambda act: act.began)


def _price(body: str, cart: Cart) -> int:
    """Credits of a text to a cart's phone."""
    return segments(body) * PRICES[cart.phone.country]
