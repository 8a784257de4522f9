"""Looks at the database and compares it with what the witness knows: after every commit, and at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import DictRow, dict_row

from cartwake.invariants import broken_invariants, broken_proofs
from cartwake.kit.db import Connection
from simulation.acts import Cart, Merchant
from simulation.carrier import Taken
from simulation.chaos import CLOCK_WRONG_MAX_S
from simulation.stage import Stage
from simulation.story import Broken
from simulation.windows import first_opening
from simulation.witness import NOT_MINE, STALE_AFTER, STARTED, SUPPRESSED, TOLERANCE, WITHDRAWN

TAKEN_STATES = frozenset({"accepted", "sent", "delivered", "undelivered", "failed", "delivery_unknown"})
UNTAKEN_STATES = frozenset({"scheduled", "held", "dropped", "rejected", "not_accepted"})
ENDED = TAKEN_STATES - {"accepted", "sent"} | {"dropped", "rejected", "not_accepted", "unresolved"}
FAILED = ("undelivered", "failed")
CYCLE_S = 300
DEAREST_TEXT = 3 * 3 * 3  # segments, multiplier, and room

MESSAGES = """
SELECT m.message_id, m.shop_id, s.external_id, m.state, m.reason, m.attempt_id, m.carrier_sid, m.phone_hash, m.ended_at
FROM sms_messages m JOIN checkout_sessions s USING (organization_id, shop_id, session_id)
"""
BALANCES = """
SELECT b.organization_id, b.available_credits AS available, (
  SELECT COALESCE(sum(r.credits), 0)::bigint FROM sms_credit_reservations r
  WHERE r.organization_id = b.organization_id AND r.state = 'reserved'
) AS reserved
FROM org_sms_credit_balances b
"""
LEFT_OPEN = """
SELECT 'reservation' AS kind, reservation_id::text AS id FROM sms_credit_reservations WHERE state = 'reserved'
UNION ALL SELECT 'carrier event', event_id::text FROM carrier_events WHERE processed_at IS NULL
UNION ALL SELECT 'awaits sealing', event_id::text FROM consent_unsealed
UNION ALL SELECT 'set aside', event_id::text FROM carrier_events WHERE outcome IN ('unreadable', 'failed')
"""
SESSIONS = "SELECT shop_id, external_id, state, refusal, scan_at, consented_phone, updated_at FROM checkout_sessions"
CONSENTS = "SELECT shop_id, phone_hash, state, suppression_reason FROM consent_states"


class Audit:
    """Raises `Broken`."""

    def __init__(self, stage: Stage, conn: Connection) -> None:
        """`conn`: a connection of its own, in autocommit, that may read everything."""
        self._stage = stage
        self._witness = stage.witness
        self._conn = conn
        self._server = psycopg.connect(stage.database_url, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self._server.close()

    # --- after every commit ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Every invariant, and every message and balance against the witness."""
        director = self._stage.director
        for broken in director.run(broken_invariants(self._conn, director.now())):
            raise Broken(f"invariant {broken.name}", str(broken.rows), _ids(broken.rows))
        messages = self._rows(MESSAGES)
        for message in messages:
            self._compare(message)
        self._compare_credits(messages)
        self._compare_cycles()

    def _compare(self, message: DictRow) -> None:
        """What the message says of itself, and what the carrier knows of it."""
        taken, state = self._witness.taken_by.get(message["message_id"]), message["state"]
        if state in UNTAKEN_STATES and taken is not None:
            raise Broken("the carrier's record agrees", f"{state}, but taken as {taken.sid}", _ids([message]))
        if state not in TAKEN_STATES:
            return
        if taken is None or taken.text.attempt_id != message["attempt_id"] or taken.sid != message["carrier_sid"]:
            raise Broken("the carrier's record agrees", f"{state}, but taken: {taken}", _ids([message]))
        if state in ("delivered", *FAILED) and taken.status != state:
            raise Broken("the carrier's record agrees", f"{state}, but it is {taken.status}", _ids([message]))

    def _compare_credits(self, messages: list[DictRow]) -> None:
        """Everybody has exactly what the books say."""
        claims = self._witness.claims
        texts = (
            (self._witness.shops[message["shop_id"]].merchant, message["state"], claims[message["attempt_id"]].credits)
            for message in messages
            if message["attempt_id"] in claims
        )
        found = {row["organization_id"]: (row["available"], row["reserved"]) for row in self._rows(BALANCES)}
        self._witness.books.compare(self._witness.merchants, texts, found)

    def _compare_cycles(self) -> None:
        """No shop had more texts claimed in a cycle than its cap: while all agree on the cycle, if clocks are wrong."""
        wrong_s = CLOCK_WRONG_MAX_S if "clock_step" in self._stage.director.chaos.plan.faults else 0.0
        counts: defaultdict[tuple[UUID, float], int] = defaultdict(int)
        for claim in self._witness.claims.values():
            shop = self._witness.cart_of(claim.message_id).shop
            cycle, second = divmod(claim.began_at.timestamp(), CYCLE_S)
            counts[shop.shop_id, cycle] += wrong_s <= second <= CYCLE_S - wrong_s
        for (shop_id, _), count in counts.items():
            if count > self._witness.shops[shop_id].cycle_cap:
                raise Broken("a shop keeps its cap", f"{count} texts in a cycle", [shop_id])

    # --- at the end --------------------------------------------------------------------------------------------

    def conclude(self, calm_since: int) -> None:
        """Nothing goes wrong any more and nothing is due: everything must have ended, and rightly.

        `calm_since`: the step at which the last hour began.
        """
        self.look()
        self._witness.books.conclude(self._witness.merchants, calm_since)
        for broken in self._stage.director.run(broken_proofs(self._conn, self._stage.vault)):
            raise Broken(f"invariant {broken.name}", str(broken.rows), _ids(broken.rows))
        if left := self._rows(LEFT_OPEN):
            raise Broken("everything ends", str(left), [row["id"] for row in left])
        messages = self._rows(MESSAGES)
        for message in messages:
            self._conclude_message(message)
        self._conclude_balances(messages)
        self._conclude_carts({(message["shop_id"], message["external_id"]) for message in messages})
        self._conclude_consents()

    def _conclude_message(self, message: DictRow) -> None:
        state = message["state"]
        if state not in ENDED:
            raise Broken("every message ends", f"{state}, {message['reason']}", _ids([message]))
        taken = self._witness.taken_by.get(message["message_id"])
        final = [status for status in taken.told if status in ("delivered", *FAILED)] if taken else []
        if final and state not in (*final, "unresolved"):
            raise Broken("receipts are heeded", f"{state}, but the web was told {final}", _ids([message]))
        if state == "delivery_unknown" and "cannot_ask" not in self._stage.director.chaos.plan.faults:
            raise Broken("the carrier is asked before anybody gives up", f"{state}: {taken}", _ids([message]))
        if state == "unresolved" and "cannot_ask" not in self._stage.director.chaos.plan.faults:
            raise Broken("the carrier could be asked", "unresolved", _ids([message]))
        if state == "dropped" and not self._is_justified(message):
            cart = self._witness.carts[message["shop_id"], message["external_id"]]
            raise Broken("nothing is dropped without a reason", f"{message['reason']}: {cart}", _ids([message]))

    def _conclude_balances(self, messages: list[DictRow]) -> None:
        """To the credit, once more by the carrier's own record: what was put in, less its texts that nobody refunds."""
        unpaid = {m["message_id"] for m in messages if m["state"] in (*FAILED, "unresolved")}
        found = {row["organization_id"]: row["available"] for row in self._rows(BALANCES)}
        for merchant in self._witness.merchants:
            spent = sum(self._witness.price(t) for m, t in self._taken_for(merchant) if m not in unpaid)
            expected = self._witness.books.put_in(merchant) - spent
            if found.get(merchant.organization_id, 0) != expected:
                what = f"{found.get(merchant.organization_id)} credits, {expected} expected"
                raise Broken("credits add up", what, [merchant.organization_id])

    def _conclude_carts(self, texted: set[tuple[UUID, str]]) -> None:
        """Whoever agreed has a message, or a reason that the witness understands."""
        for session in self._rows(SESSIONS):
            cart = self._witness.carts[session["shop_id"], session["external_id"]]
            agreed = any(act.kind == "left" and act.answered is not None for act in cart.acts)
            if not agreed or session["state"] == "completed" or (cart.shop.shop_id, cart.external_id) in texted:
                continue
            ids = [cart.external_id]
            if session["refusal"] is None and session["state"] != "expired":
                raise Broken("no cart is forgotten", str(session), ids)
            if session["refusal"] and not self._explains(session["refusal"], cart, session["updated_at"]):
                raise Broken("nothing is refused without a reason", str(session["refusal"]), ids)

    def _conclude_consents(self) -> None:
        """Whoever took consent back, and did not give it again, is not asked to again."""
        found = {(row["shop_id"], row["phone_hash"]): row for row in self._rows(CONSENTS)}
        for key, acts in self._witness.consents.items():
            for act in acts:
                undone = any(each.kind in ("granted", STARTED) and each.may_follow(act) for each in acts)
                if act.kind == WITHDRAWN and act.answered and not undone and found[key]["state"] != "withdrawn":
                    raise Broken("a withdrawal lasts", f"{act}", [key[0]])
        for cart, body, step in self._witness.said:
            acts = self._witness.consent_acts(cart.shop, cart.phone)
            started = any(each.kind == STARTED and each.began >= step for each in acts)
            key = cart.shop.shop_id, _hash_of(self._witness.phones, cart)
            if body != "START" and not started and found[key]["suppression_reason"] is None:
                raise Broken("STOP lasts", f"{cart.phone} said {body!r} at step {step}", [cart.external_id])

    # --- reasons -------------------------------------------------------------------------------------------------

    def _is_justified(self, message: DictRow) -> bool:
        cart = self._witness.carts[message["shop_id"], message["external_id"]]
        if message["reason"] == "recipient_cap":
            others = [c for c in self._witness.claims.values() if c.message_id != message["message_id"]]
            mine = _hash_of(self._witness.phones, cart)
            return any(
                claim.phone_hash == mine and abs(claim.began_at - message["ended_at"]) < timedelta(days=1, minutes=10)
                for claim in others
            )
        return self._explains(message["reason"], cart, message["ended_at"])

    def _explains(self, reason: str, cart: Cart, at: datetime) -> bool:
        """Whether what people did makes this reason possible."""
        kinds = {act.kind for act in cart.acts if not act.refused}
        said = {act.kind for act in self._witness.consent_acts(cart.shop, cart.phone)}
        switched = {act.kind for act in cart.shop.acts}
        plans = {act.kind for act in cart.shop.merchant.acts}
        withdrawn = bool(said & {WITHDRAWN, SUPPRESSED} or "unticked" in kinds)
        rules: dict[str, bool] = {
            "completed": "completed" in kinds,
            "stale": any(at >= act.began_at + STALE_AFTER - TOLERANCE for act in cart.acts),
            "sms_disabled": "disabled" in switched,
            "plan": "FREE" in plans,
            "suppressed": SUPPRESSED in said or self._is_not_mine(cart),
            "no_consent_for_this_phone": withdrawn,
            "consent_withdrawn": withdrawn,
            "no_consent": withdrawn or self._is_not_mine(cart),
            "insufficient_credits": self._was_poor(cart.shop.merchant),
            "no_common_window": first_opening(at, cart.whereabouts, cart.shop.opens, cart.shop.closes) is None,
        }
        return rules.get(reason, False)

    def _is_not_mine(self, cart: Cart) -> bool:
        mine = _hash_of(self._witness.phones, cart)
        every = [act for (_, phone), acts in self._witness.consents.items() if phone == mine for act in acts]
        return any(act.kind == NOT_MINE for act in every)

    def _was_poor(self, merchant: Merchant) -> bool:
        return self._witness.books.lowest[merchant] < DEAREST_TEXT

    # --- looking things up ---------------------------------------------------------------------------------------

    def _taken_for(self, merchant: Merchant) -> Iterable[tuple[UUID, Taken]]:
        for message_id, taken in self._witness.taken_by.items():
            if self._witness.cart_of(message_id).shop.merchant is merchant:
                yield message_id, taken

    def _rows(self, query: Any) -> list[DictRow]:
        return self._server.execute(query).fetchall()


def _ids(rows: Iterable[dict[str, Any]]) -> list[object]:
    """What some rows are about, at its closest: messages rather than shops, if it is messages."""
    close = [row[name] for row in rows for name in ("message_id", "attempt_id", "external_id") if row.get(name)]
    return close or [value for row in rows for name, value in row.items() if name.endswith("_id")]


def _hash_of(phones: dict[bytes, Any], cart: Cart) -> bytes:
    return next(phone_hash for phone_hash, phone in phones.items() if phone == cart.phone)
