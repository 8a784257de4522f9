"""Ctrl-C in a terminal ends every command quietly, whenever it comes."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

# The interpreter's own start comes before anything of ours: the mark says that it is over.
BEGIN = "from cartwake.__main__ import main; print('begun', flush=True); main()"
LONGEST_S = 60.0  # only keeps a broken command from hanging the suite


def read(terminal: int, for_s: float) -> bytes | None:
    """What comes within so many seconds; None when the other end is closed."""
    if not select.select([terminal], [], [], for_s)[0]:
        return b""
    try:
        return os.read(terminal, 65536) or None
    except OSError:
        return None


def interrupted(words: list[str], after_s: float, environ: dict[str, str]) -> tuple[int, str]:
    """How a command ended that was typed in a terminal, and Ctrl-C so long after it began; and what it said."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", BEGIN, *words], environ)
    said = b""
    while b"begun" not in said:
        said += read(terminal, LONGEST_S) or b"begun without a word"
    at = time.monotonic() + after_s
    while (left_s := at - time.monotonic()) > 0 and (more := read(terminal, left_s)) is not None:
        said += more
    with suppress(OSError):  # it has ended by itself
        os.write(terminal, b"\x03")
    while (more := read(terminal, LONGEST_S)) is not None:
        said += more
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace")


MORE = [
    pytest.param(words.split(), marks=pytest.mark.thorough, id=words)
    for words in ("version", "doctor", "worker", "serve")
]


@pytest.mark.thorough
@pytest.mark.parametrize("words", [pytest.param(["org", "list"], id="org list"), *MORE])
def test_ctrl_c_ends_a_command_quietly(words: list[str], tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    # Nothing answers there: what wants a database waits for it.
    environ |= {"CARTWAKE_DATABASE_URL": "postgresql://127.0.0.1:9/nothing", "CARTWAKE_DATA_DIR": str(tmp_path)}
    chance = random.Random(" ".join(words))
    ends = set()
    for after_s in (0.02, *(chance.uniform(0, 1.0) for _ in range(5))):
        status, said = interrupted(words, after_s, environ)
        ends.add(status)
        for trace in ("Traceback", "KeyboardInterrupt", "Exception ignored", "process.failed"):
            assert trace not in said, (after_s, said)
        # Shells call both 130. What has ended by itself before has its own status.
        assert status in (130, -signal.SIGINT, 0, 1), (after_s, said)
    assert ends & {130, -signal.SIGINT}
