"""`python -m benchmarks [NAME ...]`: run some benchmarks, or all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import pipeline, reservations, trigger
from cartwake.kit import loop
from cartwake.kit.config import load_settings
from cartwake.kit.logs import configure_logs

BENCHMARKS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
    "reservations": reservations.run,
    "pipeline": pipeline.run,
    "trigger": trigger.run,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks one after the other; the exit code."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"There is no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 2
    configure_logs(load_settings().model_copy(update={"log_level": "error"}))
    for name in names or BENCHMARKS:
        loop.run(BENCHMARKS[name]())
    return 0


sys.exit(main(sys.argv[1:]))
