"""Who is there and what they will do: all of it decided by the seed, so that the count knows what to expect. Pure."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

# The merchants' own settings, shorter than the defaults, so that a text is due minutes after its cart.
IDLE = timedelta(minutes=10)
TEXT_DELAY = timedelta(minutes=15)

# Of each country: how many of 20 phones, its number without the last seven digits, and what a segment costs.
COUNTRIES = {"LT": (14, "+3706", 1), "FI": (3, "+35840", 2), "DE": (3, "+491511", 3)}
LOCALES = ("lt", "en", "de", "pl")
MORE_CARTS = 1.3  # not every cart becomes a message: some are bought first, some find no credits
CARTS_PER_ORGANIZATION = 900
SHOPS_PER_ORGANIZATION = 4


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is to happen."""

    messages: int
    kills: int
    seed: int
    every_s: float  # machine seconds between two kills, on average
    speed: float  # virtual seconds per real second

    @property
    def lasts_s(self) -> float:
        """How long something is killed now and then."""
        return self.kills * self.every_s

    @property
    def load_s(self) -> float:
        """How long carts come in: the last texts are due while something is still killed."""
        return max(self.lasts_s - TEXT_DELAY.total_seconds() / self.speed, self.lasts_s / 2)


class Purse(enum.StrEnum):
    """How an organization stands."""

    RICH = "rich"
    SHORT = "runs out"
    TOPPED_UP = "topped up"  # runs out again and again, and credits are added


class Way(enum.StrEnum):
    """How a cart comes in."""

    API = "api"
    BULK = "bulk"


class Act(enum.StrEnum):
    """What a shopper does next, about when the text is due."""

    BUY = "buy"
    WITHDRAW = "withdraw"
    STOP = "stop"
    FAIL_TO_PAY = "fail to pay"
    COME_BACK = "come back"


NOES = frozenset({Act.BUY, Act.WITHDRAW, Act.STOP})  # after these no text may go out
ACTS = {None: 860, Act.BUY: 45, Act.WITHDRAW: 30, Act.STOP: 20, Act.FAIL_TO_PAY: 20, Act.COME_BACK: 25}
# What the carrier makes of texts to a phone, and the code it gives.
OUTCOMES = {
    ("delivered", None): 940,
    ("undelivered", 30003): 30,
    ("failed", 30008): 10,
    ("rejected", 21614): 10,
    ("unsubscribed", None): 10,
}


@dataclass(frozen=True)
class Organization:
    """A merchant with some shops."""

    number: int
    purse: Purse
    credits: int
    top_ups: tuple[int, ...]


@dataclass(frozen=True)
class Cart:
    """One cart, its shopper, and what will happen to it. Nobody else has this phone."""

    number: int
    organization: int
    shop: int  # within the organization
    way: Way
    country: str
    locale: str
    at_s: float  # machine seconds after the load began
    act: Act | None
    act_after: timedelta  # since the cart was left
    outcome: str
    error_code: int | None

    @property
    def external_id(self) -> str:
        return f"cart-{self.number}"

    @property
    def phone(self) -> str:
        return f"{COUNTRIES[self.country][1]}{self.number:07d}"


@dataclass(frozen=True)
class Plan:
    """Everything that will be done."""

    size: Size
    organizations: list[Organization]
    carts: list[Cart]


def make_plan(size: Size) -> Plan:
    """The plan of one run; the same for the same size."""
    rng = random.Random(size.seed)
    carts = int(size.messages * MORE_CARTS)
    count = max(carts // CARTS_PER_ORGANIZATION, 6)
    organizations = [_organization(rng, number, carts // count) for number in range(count)]
    return Plan(size, organizations, [_cart(rng, number, count, size) for number in range(carts)])


def _organization(rng: random.Random, number: int, carts: int) -> Organization:
    purse = (Purse.SHORT, Purse.TOPPED_UP)[number % 2] if number % 6 < 2 else Purse.RICH
    if purse is Purse.RICH:
        return Organization(number, purse, carts * 20, ())
    # A text costs about two credits.
    top_ups = tuple(rng.randint(carts // 8, carts // 3) for _ in range(8)) if purse is Purse.TOPPED_UP else ()
    return Organization(number, purse, carts // 2, top_ups)


def _cart(rng: random.Random, number: int, organizations: int, size: Size) -> Cart:
    outcome, error_code = _choose(rng, OUTCOMES)
    return Cart(
        number=number,
        organization=rng.randrange(organizations),
        shop=rng.randrange(SHOPS_PER_ORGANIZATION),
        way=rng.choice(list(Way)),
        country=_choose(rng, {country: weight for country, (weight, _, _) in COUNTRIES.items()}),
        locale=rng.choice(LOCALES),
        at_s=rng.uniform(0, size.load_s),
        act=_choose(rng, ACTS),
        act_after=timedelta(minutes=rng.uniform(5, 20)),
        outcome=outcome,
        error_code=error_code,
    )


def _choose(rng: random.Random, weights: dict[T, int]) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]
