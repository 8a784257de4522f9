"""The commands of docs/bullmq.md as they stand there, with a Valkey for the page's Redis."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pages import ROOT, blocks, scratch
from ports import free_port
from queue_server import queue_server

pytestmark = [pytest.mark.slow, pytest.mark.bullmq]

CHOOSE, BOARD = blocks(ROOT / "docs" / "bullmq.md")
REDIS, PASSWORD = "127.0.0.1:6379", "password"  # as the page has them
PATIENCE_S = 120.0


def test_the_doctor_finds_nothing_wrong_with_the_queue_that_was_chosen(tmp_path: Path) -> None:
    with queue_server("valkey", tmp_path / "valkey", "--requirepass", PASSWORD) as server:
        here = CHOOSE.code.replace(REDIS, f"127.0.0.1:{server.port}")
        assert here != CHOOSE.code
        with scratch(tmp_path) as deployment:
            done = deployment.run([replace(CHOOSE, code=here)], None)
    assert done.returncode == 0, done.stdout
    assert "the queue answers, takes writes, keeps its jobs" in done.stdout, done.stdout


def test_the_board_lists_the_three_queues(tmp_path: Path) -> None:
    assert shutil.which("npm"), "Node is not installed: `make bullmq` does that"
    shutil.copytree(ROOT / "tests" / "node", tmp_path / "tests" / "node", ignore=shutil.ignore_patterns("node_modules"))
    port = free_port()
    with queue_server("valkey", tmp_path / "valkey") as server:
        code = BOARD.code.replace(REDIS, f"127.0.0.1:{server.port}").replace("PORT=3000", f"PORT={port}")
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=tmp_path,
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            listed = httpx.get(f"{_address(process)}/api/queues").json()["queues"]
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    assert [queue["name"] for queue in listed] == ["cartwake-texts", "cartwake-email", "cartwake-maintenance"]


def _address(board: subprocess.Popen[str]) -> str:
    """What it prints once it serves."""
    assert board.stdout is not None
    deadline, said = time.monotonic() + PATIENCE_S, ""
    for line in board.stdout:
        if line.startswith("http://127.0.0.1:"):
            return line.strip()
        said += line
        assert time.monotonic() < deadline, said
    raise AssertionError(said)
