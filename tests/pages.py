"""The documentation's code blocks, and a deployment to run them in.

Every ```sh and ```python block of a page is run, in order, in one shell: what one exports, the next has. A block that
cannot run here has a line above it that says why: `<!-- not run: reason -->`. A line `cartwake up …` is what the reader
leaves running in another terminal: it is started first, with metrics.

A page finds what its reader has by then: the addresses and keys of a merchant with a shop (`ORG`, `SHOP`, `KEY`,
`OPERATOR_KEY`), and the settings of the deployment.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ports import free_port

ROOT = Path(__file__).parents[1]
LANGUAGES = ("sh", "python")
# World seconds per second; a page that tells the reader to wait is told for its own speed.
SPEED = 300
SLACK = 1.25
TIMEOUT_S = 240

FENCE = re.compile(
    r"^(?P<indent> *)(?:<!-- not run: (?P<reason>[^\n]*) -->\n(?P=indent))?```(?P<language>\w+)\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
UP = re.compile(r"^(?:CARTWAKE_METRICS_PORT=\d+ )?(?:\.venv/bin/)?cartwake up(?: --speed \d+)?\n", re.M)
METRICS = (9464, 9465, 9466)  # as the pages have them


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    not_run: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that a reader would run, in order."""
    text = page.read_text()
    return [
        Block(
            page.name,
            text.count("\n", 0, found.start()) + 1,
            found["language"],
            textwrap.dedent(found["code"]),
            found["reason"],
        )
        for found in FENCE.finditer(text)
        if found["language"] in LANGUAGES
    ]


@dataclass(frozen=True)
class Scratch:
    """A deployment that runs in a folder of its own."""

    folder: Path
    port: int
    sandbox_port: int
    metrics_port: int  # the first of three
    environment: dict[str, str]

    def run(self, page: list[Block], speed: float | None) -> subprocess.CompletedProcess[str]:
        """Run a page's blocks; the first that fails ends it, and the output says which."""
        return subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", "\n".join(self._lines(block, speed) for block in page)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def _lines(self, block: Block, speed: float | None) -> str:
        code = UP.sub("", block.code)
        code = code.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        code = code.replace("127.0.0.1:8090", f"127.0.0.1:{self.sandbox_port}")
        for number, port in enumerate(METRICS):
            code = code.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.metrics_port + number}")
        if speed is not None:
            code = re.sub(r"sleep (\d+)", lambda wait: f"sleep {int(wait[1]) * speed / SPEED * SLACK}", code)
        if block.language == "python":
            code = f"python - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK\n"
        return f"echo '--- {block.page}, line {block.line}'\n{code}"


def told_speed(page: list[Block]) -> float | None:
    """How fast the page tells its reader to let the clock run."""
    found = re.search(r"cartwake up .*--speed (\d+)", "\n".join(block.code for block in page))
    return float(found[1]) if found else None


@contextmanager
def scratch(folder: Path) -> Iterator[Scratch]:
    """Everything that `cartwake up` starts, on a quick clock, with a merchant in it."""
    (folder / ".venv").symlink_to(sys.prefix)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    environment["PATH"] = os.pathsep.join([str(folder / ".venv" / "bin"), environment["PATH"]])
    port = free_port()
    environment["CARTWAKE_PORT"] = str(port)
    metrics_port = _free_ports(len(METRICS))
    command = ["cartwake", "up", "--speed", str(SPEED)]
    its_own = environment | {"CARTWAKE_METRICS_PORT": str(metrics_port)}
    with subprocess.Popen(command, cwd=folder, env=its_own, stdout=subprocess.PIPE, text=True) as up:
        try:
            sandbox_port = _sandbox_port(up)
            environment |= _settings(folder, port, sandbox_port)
            environment |= _merchant(folder, environment)
            yield Scratch(folder, port, sandbox_port, metrics_port, environment)
        finally:
            up.send_signal(signal.SIGTERM)
            ended = up.wait(60)
    assert ended == 0


def _free_ports(in_a_row: int) -> int:
    """The first of several loopback ports that are free.

    Below those that the system gives to whoever calls out: between looking and starting a few seconds pass.
    """
    while True:
        first = random.randrange(15_000, 30_000)
        with ExitStack() as held:
            try:
                for port in range(first, first + in_a_row):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


def _sandbox_port(up: subprocess.Popen[str]) -> int:
    assert up.stdout is not None
    for line in up.stdout:
        if found := re.search(r"sandbox +http://127.0.0.1:(\d+)", line):
            return int(found[1])
    raise AssertionError(f"`cartwake up` ended with {up.wait()}")


def _settings(folder: Path, port: int, sandbox_port: int) -> dict[str, str]:
    words = (folder / ".cartwake" / "trial.env").read_text()
    script = f'{words}\necho "$CARTWAKE_CLOCK"; echo "$CARTWAKE_DATABASE_URL"'
    clock, url = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        "CARTWAKE_CLOCK": clock,
        "CARTWAKE_DATABASE_URL": url,
        "CARTWAKE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "CARTWAKE_TWILIO_API_BASE": f"http://127.0.0.1:{sandbox_port}",
    }


def _merchant(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    def words(*command: str) -> dict[str, str]:
        done = subprocess.run(
            ["cartwake", *command], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line) or {
            "": done.stdout.strip()
        }

    organization = words("org", "create", "Siuntos Namai")["organization_id"]
    shop = words("shop", "create", organization, "Siuntos Namai", "--country", "LT", "--locale", "lt")
    words("number", "add", organization, shop["shop_id"], "+37061000009")
    words("credits", "adjust", organization, "50", "--note", "welcome")
    return {
        "ORG": organization,
        "SHOP": shop["shop_id"],
        "KEY": shop["shop_secret"],
        "OPERATOR_KEY": words("key", "operator")[""],
    }
