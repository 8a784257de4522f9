"""The shortest story that fails: with fewer faults, fewer actors and fewer steps, if it still does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from simulation.chaos import ACTORS, Plan
from simulation.run import Outcome

BUDGET_S = 120.0
LINES = 40
AGAIN = "cd tests && ../.venv/bin/python -m simulation --as-is"


def explained(outcome: Outcome, play: Callable[[Plan], Outcome], budget_s: float = BUDGET_S) -> str:
    """The shortened story of a failure, and how to play it again. `budget_s`: for looking for a shorter one."""
    shortest = shrink(outcome, play, budget_s)
    assert shortest.failure is not None
    lines = "\n".join(map(str, shortest.story.about(shortest.failure.ids, LINES)))
    return f"{shortest.failure}\n\n{lines}\n\nshortened: {AGAIN} {shortest.plan}\nas found:  {AGAIN} {outcome.plan}"


def shrink(outcome: Outcome, play: Callable[[Plan], Outcome], budget_s: float = BUDGET_S) -> Outcome:
    """The same failure in a smaller story; as far as the time allows."""
    until = time.monotonic() + budget_s
    best, is_smaller = outcome, True
    while is_smaller:
        is_smaller = False
        for plan in _smaller(best):
            if time.monotonic() > until:
                return best
            tried = play(plan)
            if tried.failure is not None and best.failure is not None and tried.failure.what == best.failure.what:
                best, is_smaller = tried, True
                break
    return best


def _smaller(outcome: Outcome) -> Iterator[Plan]:
    """What to try next, the most promising first."""
    plan = outcome.plan
    yield from (replace(plan, steps=steps) for steps in (plan.steps // 2, plan.steps * 9 // 10) if steps)
    if plan.faults:
        yield replace(plan, faults=frozenset())
    yield from (plan.without(fault) for fault in sorted(plan.faults))
    yield from (replace(plan, **{name: getattr(plan, name) - 1}) for name in ACTORS if getattr(plan, name) > 1)
