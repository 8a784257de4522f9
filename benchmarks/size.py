"""How much each benchmark does: all of it, or the part of it that `BENCH_SHARE` says (0.02: to see that it runs)."""

from __future__ import annotations

import os

SHARE = float(os.environ.get("BENCH_SHARE", "1"))


def part(count: int) -> int:
    """That share of a count, and never nothing."""
    return max(1, round(count * SHARE))
