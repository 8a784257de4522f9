"""One run: load and killer together; then the drain, the count and the report."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from chaos.count import Check, Count, count
from chaos.drain import LEFT, drain
from chaos.evidence import gather
from chaos.killer import Killer
from chaos.leaks import Numbers, logs_in
from chaos.load import Load
from chaos.merchants import Merchants, make_merchants
from chaos.plan import Size, make_plan
from chaos.report import Report
from chaos.stage import Stage, set_stage

# Many texts are under way at any instant, for a second or two: so a kill finds something to break.
FAULTS = {
    "latency_rate": 0.4,
    "latency_ms": 1500,
    "throttle_rate": 0.03,
    "error_before_rate": 0.02,
    "error_after_rate": 0.02,
    "drop_after_rate": 0.02,
    "lost_callback_rate": 0.02,
    "late_callback_rate": 0.05,
    "late_callback_ms": 3000,
    "duplicate_callback_rate": 0.05,
    "reordered_callback_rate": 0.05,
}
# A text that was claimed before a no may leave for so long: 30 machine seconds until the call, 10 for the call.
GRACE_S = 40.0
TELL_EVERY_S = 5.0
AT_ONCE = 32


@dataclass(frozen=True)
class Played:
    """What one run was, for the head of its report."""

    merchants: Merchants
    killer: Killer
    load_s: float


async def run(size: Size, folder: Path) -> Report:
    """Play one run in an empty folder."""
    began_s = time.monotonic()
    async with set_stage(make_plan(size), folder) as stage:
        durability = stage.database.settings()
        played = await _play(stage)
        left = await drain(stage.runtime, stage.clock, stage.doors, size.speed, _teller())
        drained_s = time.monotonic() - began_s
        audit = await stage.audit()
        await stage.machine.stop()
        counted = count(
            stage.plan,
            stage.diary,
            played.merchants.ids,
            gather(stage.journal, stage.database.url),
            timedelta(seconds=GRACE_S * size.speed),
        )
    about = _about(size, stage, durability) | {
        "time": f"{played.load_s:.0f} s of load and kills, then {drained_s - played.load_s:.0f} s until nothing moved",
        "blows": f"{played.killer.kills.total()} hit, and {played.killer.missed} more at what had just ended by itself",
        "audit": audit[1].splitlines()[-1] if audit[1] else "said nothing",
    }
    checks = [*counted.checks, *_checks(size, stage, counted, played.killer, left, audit)]
    return Report(about, counted, played.killer.kills, stage.diary.answers, checks)


async def _play(stage: Stage) -> Played:
    """Everybody is made in peace; then load and kills, until both are done."""
    began_s = time.monotonic()
    size, rng = stage.plan.size, Random(f"kills {stage.plan.size.seed}")
    merchants = await make_merchants(stage.runtime, stage.plan, stage.doors, stage.diary)
    await _prepare_carrier(stage)
    load = Load(stage.runtime, stage.database.url, stage.plan, merchants, stage.doors)
    killer = Killer(stage.machine, stage.database, rng)
    watching = asyncio.create_task(_watch(stage, killer))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            group.create_task(killer.run(size.kills, size.lasts_s))
    finally:
        watching.cancel()
    return Played(merchants, killer, time.monotonic() - began_s)


async def _prepare_carrier(stage: Stage) -> None:
    """What will become of whose texts, and what will go wrong."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def script(phone: str, outcome: dict[str, Any]) -> None:
        async with turn:
            await stage.doors.sandbox("PUT", f"/sandbox/recipients/{phone}", outcome)

    scripted = [cart for cart in stage.plan.carts if cart.outcome != "delivered"]
    await asyncio.gather(
        *(script(cart.phone, {"outcome": cart.outcome, "error_code": cart.error_code}) for cart in scripted)
    )
    await stage.doors.sandbox("PUT", "/sandbox/faults", {"seed": stage.plan.size.seed} | FAULTS)


async def _watch(stage: Stage, killer: Killer) -> None:
    """Tell people what goes on."""
    tell = _teller()
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        fed = len(stage.diary.carts_api) + len(stage.diary.carts_bulk)
        tell(f"{fed:,} of {len(stage.plan.carts):,} carts, {killer.kills.total()} of {stage.plan.size.kills} kills")


def _teller() -> Callable[[str], None]:
    """Says something to people on stderr, now and then."""
    began_s = told_s = time.monotonic()

    def tell(line: str) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= TELL_EVERY_S - 0.5:
            told_s = time.monotonic()
            print(f"{told_s - began_s:5.0f} s  {line}", file=sys.stderr, flush=True)

    return tell


def _about(size: Size, stage: Stage, durability: str) -> dict[str, str]:
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return {
        "run": f"seed {size.seed}, {size.messages:,} messages, {size.kills} kills, one every {size.every_s:g} s "
        f"on average, clock at {size.speed:g} times real time",
        "machine": f"{os.cpu_count()} cores, {system}",
        "PostgreSQL": durability,
        "faults": ", ".join(f"{name} {value:g}" for name, value in FAULTS.items()),
        "answered": f"{len(stage.diary.carts_api):,} carts by API, {len(stage.diary.carts_bulk):,} in bulk, "
        + ", ".join(f"{len(carts):,} {act}" for act, carts in stage.diary.acts.items())
        + f", {stage.diary.top_ups} credit adjustments",
    }


def _checks(
    size: Size, stage: Stage, counted: Count, killer: Killer, left: dict[str, Any], audit: tuple[int, str]
) -> list[Check]:
    """What else must be 0."""
    messages = sum(number for fate, number in counted.total.fates.items() if fate != "not scheduled")
    deaths = [f"{each.name} ended with status {status}" for each in stage.machine.members for status in each.deaths]
    missing = [f"{messages:,} of {size.messages:,} messages"] if messages < size.messages else []
    missing += [f"{killer.kills.total()} of {size.kills} kills"] if killer.kills.total() < size.kills else []
    return [
        Check("invariants broken, by `cartwake audit`", [] if audit[0] == 0 else audit[1].splitlines()),
        Check("processes that ended though nobody killed them", deaths),
        Check("requests refused", stage.diary.refused),
        Check("phone numbers in the logs", Numbers(stage.plan.carts).found_in(logs_in(stage.folder))),
        Check("left undone after the drain", [f"{name}: {left[name]}" for name in LEFT if left[name]]),
        Check("less than was asked for", missing),
    ]
