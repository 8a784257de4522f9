"""The count finds what it is there to find: each wrong, put into evidence that was right, is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from chaos.count import CHECKS, REFILL_CREDITS, count
from chaos.evidence import Account, CartRow, Evidence, Text
from chaos.plan import Act, Cart, Organization, Plan, Purse, Size, Way
from chaos.storefronts import Diary

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
ORGANIZATION = UUID(int=1)
PUT_IN = 10
DELIVERED, UNDELIVERED, BOUGHT = "cart-0", "cart-1", "cart-2"
PHONES = {DELIVERED: "+37060000000", UNDELIVERED: "+37060000001", BOUGHT: "+37060000002"}
ROW = CartRow("abandoned", None, None, True, "granted", None, "delivered", None, "SM0")
NO_RECEIPT: dict[str, Any] = {"text": "delivery_unknown", "reason": "no_receipt"}


class Scene:
    """Three carts of one organization, and nothing wrong: one delivered, one refunded, one bought and so dropped."""

    def __init__(self) -> None:
        carts = [
            Cart(number, 0, 0, Way.API, "LT", "lt", 0.0, act, timedelta(), "delivered", None)
            for number, act in enumerate((None, None, Act.BUY))
        ]
        size = Size(messages=3, kills=0, seed=1, every_s=1, speed=1)
        self.plan = Plan(size, [Organization(0, Purse.RICH, PUT_IN, ())], carts)
        self.diary = Diary(carts_api={0, 1, 2}, said_no={2: AT})
        self.diary.acts[Act.BUY] = {2}
        self.diary.put_in[0] = PUT_IN
        self.texts = {
            PHONES[DELIVERED]: [Text("SM0", PHONES[DELIVERED], 1, AT, "delivered", {"delivered"})],
            PHONES[UNDELIVERED]: [Text("SM1", PHONES[UNDELIVERED], 2, AT, "undelivered", {"undelivered"})],
        }
        self.rows = {
            DELIVERED: ROW,
            UNDELIVERED: replace(ROW, text="undelivered", reason="carrier_recipient_soft", carrier_sid="SM1"),
            BOUGHT: replace(
                ROW, cart="completed", order_id="order-2", text="dropped", reason="completed", carrier_sid=None
            ),
        }
        left = PUT_IN + REFILL_CREDITS - 1
        self.account = Account(left, left, 0, PUT_IN, REFILL_CREDITS, 3, 2, 0)

    def wrongs(self) -> set[str]:
        evidence = Evidence(self.texts, self.rows, {ORGANIZATION: self.account})
        counted = count(self.plan, self.diary, [ORGANIZATION], evidence, timedelta(minutes=1))
        return {check.name for check in counted.checks if check.wrong}

    def row(self, cart: str, **facts: Any) -> None:
        self.rows[cart] = replace(self.rows[cart], **facts)

    def money(self, **facts: int) -> None:
        self.account = replace(self.account, **facts)

    def text(self, cart: str, sid: str, at: datetime = AT) -> None:
        self.texts.setdefault(PHONES[cart], []).append(Text(sid, PHONES[cart], 1, at, "delivered", {"delivered"}))

    def stray(self) -> None:
        self.texts["+37069999999"] = [Text("SM9", "+37069999999", 1, AT)]


WRONGS: dict[str, Callable[[Scene], object]] = {
    "carts texted twice": lambda s: s.text(DELIVERED, "SM9"),
    "texts at the carrier that no cart asked for": lambda s: s.stray(),
    "messages lost (no end)": lambda s: s.row(BOUGHT, text="sending"),
    "ended without a reason": lambda s: s.row(BOUGHT, reason=None),
    "said to be texted, and the carrier knows nothing of it": lambda s: s.texts.pop(PHONES[DELIVERED]),
    "texted, and not said so": lambda s: s.row(DELIVERED, text="not_accepted", reason="absent_at_carrier"),
    "another outcome than the carrier's": lambda s: s.row(DELIVERED, text="failed"),
    "texted after a no": lambda s: s.text(BOUGHT, "SM9", AT + timedelta(minutes=2)),
    "claimed after a no was answered": lambda s: s.row(BOUGHT, attempted_at=AT + timedelta(seconds=1)),
    "carts and acts answered 2xx and lost": lambda s: s.row(BOUGHT, order_id=None),
    "receipts answered 2xx and lost": lambda s: s.row(DELIVERED, **NO_RECEIPT),
    "credits missing or doubled": lambda s: s.money(balance=108, ledger=108),
    "organizations below zero": lambda s: s.money(lowest=-1),
    "balances that are not their ledger's sum": lambda s: s.money(ledger=108),
    "reservations open": lambda s: s.money(open_reservations=1),
}


def test_nothing_is_wrong_to_begin_with() -> None:
    assert Scene().wrongs() == set()


def test_every_check_is_tried() -> None:
    assert set(WRONGS) == set(CHECKS)


@pytest.mark.parametrize("wrong", WRONGS)
def test_a_wrong_is_named(wrong: str) -> None:
    scene = Scene()
    WRONGS[wrong](scene)
    assert wrong in scene.wrongs()


def test_a_cart_that_vanished_is_lost() -> None:
    scene = Scene()
    del scene.rows[BOUGHT]
    assert {"messages lost (no end)", "carts and acts answered 2xx and lost"} <= scene.wrongs()


def test_a_refund_that_was_forgotten_is_a_credit_missing() -> None:
    scene = Scene()
    scene.money(balance=PUT_IN + REFILL_CREDITS - 3, ledger=PUT_IN + REFILL_CREDITS - 3, refunded=0)
    assert "credits missing or doubled" in scene.wrongs()
