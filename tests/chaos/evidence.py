"""What there is to count: what the carrier wrote down for itself, and what the database says.

The carrier's journal is read here line by line and not through any code of Cartwake's; only how many segments
a text has, and so what it costs, is the carrier's own count (it shares none of Cartwake's code for that).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from cartwake.carriers.sandbox.encoding import segments

OUTCOMES = frozenset({"delivered", "undelivered", "failed", "unsubscribed"})

CARTS = """
SELECT s.external_id, s.state AS cart, s.refusal, s.order_id, s.consented_phone IS NOT NULL AS consented,
       c.state AS consent, c.suppression_reason AS suppression, m.state AS text, m.reason, m.carrier_sid, m.attempted_at
FROM checkout_sessions s
LEFT JOIN consent_states c USING (organization_id, shop_id, phone_hash)
LEFT JOIN sms_messages m USING (organization_id, shop_id, session_id)
"""
ACCOUNTS = """
SELECT b.organization_id, b.available_credits AS balance, sum(l.credits)::bigint AS ledger,
  min(l.balance_after)::bigint AS lowest,
  COALESCE(sum(l.credits) FILTER (WHERE l.entry_type = 'ADJUSTMENT'), 0)::bigint AS added,
  COALESCE(sum(l.credits) FILTER (WHERE l.entry_type = 'TIER_REFILL'), 0)::bigint AS refilled,
  COALESCE(-sum(l.credits) FILTER (WHERE l.entry_type IN ('SEND_RESERVE', 'SEND_REFUND')), 0)::bigint AS spent,
  COALESCE(sum(l.credits) FILTER (WHERE l.entry_type = 'DELIVERY_REFUND'), 0)::bigint AS refunded,
  (SELECT count(*) FROM sms_credit_reservations r
   WHERE r.organization_id = b.organization_id AND r.state = 'reserved') AS open_reservations
FROM org_sms_credit_balances b JOIN org_sms_credit_ledger l USING (organization_id, account)
GROUP BY b.organization_id, b.available_credits
"""


@dataclass
class Text:
    """A text that the carrier took."""

    sid: str
    to: str
    segments: int
    at: datetime
    outcome: str | None = None
    told: set[str] = field(default_factory=set)  # the outcomes that our web answered with 2xx


@dataclass(frozen=True)
class CartRow:
    """A cart as the database has it at the end."""

    cart: str
    refusal: str | None
    order_id: str | None
    consented: bool
    consent: str | None
    suppression: str | None
    text: str | None
    reason: str | None
    carrier_sid: str | None
    attempted_at: datetime | None = None  # when the text was claimed last


@dataclass(frozen=True)
class Account:
    """An organization's credits, summed over its ledger."""

    balance: int
    ledger: int
    lowest: int
    added: int
    refilled: int
    spent: int
    refunded: int
    open_reservations: int


@dataclass(frozen=True)
class Evidence:
    """Both sides."""

    texts: dict[str, list[Text]]  # by phone
    carts: dict[str, CartRow]  # by the storefront's id
    accounts: dict[UUID, Account]


def gather(journal: Path, url: str) -> Evidence:
    """Read both."""
    with psycopg.connect(url, row_factory=dict_row) as conn:
        carts = {found.pop("external_id"): CartRow(**found) for found in conn.execute(CARTS)}
        accounts = {found.pop("organization_id"): Account(**found) for found in conn.execute(ACCOUNTS)}
    return Evidence(read_journal(journal), carts, accounts)


def read_journal(journal: Path) -> dict[str, list[Text]]:
    """The texts to each phone, with what became of them."""
    by_sid: dict[str, Text] = {}
    for line in journal.read_text().splitlines():
        ((kind, facts),) = json.loads(line).items()
        if kind == "text" and not facts["inbound"]:
            by_sid[facts["sid"]] = _text(facts)
        elif kind in ("status", "callback") and facts["status"] in OUTCOMES:
            text = by_sid[facts["sid"]]
            if kind == "status":
                text.outcome = facts["status"]
            elif 200 <= (facts["http_status"] or 0) < 300:
                text.told.add(facts["status"])
    by_phone: defaultdict[str, list[Text]] = defaultdict(list)
    for text in by_sid.values():
        by_phone[text.to].append(text)
    return dict(by_phone)


def _text(facts: dict[str, Any]) -> Text:
    at = datetime.fromisoformat(facts["created_at"].replace("Z", "+00:00"))
    return Text(facts["sid"], facts["to"], segments(facts["body"]), at)
