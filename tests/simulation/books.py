"""Every organization's credits, reckoned without the product's ledger: what came in, is in flight, is spent.

Three things move credits. Corrections: what the operator asked for and was told. Texts: a claim reserves the price of
its text; the carrier's taking it spends that, and its refusal, its silence or a failed delivery gives it back. Refills:
a run of the monthly refills gives each organization the month's credits of its plan, unless it has had them; such a
run begins at ten past every hour, with the first scheduler that looks for work then.

What is under way when somebody looks (a correction without an answer, a run that has not ended) may or may not have
taken effect: the balance must be one of those that are possible, and from then on the others are not. Everything else
is exact, at each look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from uuid import UUID

from simulation.acts import Act, Merchant, undone_before
from simulation.chaos import CLOCK_WRONG_MAX_S
from simulation.director import Director
from simulation.story import Broken

# What each plan brings in a month, as the price list says.
PLAN_CREDITS = {"PRO": 100}
REFILLS = "plan_refills"
REFILLS_AT_MINUTE = 10
# A scheduler that was at the refills and died, or has not said yet that it is done, keeps others from them for so long.
LEASE = timedelta(seconds=60)
OFF = timedelta(seconds=2 * CLOCK_WRONG_MAX_S)  # two clocks
IN_FLIGHT = frozenset({"sending", "unknown"})
SPENT = frozenset({"accepted", "sent", "delivered", "delivery_unknown"})
RunDue = Callable[..., Awaitable[datetime | None]]


@dataclass(eq=False)
class Run:
    """Once through the monthly refills, by one scheduler."""

    began: int  # step
    began_at: datetime
    ended: int | None = None  # step
    ended_at: datetime | None = None
    went_well: bool = False

    def months(self, now: datetime) -> set[str]:
        """The UTC months that it may have taken for the current one, by a clock that is a little wrong."""
        off = timedelta(seconds=CLOCK_WRONG_MAX_S)
        ends = (self.began_at - off, (self.ended_at or now) + off)
        return {f"{at.astimezone(UTC):%Y-%m}" for at in ends}


@dataclass(frozen=True)
class Refill:
    """A month's credits."""

    month: str
    amount: int


