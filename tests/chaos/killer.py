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
    kill: Callable[[], Awaitable[None]]


class Killer:
    """Kills at random instants, and counts."""

    def __init__(self, machine: Machine, database: Database, rng: Random) -> None:
        self._rng = rng
        self._victims = [
            *(_member(member) for member in machine.members),
            Victim("database", lambda: database.is_up, database.kill),
            Victim(BACKEND, lambda: database.is_up, lambda: database.kill_backend(rng)),
        ]
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
                self.kills[victim.name] += 1
                aftermath.create_task(_kill(victim))

    def _turns(self) -> Iterator[Victim]:
        """Everybody in random order, and again: a short run leaves nobody out."""
        while True:
            yield from self._rng.sample(self._victims, len(self._victims))


async def _kill(victim: Victim) -> None:
    await victim.kill()


def _member(member: Member) -> Victim:
    return Victim(member.name, lambda: member.is_up, member.kill)
