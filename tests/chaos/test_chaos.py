"""`make chaos`, small: nothing is texted twice, nothing is lost, no credit is missing, whoever is killed and when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LONGEST_S = 600  # two to three minutes on two cores that nobody else wants


@pytest.mark.slow
def test_a_small_run_of_kills_leaves_nothing_wrong() -> None:
    command = [sys.executable, "-m", "chaos", "--messages", "2000", "--kills", "16", "--every", "4"]
    run = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
