"""One seed from beginning to end: the story with its faults, then calm, until everything has ended."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, LiteralString
from unittest.mock import patch

import psycopg
import structlog
from psycopg.rows import dict_row

from cartwake import scheduler
from cartwake.kit.config import Settings
from cartwake.kit.db import ADAPTERS, is_transient
from cartwake.kit.runtime import vault_of
from simulation.audit import Audit
from simulation.broken import variant
from simulation.chaos import Chaos, Plan
from simulation.coverage import Coverage
from simulation.database import QUIET_TABLES, fresh_database
from simulation.director import TICK_S, Director
from simulation.loop import StoryLoop
from simulation.server import Server
from simulation.stage import Stage
from simulation.story import Broken, Story

# A scheduler with nothing due looks again after this; half a second in production, which would cost every step.
SCHEDULER_NAP_S = 590.0
# With every kind of process there is, a story that has not come to rest after so many hops never will.
HOPS_MAX = 400
HOP_S = 601.0  # longer than the nap, and than the pace of the abandonment scan
# Where nothing is going on, time may as well leap: else most steps would be spent on looking for work.
LEAP_RATE = 0.05
LEAPS_S = (*(60.0,) * 4, *(300.0,) * 4, 900.0, 900.0, 2400.0, 10 * 3600.0)
HOUR_S = 3600.0
HURRY_RATE = 0.5  # the same when the shops are closed
IDLE = frozenset({"looks for messages", "looks for events", "wakes up"})
PACE_STEPS = 150  # how long a process stays as slow as it is
MIDST_WEIGHT = 20  # how much likelier it is that somebody dies who is in the middle of something
RESTART_S = (0.5, 10.0, 120.0, 900.0)

# When something will happen by itself next. Texts of unknown fate are asked about until the carrier answers.
NEXT_DUE = """
SELECT min(at) FROM (
  SELECT min(due_at) AS at FROM sms_messages WHERE state IN ('scheduled', 'held')
  UNION ALL SELECT min(lease_until) FROM sms_messages WHERE state = 'sending'
  UNION ALL SELECT min(GREATEST(attempted_at + interval '30 minutes', %(now)s + interval '20 minutes'))
    FROM sms_messages WHERE state = 'unknown'
  UNION ALL SELECT min(GREATEST(accepted_at + interval '72 hours', %(now)s + interval '50 minutes'))
    FROM sms_messages WHERE state IN ('accepted', 'sent')
  UNION ALL SELECT min(scan_at) FROM checkout_sessions
    WHERE state IN ('open', 'abandoned') AND stale_at > %(now)s
  UNION ALL SELECT min(payment_until) FROM checkout_sessions WHERE state = 'payment_pending'
  UNION ALL SELECT min(at) FROM consent_unsealed
  UNION ALL SELECT min(received_at) FROM carrier_events WHERE processed_at IS NULL
) AS t
"""


# When a text goes out next.
NEXT_TEXT = """
SELECT min(at) FROM (
  SELECT min(due_at) AS at FROM sms_messages WHERE state IN ('scheduled', 'held')
  UNION ALL SELECT min(lease_until) FROM sms_messages WHERE state = 'sending'
  UNION ALL SELECT min(received_at) FROM carrier_events WHERE processed_at IS NULL
) AS t
"""


@dataclass(frozen=True)
class Outcome:
    """How a story went."""

    plan: Plan
    digest: str
    steps: int  # that were taken, the calm end included
    failure: Broken | None
    failed_at: int | None  # step
    story: Story
    texts: int  # that the carrier took
    carts: int
    deadlocks: int
    states: Counter[str]
    coverage: Coverage
    seconds: float


def simulate(plan: Plan, server_url: str, template: str) -> Outcome:
    """Play one story on a fresh database."""
    began = time.monotonic()
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(server_url, template))
        stack.enter_context(variant(plan.variant))
        stack.enter_context(patch.object(scheduler, "NAP_S", SCHEDULER_NAP_S))
        simulation = stack.enter_context(_opened(plan, url))
        failure = simulation.play()
        return simulation.outcome(failure, time.monotonic() - began)


class Simulation:
    """One story as it is played."""

    def __init__(self, plan: Plan, stage: Stage, audit: Audit) -> None:
        self._plan = plan
        self._stage = stage
        self._audit = audit
        self._director = stage.director
        self._chaos = stage.director.chaos
        self._paces: dict[str, float] = {}
        self._resting: dict[str, float] = {}  # dead processes, and when they start again

    def play(self) -> Broken | None:
        """Everything, until it has ended or something is broken."""
        try:
            self._stage.open()
            self._chaos.calm = False
            for _ in range(self._plan.steps):
                self._step()
                self._look()
            self._wind_down()
            self._calm_down()
            self._audit.conclude(self._wait_an_hour())
        except Broken as broken:
            return broken
        except Exception as error:
            self._director.tell("director", "".join(traceback.format_exception(error)))
            return Broken("nothing fails unexpectedly", repr(error))
        return None

    def outcome(self, failure: Broken | None, seconds: float) -> Outcome:
        """What came of it."""
        director, witness = self._director, self._stage.witness
        states = director.server.conn.execute("SELECT state, count(*) FROM sms_messages GROUP BY state ORDER BY state")
        return Outcome(
            plan=self._plan,
            digest=director.story.digest,
            steps=director.step_number,
            failure=failure,
            failed_at=director.step_number if failure else None,
            story=director.story,
            texts=len(witness.taken_by),
            carts=len(witness.carts),
            deadlocks=director.deadlocks,
            states=Counter(dict(states.fetchall())),
            coverage=replace(director.coverage, faults=self._chaos.struck, stories=1),
            seconds=seconds,
        )

    # --- the story -----------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """One choice: somebody goes on, or time does, or something breaks."""
        director, chaos, dice = self._director, self._chaos, self._chaos.choices
        director.step_number += 1
        director.pass_time(director.loop.time() + TICK_S)
        self._restart()
        if self._stage.mortals and chaos.strikes("kill"):
            self._kill(self._victim())
        elif chaos.strikes("deploy"):
            self._deploy()
        elif chaos.strikes("clock_step"):
            self._step_clock()
        elif chaos.strikes("stall"):
            director.pass_time(director.loop.time() + chaos.stall_s())
        elif not director.parked:
            self._skip()
        elif dice.random() < LEAP_RATE and all(gate.what in IDLE for gate in director.parked):
            director.pass_time(director.loop.time() + dice.choice(LEAPS_S))
        elif dice.random() < 0.03:
            director.pass_time(director.loop.time() + dice.choice([0.02, 0.3, 2.0]))
        else:
            self._let_somebody_go_on()

    def _let_somebody_go_on(self) -> None:
        gates = self._director.parked
        if self._director.step_number % PACE_STEPS == 0:
            self._paces.clear()
        weights = [self._pace(gate.process.name) for gate in gates]
        gate = self._chaos.choices.choices(gates, weights)[0]
        self._director.open(gate)
        if gate.what == "messages.queue.TAKE_DUE":
            self._stage.people.claimed = gate.ids
            self._stage.people.claiming.set()
            self._stage.people.claiming.clear()
            self._director.settle()

    def _pace(self, name: str) -> float:
        """How often a process is chosen; some are slow for a while."""
        if name not in self._paces:
            self._paces[name] = self._chaos.dice("pace").choice([1.0, 1.0, 1.0, 0.2, 0.03])
        return self._paces[name]

    def _skip(self) -> None:
        """Nobody can go on: time passes until somebody wakes."""
        sleepers = [when for when in (self._director.loop.next_timer(), *self._resting.values()) if when is not None]
        if not sleepers:
            raise Broken("nothing hangs", "nobody can go on, and nobody sleeps")
        self._director.pass_time(min(sleepers))

    def _victim(self) -> str:
        """Who dies: rather somebody who is in the middle of something."""
        names = self._stage.mortals
        weights = [MIDST_WEIGHT if self._stage.process(name).whereabouts() else 1 for name in names]
        return self._chaos.choices.choices(names, weights)[0]

    def _kill(self, name: str) -> None:
        self._stage.kill(name)
        self._resting[name] = self._director.loop.time() + self._chaos.dice("restart").choice(RESTART_S)

    def _deploy(self) -> None:
        names = sorted(self._stage.engines)
        if names:
            name = self._chaos.dice("deployed").choice(names)
            self._stage.retire(name)
            self._stage.start(name)
            self._director.settle()

    def _step_clock(self) -> None:
        process = self._chaos.dice("stepped").choice(self._director.processes)
        process.clock.wrong_by = self._chaos.clock_error()
        self._director.tell(process.name, f"has a clock that is wrong by {process.clock.wrong_by}")

    def _restart(self) -> None:
        for name, when in list(self._resting.items()):
            if when <= self._director.loop.time() or self._chaos.calm:
                del self._resting[name]
                self._stage.start(name)
                self._director.settle()

    def _wind_down(self) -> None:
        """Nobody begins anything any more, but things go on going wrong while time passes to what is due.

        Most texts leave at an opening, and the steps of a story are used up long before the next morning.
        """
        director = self._director
        director.tell("director", "closes the shops")
        self._stage.people.closing.set()
        director.settle()
        for _ in range(self._plan.steps):
            self._step()
            self._look()
            if self._chaos.choices.random() < HURRY_RATE and all(gate.what in IDLE for gate in director.parked):
                due_s = self._due_s(NEXT_TEXT)
                if due_s is None:
                    return
                director.pass_time(director.loop.time() + due_s)

    def _due_s(self, query: LiteralString) -> float | None:
        """In how many seconds something is due; None when nothing ever will be."""
        director = self._director
        due = director.server.conn.execute(query, {"now": director.now()}).fetchone()
        if due == (None,) and not self._stage.crowd.tasks and not self._are_processes_busy():
            return None
        return max((due[0] - director.now()).total_seconds(), 0.0) if due and due[0] else 0.0

    def _look(self) -> None:
        """Only a commit changes what others can see, so only after one is there anything new to check."""
        if self._stage.wrote:
            self._stage.wrote = False
            self._audit.look()

    # --- the end -------------------------------------------------------------------------------------------------

    def _calm_down(self) -> None:
        """No more faults, no new acts; time passes from one due thing to the next until nothing is due."""
        director = self._director
        director.tell("director", "lets nothing go wrong any more")
        self._chaos.calm = True
        self._restart()
        self._leave_one_of_each()
        for _ in range(HOPS_MAX):
            self._let_everybody_go_on()
            if (due_s := self._due_s(NEXT_DUE)) is None:
                return
            director.pass_time(director.loop.time() + due_s + HOP_S)
        raise Broken("everything ends", "something is due for ever", [])

    def _wait_an_hour(self) -> int:
        """Let an hour pass, in which each periodic work has its turn; the step at which it began."""
        began = self._director.step_number
        self._director.pass_time(self._director.loop.time() + HOUR_S + HOP_S)
        self._let_everybody_go_on()
        return began

    def _let_everybody_go_on(self) -> None:
        while self._director.parked:
            self._director.step_calmly()
            self._look()

    def _leave_one_of_each(self) -> None:
        """One scheduler and one worker are enough to finish, and cost fewer steps."""
        for kind in ("worker", "scheduler"):
            for name in [name for name in sorted(self._stage.engines) if name.startswith(kind)][1:]:
                self._stage.retire(name)
        self._director.settle()

    def _are_processes_busy(self) -> bool:
        return bool(self._director.under_way or self._director.parked)


@contextmanager
def _opened(plan: Plan, url: str) -> Iterator[Simulation]:
    """A loop, a director and a stage of their own."""
    loop, chaos, settings = StoryLoop(), Chaos(plan), Settings()
    with closing(Server(url)) as server, ExitStack() as stack:
        server.conn.execute(QUIET_TABLES)
        director = Director(chaos, loop, server, chaos.beginning())
        stack.enter_context(_watching_logs(director))
        stage = Stage(director, url, settings, vault_of(settings))
        eyes = director.run(
            psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row, context=ADAPTERS)
        )
        stack.enter_context(patch.object(scheduler, "run_due", stage.witness.books.watching(scheduler.run_due)))
        audit = Audit(stage, eyes)
        try:
            yield Simulation(plan, stage, audit)
        finally:
            _close(director)
            audit.close()
            eyes.pgconn.finish()
            loop.close()


def _close(director: Director) -> None:
    """Everybody dies."""
    director.troubles.clear()
    for process in list(director.processes):
        try:
            director.kill(process)
        except Exception:
            director.troubles.clear()


@contextmanager
def _watching_logs(director: Director) -> Iterator[None]:
    """Whatever the product logs as a failure that no fault of the story explains ends the story."""

    def watch(_logger: Any, method: str, line: MutableMapping[str, Any]) -> Any:
        error = line.get("exc_info")
        director.tell("log", f"{line['event']} {line.get('error', '')}")
        cause = sys.exc_info()[1]
        if line["event"] == "invariant.broken":
            director.troubles.append(Broken(f"invariant {line['invariant']}", "the scheduler says so"))
        if isinstance(cause, Broken):
            director.troubles.append(cause)
        elif error and isinstance(cause, Exception) and not is_transient(cause):
            director.troubles.append(Broken("nothing fails unexpectedly", f"{line['event']}: {cause!r}"))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[watch], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
