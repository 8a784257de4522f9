"""`python -m simulation`, from `tests/`: one story, or seed after seed until it is stopped."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cartwake.kit.config import Settings
from cartwake.kit.embedded import embedded_postgres
from cartwake.kit.runtime import vault_of
from simulation.broken import VARIANTS
from simulation.chaos import ACTORS, FAULTS, Plan
from simulation.corpus import find, read_corpus
from simulation.coverage import Coverage
from simulation.database import template_database
from simulation.people import PLOT_NAMES
from simulation.report import fresh_seed, memory_mb, summary
from simulation.run import simulate
from simulation.shrink import BUDGET_S, explained
from simulation.story import Broken
from simulation.windows import ZONES

STEPS = 1000
ALL = "all"


def main() -> int:
    """0 when nothing was broken."""
    asked, coverage = _parse(), Coverage()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if asked.find:
        return _find(asked.find)
    with _server() as (url, template), suppress(KeyboardInterrupt), _told_at_the_end(coverage):
        for number in itertools.count():
            seed = fresh_seed() if asked.seed is None else asked.seed + number
            outcome = simulate(_plan(asked, seed), url, template)
            coverage += outcome.coverage
            print(summary(outcome), flush=True)
            if outcome.failure is not None:
                shorten_s = 0.0 if asked.as_is else BUDGET_S
                print(explained(outcome, lambda plan: simulate(plan, url, template), shorten_s), flush=True)
                return 1
            if asked.steps is not None:
                return 0
    return 0


def _find(defect: str) -> int:
    """Every seed of the corpus (or one defect's) finds its defect again, `corpus.toml` rewritten; 0 when each does."""
    corpus, lost = read_corpus(), 0
    with _server() as (url, template):
        for entry in corpus.values() if defect == ALL else [corpus[defect]]:
            try:
                for line in find(entry, lambda plan: simulate(plan, url, template)):
                    print(line, flush=True)
            except (LookupError, Broken) as error:
                print(f"{entry.defect}: LOST, {error}", flush=True)
                lost += 1
    return min(lost, 1)


@contextmanager
def _told_at_the_end(coverage: Coverage) -> Iterator[None]:
    """However it ends: what was covered, and how much memory it took."""
    try:
        yield
    finally:
        print(f"{coverage.report()}\nmemory: {memory_mb():.0f} MB", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first seed; each one is new unless given")
    parser.add_argument("--steps", type=int, help="play one story of so many steps; without, one after the other")
    parser.add_argument(
        "--as-is", action="store_true", help="a failure is told as it is, with no shorter story looked for"
    )
    parser.add_argument(
        "--find", choices=[ALL, *VARIANTS], help="give this defect (or all) a seed that finds it, in corpus.toml"
    )
    parser.add_argument("--faults", help="only these, with commas between them, or `none`")
    parser.add_argument(
        "--begins", type=datetime.fromisoformat, help="when the story begins, like 2026-03-28T20:00:00Z"
    )
    parser.add_argument("--variant", choices=VARIANTS, help="play with this defect")
    parser.add_argument("--countries", help="shoppers live in these alone, like AU,NZ")
    parser.add_argument("--plots", help="shoppers do only these with a cart: " + ", ".join(sorted(PLOT_NAMES)))
    for name in ACTORS:
        parser.add_argument(f"--{name}", type=int, help=f"so many {name}")
    return parser.parse_args()


def _plan(asked: argparse.Namespace, seed: int) -> Plan:
    """The plan of a seed, but for what was asked for."""
    plan = Plan.of(seed, asked.steps or STEPS)
    choices = (*ACTORS, "begins", "variant")
    given = {name: getattr(asked, name) for name in choices if getattr(asked, name) is not None}
    if asked.faults is not None:
        given["faults"] = frozenset(asked.faults.split(",")) & set(FAULTS)
    if asked.countries is not None:
        given["countries"] = frozenset(asked.countries.split(",")) & ZONES.keys() or None
    if asked.plots is not None:
        given["plots"] = frozenset(asked.plots.split(",")) & PLOT_NAMES or None
    return replace(plan, **given)


@contextmanager
def _server() -> Iterator[tuple[str, str]]:
    """A PostgreSQL (`CARTWAKE_DATABASE_URL`, or one of our own) and a migrated database in it to copy."""
    with ExitStack() as stack:
        url = os.environ.get("CARTWAKE_DATABASE_URL")
        if url is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cartwake-simulation-")))
            url = stack.enter_context(embedded_postgres(home / "postgres", durable=False)).url
        yield url, stack.enter_context(template_database(url, vault_of(Settings())))


if __name__ == "__main__":
    sys.exit(main())
