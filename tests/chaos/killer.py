"""Whom it hits, and when: both by the seed, and neither with any regard for what is going on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from random import Random

from chaos.database import Database
from chaos.machine import Machine, Member

BACKEND = "one of the database's"
NAP_S = 0.02


@dataclass(frozen=True)
class Victim:
    """Whoever may be killed."""

    name: str
    is_up: Callable[[], bool]
    kill: Callable[[], Awaitable[bool]]  # whether it hit


class Killer:
    """Kills at random instants, and counts what hit."""

    def __init__(self, machine: Machine, database: Database, rng: Random) -> None:
        self._rng = rng
        self._victims = [
            *(_member(member) for member in machine.members),
            Victim("database", lambda: database.is_up, database.kill),
            Victim(BACKEND, lambda: database.is_up, lambda: database.kill_backend(rng)),
        ]
        self.missed = 0  # blows at what had ended by itself in that very moment
        self.kills: Counter[str] = Counter(dict.fromkeys([victim.name for victim in self._victims], 0))

    async def run(self, kills: int, lasts_s: float) -> None:
        """Kill so many within so many seconds. Returns once the last one has been dealt with."""
        began_s = time.monotonic()
        instants = sorted(self._rng.uniform(0, lasts_s) for _ in range(kills))
        async with asyncio.TaskGroup() as aftermath:
            for instant_s, victim in zip(instants, self._turns(), strict=False):
                await asyncio.sleep(max(began_s + instant_s - time.monotonic(), 0))
                while not victim.is_up():  # it still lies where it fell
                    await asyncio.sleep(NAP_S)
                aftermath.create_task(self._strike(victim))

    async def _strike(self, victim: Victim) -> None:
        """Kill it; if nobody was there any more, whoever takes its place."""
        while not await victim.kill():
            self.missed += 1
            while not victim.is_up():
                await asyncio.sleep(NAP_S)
        self.kills[victim.name] += 1

    def _turns(self) -> Iterator[Victim]:
        """Everybody in random order, and again: a short run leaves nobody out."""
        while True:
            yield from self._rng.sample(self._victims, len(self._victims))


def _member(member: Member) -> Victim:
    return Victim(member.name, lambda: member.is_up, member.kill)
