"""`python -m mutants [NAME ...]` (from tests/): break each guarded line in a copy of the source; a test must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("table.toml")
# A mutant may make a test hang; that is noticed too.
PATIENCE_S = 180


def load_table() -> dict[str, dict[str, Any]]:
    """The mutants by name."""
    return tomllib.loads(TABLE.read_text("utf-8"))


def broken_source(mutant: dict[str, Any], folder: Path) -> Path:
    """A copy of the source with one line broken. Raises `ValueError` when the line is not there, once."""
    copy = folder / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / "cartwake" / mutant["file"]
    text = file.read_text("utf-8")
    if text.count(mutant["old"]) < 1:
        raise ValueError(f"{mutant['file']} no longer holds the line")
    file.write_text(text.replace(mutant["old"], mutant["new"], 1), "utf-8")
    return copy


def is_noticed(mutant: dict[str, Any]) -> bool:
    """Whether a test fails (or hangs) with this line broken."""
    with tempfile.TemporaryDirectory(prefix="cartwake-mutant-") as folder:
        environment = os.environ | {"PYTHONPATH": str(broken_source(mutant, Path(folder)))}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
        try:
            done = subprocess.run(
                [*command, *mutant["tests"]],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return True
    return done.returncode == 1


def main(names: list[str]) -> int:
    """Run the named mutants, or all; 0 when each was noticed."""
    table = load_table()
    survived = []
    for name in names or table:
        noticed = is_noticed(table[name])
        print(f"{'noticed ' if noticed else 'SURVIVED'}  {table[name]['guarantee']:<6} {name}", flush=True)
        if not noticed:
            survived.append(name)
    print(f"{len(names or table)} lines broken, {len(survived)} of them unnoticed.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
