"""The sandbox's faults, given as a file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cartwake.carriers.sandbox import Options, running_sandbox
from cartwake.carriers.sandbox.faults import Faults
from pages import ROOT, blocks
from ports import free_port

PAGE = ROOT / "docs" / "sandbox.md"


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


@pytest.mark.thorough
def test_the_page_s_file_is_in_force_from_the_start(tmp_path: Path) -> None:
    (block,) = [each for each in blocks(PAGE) if each.not_run]
    port = free_port()
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = [
        "bash",
        "-e",
        "-c",
        block.code.replace("8091", str(port)).replace("cartwake sandbox", "exec cartwake sandbox"),
    ]
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and "sandbox on http://" in running.stdout.readline()
        shown = httpx.get(f"http://127.0.0.1:{port}/sandbox/faults").json()
        running.send_signal(signal.SIGINT)
    told = json.loads((tmp_path / "faults.json").read_text())
    assert told and {name: shown[name] for name in told} == told


def test_the_page_lists_every_fault_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [
        (name, str(field.default), field.description or "decides who is struck")
        for name, field in Faults.model_fields.items()
    ]
