"""The README's five minutes, typed as they stand there, only on a faster clock."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# 45 minutes and a scan are 50; at this speed they take ten seconds of the sixty that the README waits.
SPEED = "300"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README uses curl")
def test_the_five_minutes_work_as_written(tmp_path: Path) -> None:
    setup, *rest = re.findall(r"```sh\n(.*?)```", _section("## Five minutes, by hand"), flags=re.DOTALL)
    assert "cartwake up --speed 60" in setup
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    up = subprocess.Popen(
        [".venv/bin/cartwake", "up", "--speed", SPEED],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None
        assert any("Cartwake is up" in line for line in up.stdout)
        typed = "\n".join(rest).replace("sleep 60", "sleep 15")
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", typed],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        up.send_signal(signal.SIGINT)
        rest_of_it, _ = up.communicate(timeout=60)
        ended, said = up.returncode, rest_of_it.splitlines()[-1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "302 https://shop.example/checkout?cart=1&step=cart_recovery_sms&cartwake_token=" in done.stdout
    assert "The text is delivered." in done.stdout
    assert "0 broken" in done.stdout
    assert '"suppressed":true' in done.stdout
    assert (ended, said) == (0, "Stopped: sandbox, web, worker, scheduler, the embedded database."), (
        "Ctrl-C is no failure"
    )


def _section(title: str) -> str:
    text = (ROOT / "README.md").read_text()
    start = text.index(title)
    return text[start : text.index("\n## ", start + 1)]
