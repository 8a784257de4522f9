"""What may happen in a seed's story, and the dice that say when.

Each seed has its own mixture: many kinds of fault are switched off in it altogether, because some defects
only show when nothing else disturbs ("swarm testing"). Each kind of fault rolls its own dice, so that
switching one off leaves the others' rolls as they were.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

# How often each fault strikes when it is asked for: at a step, a statement, a commit, a call, a receipt.
RATES = {
    "kill": 0.006,  # a process dies, at this step
    "deploy": 0.002,  # a worker is told to stop and a new one starts beside it
    "clock_step": 0.003,  # a machine's clock jumps, by seconds
    "stall": 0.01,  # nobody gets on for a while: a pause of seconds, minutes, hours
    "drop": 0.004,  # the connection is gone before a statement
    "drop_commit": 0.05,  # the connection is gone in the middle of a commit
    "lost_wakeup": 0.2,  # a NOTIFY does not arrive
    "timeout_before": 0.12,  # the carrier never gets the text, and the worker waits in vain
    "timeout_after": 0.1,  # the carrier takes the text, and its answer comes too late
    "error_before": 0.1,  # 5xx, not taken
    "error_after": 0.1,  # 5xx, taken
    "throttle": 0.12,  # 429
    "unreachable": 0.08,  # no connection to the carrier
    "reject": 0.08,  # refused for good
    "cannot_ask": 0.3,  # the carrier cannot be asked about a text
    "undelivered": 0.15,  # taken, and not delivered
    "expired": 0.1,  # taken, and tried until its validity ends
    "lost_receipt": 0.2,
    "late_receipt": 0.15,
    "duplicate_receipt": 0.2,
    "reordered_receipt": 0.2,
}
FAULTS = tuple(RATES)

# Beginnings near changes of the clocks, holidays and ends of months, and ordinary ones.
BEGINNINGS = (
    datetime(2026, 11, 24, 8, 0, tzinfo=UTC),  # a Tuesday
    datetime(2026, 3, 28, 15, 0, tzinfo=UTC),  # Europe's clocks go forward in the night
    datetime(2026, 10, 24, 15, 0, tzinfo=UTC),  # and back
    datetime(2026, 11, 1, 3, 0, tzinfo=UTC),  # America's go back in the morning
    datetime(2027, 3, 13, 20, 0, tzinfo=UTC),  # and forward in the night
    datetime(2026, 4, 4, 12, 0, tzinfo=UTC),  # southern summer time ends
    datetime(2026, 9, 26, 10, 0, tzinfo=UTC),  # New Zealand's begins
    datetime(2026, 12, 24, 14, 0, tzinfo=UTC),
    datetime(2026, 8, 31, 20, 0, tzinfo=UTC),  # the month ends: refills
    datetime(2026, 7, 11, 16, 0, tzinfo=UTC),  # a Saturday; France and Italy are closed tomorrow
    datetime(2026, 6, 17, 7, 0, tzinfo=UTC),
)
CLOCK_WRONG_MAX_S = 2.0
# What a stall lasts, in seconds; the first are the most likely.
STALLS_S = (0.3, 2, 7, 20, 45, 90, 400, 2400, 4 * 3600, 10 * 3600)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a story depends on."""

    seed: int
    steps: int
    shoppers: int
    merchants: int
    webs: int
    workers: int
    schedulers: int
    faults: frozenset[str]
    begins: datetime | None = None  # else the seed says when
    variant: str | None = None  # a defect that must be caught
    plots: frozenset[str] | None = None  # what shoppers do with a cart; None: everything they know
    countries: frozenset[str] | None = None  # where they live; None: everywhere

    @classmethod
    def of(cls, seed: int, steps: int) -> Plan:
        """The plan of a seed."""
        dice = Random(f"{seed}/plan")
        share = dice.choice([0.0, 0.3, 0.6, 1.0])
        return cls(
            seed=seed,
            steps=steps,
            shoppers=dice.randint(3, 14),
            merchants=dice.randint(1, 3),
            webs=dice.randint(1, 2),
            workers=dice.choice([1, 2, 2, 2, 3]),
            schedulers=dice.randint(1, 2),
            faults=frozenset(fault for fault in FAULTS if dice.random() < share),
        )

    def without(self, *faults: str) -> Plan:
        """The same with less going wrong."""
        return replace(self, faults=self.faults - set(faults))

    def __str__(self) -> str:
        missing = [fault for fault in FAULTS if fault not in self.faults]
        numbers = [f"--{name} {getattr(self, name)}" for name in ACTORS]
        faults = ["--faults", ",".join(sorted(self.faults)) or "none"] if missing else []
        begins = ["--begins", f"{self.begins:%Y-%m-%dT%H:%M:%SZ}"] if self.begins else []
        variant = ["--variant", self.variant] if self.variant else []
        plots = ["--plots", ",".join(sorted(self.plots))] if self.plots is not None else []
        countries = ["--countries", ",".join(sorted(self.countries))] if self.countries is not None else []
        told = [*numbers, *faults, *begins, *variant, *plots, *countries]
        return " ".join(["--seed", str(self.seed), "--steps", str(self.steps), *told])


ACTORS = ("shoppers", "merchants", "webs", "workers", "schedulers")


@dataclass
class Chaos:
    """The dice of one story."""

    plan: Plan
    calm: bool = True  # nothing goes wrong: before the story, and after it
    choices: Random = field(init=False)
    struck: Counter[str] = field(default_factory=Counter)  # how often each fault has happened
    _dice: dict[str, Random] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.choices = self.dice("choices")

    def dice(self, purpose: str) -> Random:
        """The seed's own dice for something."""
        if purpose not in self._dice:
            self._dice[purpose] = Random(f"{self.plan.seed}/{purpose}")
        return self._dice[purpose]

    def strikes(self, fault: str) -> bool:
        """Whether this fault happens here and now."""
        happens = not self.calm and fault in self.plan.faults and self.dice(fault).random() < RATES[fault]
        if happens:
            self.struck[fault] += 1
        return happens

    def beginning(self) -> datetime:
        """When the story begins: in the evening before one of the interesting nights, or in the morning after it."""
        if self.plan.begins is not None:
            return self.plan.begins
        dice = self.dice("beginning")
        evening = dice.choice(BEGINNINGS) + timedelta(seconds=dice.randrange(6 * 3600))
        if dice.random() < 0.2:
            return evening
        # Most recipients' windows are open, or will be soon: a text that waits for the next day costs a story.
        morning = datetime(evening.year, evening.month, evening.day, 8, tzinfo=UTC) + timedelta(days=1)
        return morning + timedelta(seconds=dice.randrange(5 * 3600))

    def patience_s(self) -> float:
        """How long a worker waits before it looks again by itself. Longer than the real second, to save steps."""
        return 20.0 if self.calm else self.dice("patience").choice([30.0, 300.0, 900.0, 1800.0])

    def stall_s(self) -> float:
        """How long nobody gets on."""
        dice = self.dice("stall length")
        return min(dice.choice(STALLS_S) for _ in range(3)) * dice.uniform(0.5, 1.5)

    def clock_error(self) -> timedelta:
        """How wrong a clock is from now on."""
        return timedelta(seconds=self.dice("clock error").uniform(-CLOCK_WRONG_MAX_S, CLOCK_WRONG_MAX_S))
