"""What goes wrong at a carrier, one fault at a time, and what an adapter may answer meanwhile.

The list is the sandbox's own: a fault that it learns and that stands in no row of `ALWAYS` fails the suite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

from cartwake.carriers.protocol import Accepted, MessageStatus, SendResult, Throttled, Unknown
from cartwake.carriers.sandbox.faults import FaultName, Faults

FAULTS: tuple[str, ...] = get_args(FaultName)
# Of the adapter. Long, or a busy machine plays a fault of its own; except where the wait is the fault.
TIMEOUT_S = 10.0
SHORT_TIMEOUT_S = 0.5
SOMETIMES = 0.5
Statuses = list[MessageStatus]


def as_they_are(statuses: Statuses) -> Statuses:
    return statuses


def none(_statuses: Statuses) -> Statuses:
    return []


def each_twice(statuses: Statuses) -> Statuses:
    return [status for status in statuses for _ in range(2)]


def last_first(statuses: Statuses) -> Statuses:
    return statuses[-1:] + statuses[:-1]


@dataclass(frozen=True)
class Trouble:
    """A state of the carrier, and what holds in it."""

    name: str
    faults: dict[str, Any] = field(default_factory=dict)
    # What a good text may come to, and whether the carrier has it then (None: that differs from text to text).
    outcomes: tuple[type[SendResult], ...] = (Accepted,)
    is_taken: bool | None = True
    # Whether what the carrier would refuse is still answered with the refusal, rather than with the fault.
    refuses: bool = True
    timeout_s: float = TIMEOUT_S
    # How the receipts of one text come in; None where that is chance.
    receipts: Callable[[Statuses], Statuses] | None = as_they_are

    def __str__(self) -> str:
        return self.name


CALM = Trouble("calm")
# Each fault, striking always.
ALWAYS = {
    "latency": Trouble("latency", {"latency_ms": 60}),
    "throttle": Trouble("throttle", {"throttle_rate": 1}, (Throttled,), False, refuses=False, receipts=none),
    "error_before": Trouble("error_before", {"error_before_rate": 1}, (Unknown,), False, refuses=False, receipts=none),
    "error_after": Trouble("error_after", {"error_after_rate": 1}, (Unknown,)),
    "drop_after": Trouble("drop_after", {"drop_after_rate": 1}, (Unknown,)),
    "lost_callback": Trouble("lost_callback", {"lost_callback_rate": 1}, receipts=none),
    "late_callback": Trouble("late_callback", {"late_callback_rate": 1, "late_callback_ms": 80}),
    "duplicate_callback": Trouble("duplicate_callback", {"duplicate_callback_rate": 1}, receipts=each_twice),
    "reordered_callback": Trouble("reordered_callback", {"reordered_callback_rate": 1}, receipts=last_first),
}
TOO_SLOW = [
    Trouble("too slow", {"latency_ms": 5_000}, (Unknown,), refuses=False, timeout_s=SHORT_TIMEOUT_S),
    Trouble(
        "too slow, for nothing",
        {"latency_ms": 5_000, "error_before_rate": 1},
        (Unknown,),
        False,
        refuses=False,
        timeout_s=SHORT_TIMEOUT_S,
        receipts=none,
    ),
]
# Every second text is struck, by the seed.
NOW_AND_THEN = [
    Trouble(
        f"{name} now and then",
        trouble.faults | {"seed": 7, f"{name}_rate": SOMETIMES},
        tuple(dict.fromkeys((*trouble.outcomes, Accepted))),
        None if trouble.is_taken is False else True,
        refuses=trouble.refuses,
        receipts=None,
    )
    for name, trouble in ALWAYS.items()
]
EVERYTHING = Trouble(
    "everything",
    {f"{name}_rate": 0.2 for name in FAULTS} | {"seed": 7, "latency_ms": 60, "late_callback_ms": 80},
    (Accepted, Throttled, Unknown),
    None,
    refuses=False,
    receipts=None,
)
QUICK = [CALM, ALWAYS["throttle"], ALWAYS["drop_after"], ALWAYS["reordered_callback"], EVERYTHING]
TROUBLES = [CALM, *ALWAYS.values(), *TOO_SLOW, *NOW_AND_THEN, EVERYTHING]


def rates() -> set[str]:
    """The faults of the sandbox's model, by its rates."""
    return {name.removesuffix("_rate") for name in Faults.model_fields if name.endswith("_rate")}