class Books:
    """One account for each merchant; raises `Broken`."""

    def __init__(self, director: Director) -> None:
        self._director = director
        self._runs: list[Run] = []  # that may still change something
        self._last_run: Run | None = None
        self._begun_at: datetime | None = None  # when refills were last begun
        self._busy_at = director.beginning  # when somebody was last at them
        self._refills: dict[Merchant, dict[str, int]] = {}  # by month
        self._happened: set[Act] = set()  # corrections that nobody has answered, and that were seen in a balance
        self.lowest: dict[Merchant, int] = {}

    @contextmanager
    def refilling(self) -> Iterator[None]:
        """A scheduler is at the monthly refills as long as the block lasts."""
        run = Run(self._director.step_number, self._director.now())
        self._runs.append(run)
        try:
            yield
            run.went_well = True
            self._last_run = run
        finally:
            run.ended = self._director.step_number
            run.ended_at = self._busy_at = self._director.now()

    def begun(self) -> None:
        """A scheduler has taken the refills on itself."""
        self._begun_at = self._busy_at = self._director.now()

    def watching(self, run_due: RunDue) -> RunDue:
        """A scheduler's round, after which somebody must have begun the refills that were due when it began."""

        async def watched(*about: Any) -> datetime | None:
            began_at = self._director.now()
            next_at = await run_due(*about)
            due_at = (began_at - OFF).replace(minute=REFILLS_AT_MINUTE, second=0, microsecond=0)
            due_at -= timedelta(hours=due_at > began_at - OFF)
            if self._free_at() < began_at and (self._begun_at is None or self._begun_at < due_at - OFF):
                raise Broken("a month's credits come when they are due", f"due {due_at}, begun {self._begun_at}")
            return next_at

        return watched

    def _free_at(self) -> datetime:
        """Since when nothing has kept schedulers from the refills."""
        busy_at = self._director.now() if any(run.ended is None for run in self._runs) else self._busy_at
        return busy_at + LEASE + OFF

    def compare(
        self,
        merchants: Iterable[Merchant],
        texts: Iterable[tuple[Merchant, str, int]],
        found: Mapping[UUID, tuple[int, int]],
    ) -> None:
        """Hold `found` (available and reserved credits, by organization) to the books.

        `texts`: the state of each message that was ever claimed, and its price.
        """
        moving, gone = Counter[Merchant](), Counter[Merchant]()
        for merchant, state, price in texts:
            moving[merchant] += price * (state in IN_FLIGHT)
            gone[merchant] += price * (state in SPENT)
        for merchant in merchants:
            available, reserved = found.get(merchant.organization_id, (0, 0))
            ids = [merchant.organization_id]
            if reserved != moving[merchant]:
                what = f"{reserved} credits reserved, and texts for {moving[merchant]} in flight"
                raise Broken("what is in flight is reserved", what, ids)
            self._enter_due_refills(merchant)
            self._settle(merchant, available + reserved + gone[merchant])
            self.lowest[merchant] = min(available, self.lowest.get(merchant, available))
        step = self._director.step_number
        self._runs = [run for run in self._runs if run.ended is None or run.ended >= step]

    def put_in(self, merchant: Merchant) -> int:
        """Credits that certainly came in other than by texts."""
        corrections = (act.amount for act in merchant.acts if not act.refused and self._is_certain(act))
        return sum(corrections) + sum(self._refills.get(merchant, {}).values())

    def conclude(self, merchants: Iterable[Merchant], since: int) -> None:
        """Since that step an hour has passed in which nothing went wrong: refills were looked at, and all are there."""
        if self._last_run is None or self._last_run.began < since:
            raise Broken("a month's credits come when they are due", "nobody has looked for an hour")
        months = self._last_run.months(self._director.now())
        for merchant in merchants:
            if self._is_paying(merchant, self._last_run) and months.isdisjoint(self._refills.get(merchant, {})):
                raise Broken("a month's credits come when they are due", f"not in {months}", [merchant.organization_id])

    def _settle(self, merchant: Merchant, came_in: int) -> None:
        """Find what of that which is under way has taken effect, so that the account adds up."""
        certain = self.put_in(merchant)
        open_: list[Act | Refill] = [*self._open_corrections(merchant), *self._open_refills(merchant)]
        for many in range(len(open_) + 1):
            for chosen in combinations(open_, many):
                if certain + sum(each.amount for each in chosen) == came_in:
                    self._enter(merchant, chosen)
                    return
        what = f"{came_in} credits came in (available, reserved or spent), {certain} expected"
        perhaps = f", and perhaps {', '.join(str(each.amount) for each in open_)}" if open_ else ""
        raise Broken("credits add up", what + perhaps, [merchant.organization_id])

    def _enter(self, merchant: Merchant, chosen: Iterable[Act | Refill]) -> None:
        for each in chosen:
            if isinstance(each, Refill):
                self._refills.setdefault(merchant, {})[each.month] = each.amount
            else:
                self._happened.add(each)

    def _enter_due_refills(self, merchant: Merchant) -> None:
        """A run that went well has left nobody out who was on a plan with credits from its beginning to its end."""
        for run in self._runs:
            month, *another = run.months(self._director.now())
            if run.went_well and not another and self._is_paying(merchant, run):
                self._refills.setdefault(merchant, {}).setdefault(month, PLAN_CREDITS["PRO"])

    def _open_refills(self, merchant: Merchant) -> Iterator[Refill]:
        """What a run that is under way, or ended just now, may have brought."""
        had = self._refills.get(merchant, {})
        for month in sorted({month for run in self._runs for month in run.months(self._director.now())} - had.keys()):
            if any(month in run.months(self._director.now()) and self._may_pay(merchant, run) for run in self._runs):
                yield Refill(month, PLAN_CREDITS["PRO"])

    def _open_corrections(self, merchant: Merchant) -> list[Act]:
        return [act for act in merchant.acts if act.amount and not act.refused and not self._is_certain(act)]

    def _is_certain(self, act: Act) -> bool:
        return act.answered is not None or act in self._happened

    def _is_paying(self, merchant: Merchant, run: Run) -> bool:
        """Whether the plan brought credits for all the time of a run that has ended."""
        assert run.ended is not None
        return _held(merchant, "PRO", "FREE", run.began, run.ended)

    def _may_pay(self, merchant: Merchant, run: Run) -> bool:
        """Whether it did at some time of a run."""
        return not _held(merchant, "FREE", "PRO", run.began, run.ended or self._director.step_number)


def _held(merchant: Merchant, plan: str, other: str, began: int, ended: int) -> bool:
    """Whether the merchant certainly had this plan from step to step."""
    return undone_before(began, merchant.acts, frozenset({plan}), frozenset({other}), ended + 1) is not None
