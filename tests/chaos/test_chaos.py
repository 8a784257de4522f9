"""`make chaos`, small: nothing is texted twice, nothing is lost, no credit is missing, whoever is killed and when."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ci_minutes import CHAOS_S, Budget

TESTS = Path(__file__).parents[1]
GOODBYE_S = 30.0  # in which all processes are stopped in good order


@pytest.mark.slow
def test_a_small_run_of_kills_leaves_nothing_wrong(request: pytest.FixtureRequest) -> None:
    budget = Budget("chaos", CHAOS_S)
    command = [sys.executable, "-m", "chaos", "--messages", "2000", "--kills", "16", "--every", "4"]
    status, said = _run_within(command, budget.left_s - GOODBYE_S)
    budget.tell(request.config, "2,000 messages, 16 kills")
    assert status == 0, said


@pytest.mark.thorough
def test_a_run_that_would_take_too_long_is_ended_and_has_failed() -> None:
    status, said = _run_within([sys.executable, "-uc", "print('began'); import time; time.sleep(600)"], 2.0)
    assert status is None
    assert "not done within 2 s" in said


def _run_within(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Its exit status (None: its time was over) and all that it said."""
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        try:
            said, _ = run.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGTERM)
            try:
                said, _ = run.communicate(timeout=GOODBYE_S)
            except subprocess.TimeoutExpired:
                run.kill()
                said, _ = run.communicate()
            return None, f"not done within {seconds:.0f} s\n{said}"
        return run.returncode, said
