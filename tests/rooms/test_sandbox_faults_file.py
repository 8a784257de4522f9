"""The sandbox's faults, given as a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cartwake.carriers.sandbox import Options, running_sandbox
from cartwake.carriers.sandbox.faults import Faults


async def test_faults_hold_from_the_start_and_until_they_are_replaced() -> None:
    async with (
        running_sandbox(Options(faults=Faults(throttle_rate=1.0, seed=3))) as sandbox,
        httpx.AsyncClient() as http,
    ):
        shown = (await http.get(f"{sandbox.url}/sandbox/faults")).json()
        assert (shown["throttle_rate"], shown["seed"]) == (1.0, 3)
        await http.put(f"{sandbox.url}/sandbox/faults", json={})
        assert (await http.get(f"{sandbox.url}/sandbox/faults")).json()["throttle_rate"] == 0.0


@pytest.mark.thorough
def test_a_mistake_in_the_file_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    for content, complaint in (('{"throttle_rate": 7}', "throttle_rate"), ('{"thrttle": 1}', "thrttle"), ("{", "JSON")):
        file.write_text(content)
        command = [sys.executable, "-m", "cartwake.carriers.sandbox", "--faults", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert complaint in done.stderr and "Traceback" not in done.stderr
    command = [sys.executable, "-m", "cartwake.carriers.sandbox", "--faults", str(tmp_path / "absent.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "No such file" in done.stderr
