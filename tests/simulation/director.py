"""Lets one actor run at a time, to its next gate, and chooses by the seed who is next.

A gate stands before everything by which a task touches the world outside its process: a statement, a commit,
a nap, a look for work. `settle` lets everything run until each task waits: at a gate, for time, or for a lock
that another one holds. Who waits for a lock is parked; when the holder ends, whoever can go on goes on, one
after the other in the order in which they came, before anybody else is chosen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from psycopg import waiting
from psycopg.errors import DeadlockDetected

from simulation.chaos import Chaos
from simulation.coverage import Coverage
from simulation.loop import StoryLoop
from simulation.process import ERRAND, Process, belonging_task
from simulation.server import Server
from simulation.story import Broken, Story

T = TypeVar("T")

# Real seconds. A statement that takes longer than this may be waiting for a lock: the server is asked.
PATIENCE_S = 0.002
# PostgreSQL looks for a deadlock once, after this; a statement is parked when that look is behind it, so that
# the victim is always the one that closed the circle.
DEADLOCK_TIMEOUT_MS = 2
DEADLOCK_GRACE_S = 0.006
STUCK_LOOKS = 30_000  # a minute of waiting in vain; counted, for a machine that sleeps meanwhile shows no defect
NEVER_S = 1e9  # no timer of the story comes this late
TICK_S = 0.001  # the least that passes with each step, so that no two things happen at one instant


@dataclass(eq=False)
class Gate:
    """A task that may go on when it is chosen."""

    number: int
    process: Process
    what: str
    ids: frozenset[object]
    opened: asyncio.Future[None]
    errand: str

    @property
    def who(self) -> str:
        return f"{self.process.name} for {self.errand}" if self.errand else self.process.name


@dataclass(eq=False)
class Statement:
    """Something that the server is doing for a process."""

    number: int
    process: Process
    what: str
    pid: int
    holders: frozenset[int] = frozenset()  # whom it waits for; empty while it is running
    may_go_on: bool = False  # it waits no more, or for somebody else: let it go on, and see
    was_parked: bool = False


@dataclass
class Director:
    """The one who decides. Not a task: it runs between the runs of the loop."""

    chaos: Chaos
    loop: StoryLoop
    server: Server
    beginning: datetime
    story: Story = field(default_factory=Story)
    step_number: int = 0
    deadlocks: int = 0
    processes: list[Process] = field(default_factory=list)
    parked: list[Gate] = field(default_factory=list)
    under_way: list[Statement] = field(default_factory=list)
    troubles: list[Exception] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    connects: int = 0  # connections that are being made
    _woken: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)
    _numbers: int = 0

    def __post_init__(self) -> None:
        self.loop.set_task_factory(belonging_task)
        self.loop.set_exception_handler(self._on_lost_exception)

    def now(self) -> datetime:
        """True time."""
        return self.beginning + timedelta(seconds=self.loop.time())

    def tell(self, who: str, what: str, ids: Any = ()) -> None:
        """Add a line to the story."""
        self.story.tell(self.step_number, self.now(), who, what, ids)

    # --- what tasks call ---------------------------------------------------------------------------

    async def gate(self, process: Process, what: str, ids: frozenset[object]) -> None:
        """Return when the task is chosen."""
        if not process.alive:
            raise asyncio.CancelledError
        gate = Gate(self._number(), process, what, ids, self.loop.create_future(), ERRAND.get())
        self.parked.append(gate)
        try:
            await gate.opened
        finally:
            if gate in self.parked:
                self.parked.remove(gate)

    async def perform(self, process: Process, what: str, pid: int, socket: int, work: Any) -> Any:
        """Let the server do something, now; return when it is done and this task may go on."""
        statement = Statement(self._number(), process, what, pid)
        self.under_way.append(statement)
        try:
            return await waiting.wait_async(work, socket, interval=NEVER_S)
        except Exception as error:
            self.released(pid)  # the transaction has failed, and its locks are gone
            if isinstance(error, DeadlockDetected):
                self.deadlocks += 1
                self.tell(process.name, f"is the victim of a deadlock in {what}")
            raise
        finally:
            self.under_way.remove(statement)
            if statement.was_parked:
                await self._turn(statement.number)
            if not process.alive:
                raise asyncio.CancelledError

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """A connection is being made: everybody waits until it is."""
        self.connects += 1
        try:
            yield
        finally:
            self.connects -= 1

    def released(self, pid: int) -> None:
        """A transaction has ended: whoever waited for it may go on."""
        for statement in self.under_way:
            if pid in statement.holders:
                statement.may_go_on = True

    # --- what the simulation calls -----------------------------------------------------------------

    def open(self, gate: Gate) -> None:
        """Let one task run to its next gate, and let everything come to rest."""
        self.parked.remove(gate)
        self.tell(gate.who, gate.what, gate.ids)
        gate.opened.set_result(None)
        self.settle()

    def pass_time(self, until_s: float) -> None:
        """Move time on; on the way everybody wakes when they wanted to."""
        while (when := self.loop.next_timer()) is not None and when <= until_s:
            self.loop.set_time(when)
            self.settle()
        self.loop.set_time(until_s)

    def settle(self) -> None:
        """Let everything run until each task waits for a gate, for time or for a lock."""
        for _ in range(STUCK_LOOKS):
            self.loop.run_dry()
            if self.troubles:
                raise self.troubles[0]
            if self.connects or any(not statement.holders for statement in self.under_way):
                if not self.loop.peek(PATIENCE_S):
                    self._find_waiting()
            elif freed := next((statement for statement in self.under_way if statement.may_go_on), None):
                freed.holders, freed.may_go_on = frozenset(), False
                self.server.go_on(freed.pid)
            elif self._woken:
                self._woken.sort(key=lambda woken: woken[0])
                self._woken.pop(0)[1].set_result(None)
            else:
                return
        raise Broken("nothing hangs", f"{[s.what for s in self.under_way]} did not end")

    def run(self, work: Any) -> Any:
        """Run a coroutine that passes no gate, while everybody else stands still."""
        task = self.loop.create_task(work)
        while True:
            self.loop.run_dry()
            if task.done():
                return task.result()
            self.loop.peek(0.05)

    def act(self, process: Process, work: Any) -> Any:
        """Run a coroutine of a process to its end, letting everybody go on in turn."""
        task = process.task(work)
        self.settle()
        while not task.done():
            self.step_calmly()
        return task.result()

    def step_calmly(self) -> None:
        """Let the one go on who has waited longest; when nobody can, the next sleeper wakes."""
        self.step_number += 1
        if self.parked:
            self.pass_time(self.loop.time() + TICK_S)
            self.open(self.parked[0])
        elif (when := self.loop.next_timer()) is not None:
            self.pass_time(when)
        else:
            raise Broken("nothing hangs", "nobody can go on, and nobody sleeps")

    def kill(self, process: Process) -> None:
        """`kill -9`: no cleaning up. What the server was doing for it ends, and its transactions roll back."""
        if not self.chaos.calm:
            self.coverage.crashes.update(process.whereabouts() or {f"{process.kind} at rest"})
        process.alive = False
        self.processes.remove(process)
        for connection in list(process.connections):
            self.cut(connection.pid, connection.cut)
        self.settle()
        while process.tasks:
            for task in list(process.tasks):
                task.cancel()
            self.settle()
        for connection in list(process.connections):
            connection.cut()

    def cut(self, pid: int, close: Callable[[], None]) -> None:
        """End a connection: the server's side first, and for certain, so that its locks are gone afterwards."""
        self.server.terminate(pid)
        self.released(pid)
        mine = [statement for statement in self.under_way if statement.pid == pid]
        for statement in mine:
            statement.holders = frozenset()  # it ends now, with an error
        if not mine:
            close()

    # --- its own ------------------------------------------------------------------------------------

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def _turn(self, number: int) -> None:
        turn = self.loop.create_future()
        self._woken.append((number, turn))
        await turn

    def _find_waiting(self) -> None:
        """Ask the server which statements wait for a lock, and for whose, and park those."""
        moving = [statement for statement in self.under_way if not statement.holders]
        if not any(self.server.holders(statement.pid for statement in moving).values()):
            return
        time.sleep(DEADLOCK_GRACE_S)
        if self.loop.peek(0):
            return
        holders = self.server.holders(statement.pid for statement in moving)
        for statement in moving:
            statement.holders = holders[statement.pid]
            if statement.holders:
                self._park(statement)

    def _park(self, statement: Statement) -> None:
        self.server.stop(statement.pid)
        if not statement.was_parked:
            for holder in self._holding(statement.holders):
                self.coverage.races[f"{statement.process.kind} in {statement.what} for {holder.kind}"] += 1
            self.tell(statement.process.name, f"waits in {statement.what} for {self._names(statement.holders)}")
        statement.was_parked = True

    def _names(self, pids: frozenset[int]) -> str:
        names = sorted(process.name for process in self._holding(pids))
        return " and ".join([*names, *["somebody"] * (len(pids) - len(names))])

    def _holding(self, pids: frozenset[int]) -> list[Process]:
        """Whose connections those are."""
        return [process for process in self.processes for each in process.connections if each.pid in pids]

    def _on_lost_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A task failed and nobody asked what came of it."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self.troubles.append(error)
