"""What the pages say to type at the top of a checkout, typed there: in a copy of ours, with an empty home."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pages import ROOT, blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("make") is None, reason="the pages use make"),
]

LEFT_BEHIND = (".git", ".venv", ".tools", ".cartwake", "node_modules", "__pycache__", "site", "secrets", ".*_cache")
SETUP_TIMEOUT_S = 400


class Checkout:
    """A copy of the checkout, with nothing installed in it."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "cartwake"
        shutil.copytree(ROOT, self.top, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        (folder / "home").mkdir()
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("CARTWAKE_", "MAKE"))}
        self._environment = ours | {"HOME": str(folder / "home")}

    def types(self, page: str, command: str, **environment: str) -> str:
        """Type the block of a page that says `command`, and nothing else; what it said."""
        (block,) = [block for block in blocks(ROOT / "docs" / page) if block.code.strip() == command]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.code],
            cwd=self.top,
            env=self._environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SETUP_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Set up as quickstart.md says."""
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    assert "Setting up .venv" in made.types("quickstart.md", "make setup")
    return made


def test_setting_up_installs_the_command_and_once_is_enough(checkout: Checkout) -> None:
    said = subprocess.run([checkout.top / ".venv/bin/cartwake", "--help"], capture_output=True, text=True, check=True)
    assert "doctor" in said.stdout
    assert "Setting up" not in checkout.types("quickstart.md", "make setup")


def test_every_benchmark_prints_its_figures_beside_a_reference(checkout: Checkout) -> None:
    said = checkout.types("scale.md", "make bench", BENCH_SHARE="0.02")
    for figure in ("reservations, one hot organization", "dispatch", "median postgres", "median bullmq"):
        assert figure in said
    assert said.count("ratio") == 2
