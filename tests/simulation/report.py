"""What is printed about a story."""

from __future__ import annotations

import os
from pathlib import Path

from simulation.run import Outcome

SEED_BYTES = 4
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


def fresh_seed() -> int:
    """A seed that nobody has chosen."""
    return int.from_bytes(os.urandom(SEED_BYTES), "big")


def summary(outcome: Outcome) -> str:
    """One line."""
    how = f"BROKEN {outcome.failure}" if outcome.failure else "sound"
    states = " ".join(f"{state}={count}" for state, count in sorted(outcome.states.items()))
    return (
        f"seed {outcome.plan.seed} {outcome.digest}: {outcome.steps} steps, {outcome.carts} carts,"
        f" {outcome.texts} texts ({states}), {outcome.deadlocks} deadlocks, {outcome.seconds:.1f} s: {how}"
    )


def memory_mb() -> float:
    """Resident memory of this process, where the system tells."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE_KB / 1024
    except OSError:
        return 0.0
