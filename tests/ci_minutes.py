"""How long simulation and chaos may take in CI: together at most 12 minutes on 2 cores, come what may."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

TOGETHER_S = 12 * 60
CHAOS_S = 200  # after which the run is ended, and has failed
STORY_S = 60  # the longest story there is: one that was begun in time is played to its end
SIMULATION_S = TOGETHER_S - CHAOS_S - STORY_S  # after which no story is begun, and what is still to come has failed


@dataclass
class Budget:
    """Machine seconds for something, from now on."""

    what: str
    seconds: float
    began_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        return max(self.began_s + self.seconds - time.monotonic(), 0.0)

    def check(self) -> None:
        """Fail the test that asks when there is nothing left."""
        if not self.left_s:
            pytest.fail(
                f"{self.what}: its {self.seconds / 60:g} minutes are over, and not all that is required was met"
            )

    def tell(self, config: pytest.Config, of: str) -> None:
        """Print what was spent, whether anything has failed or not."""
        reporter = config.pluginmanager.getplugin("terminalreporter")
        capture = config.pluginmanager.getplugin("capturemanager")
        if reporter is not None and capture is not None:
            spent_s = time.monotonic() - self.began_s
            with capture.global_and_fixture_disabled():
                reporter.write_line(f"\n{self.what}: {spent_s:.0f} s of {self.seconds:.0f} s spent on {of}")
