"""`python -m mutants [NAME ...]` (from tests/): break each guarded line in a copy of the source; a test must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("table.toml")
# A mutant may make a test hang; that is noticed too, and said.
PATIENCE_S = 300


def load_table() -> dict[str, dict[str, Any]]:
    """The mutants by name."""
    return tomllib.loads(TABLE.read_text("utf-8"))


def broken_source(mutant: dict[str, Any], folder: Path) -> Path:
    """A copy of the source with one line broken, and those that hold the same wall.

    Raises `ValueError` when a line is not there.
    """
    copy = folder / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for line in (mutant, *mutant.get("also", ())):
        file = copy / "cartwake" / line["file"]
        text = file.read_text("utf-8")
        if line["old"] not in text:
            raise ValueError(f"{line['file']} no longer holds the line")
        file.write_text(text.replace(line["old"], line["new"], 1), "utf-8")
    return copy


def how_noticed(mutant: dict[str, Any]) -> str | None:
    """Which test fails with this line broken, or that one hangs; None when none does.

    Raises `RuntimeError` when the tests cannot be run at all, which proves nothing.
    """
    with tempfile.TemporaryDirectory(prefix="cartwake-mutant-") as folder:
        report = Path(folder) / "report.xml"
        try:
            done = run_tests(
                [*mutant["tests"], f"--junitxml={report}"], broken_source(mutant, Path(folder)), PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            return "hangs"
        if done.returncode == 0:
            return None
        if failed := failed_test(report):
            return failed
    raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def failed_test(report: Path) -> str | None:
    """The test that failed, be it that it left an invariant broken; None where it was not even begun."""
    if not report.exists():
        return None
    for case in ElementTree.parse(report).iter("testcase"):
        for what in case:
            told = what.get("message", "")
            if what.tag == "failure" or (what.tag == "error" and told.startswith("failed on teardown")):
                return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
    return None


def run_tests(words: Iterable[str], source: Path, patience_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run some tests against a source, up to the first failure."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--tb=short", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )


def main(names: list[str]) -> int:
    """Run the named mutants, or all; 0 when each was noticed."""
    table = load_table()
    chosen = {name: table[name] for name in names} if names else table
    sound = run_tests(sorted({test for mutant in chosen.values() for test in mutant["tests"]}), ROOT / "src")
    if sound.returncode != 0:
        print(f"The tests fail with no line broken, so their failing would prove nothing:\n{sound.stdout}")
        return 1
    survived = []
    for name, mutant in chosen.items():
        try:
            noticed = how_noticed(mutant)
            verdict = "noticed " if noticed else "SURVIVED"
        except RuntimeError as error:
            noticed, verdict = None, f"NOT RUN: {error}\n"
        print(f"{verdict}  {mutant['guarantee']:<6} {name}  {noticed or ''}", flush=True)
        if noticed is None:
            survived.append(name)
    print(f"{len(chosen)} lines broken, {len(survived)} of them unnoticed.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
