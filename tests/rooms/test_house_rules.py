"""Rules of the house that no linter knows: each is a line of the design that prose alone would not hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "cartwake"

# Rule, pattern, and the places where it is the very job.
RULES = [
    (
        "SQL never asks the database for the time: times are parameters, from the injected clock",
        re.compile(r"(?<![.\w`])now\(\)|\bcurrent_timestamp\b|\bclock_timestamp\b|\blocaltimestamp\b", re.I),
        {"kit/clock.py", "doctor/store.py"},  # the doctor compares clocks
    ),
    (
        "nobody reads a clock but the clock",
        re.compile(r"datetime\.now\(|datetime\.utcnow\(|date\.today\(|\btime\.time\("),
        {"kit/clock.py"},
    ),
    (
        "only the edge opens transactions; rooms take a connection",
        re.compile(r"\.transaction\(|tenant_transaction\("),
        {
            "kit/db.py",
            "tenants/scope.py",
            "credits/reserver.py",
            "worker.py",
            "scheduler.py",
            "maintenance.py",
            "timekeeping.py",
            "observe/exporter.py",
        },
    ),
    ("nobody commits or rolls back by hand", re.compile(r"\.(commit|rollback)\("), {"kit/schema.py"}),
    (
        "time zones come from the tzdata package, never from the operating system's older table",
        re.compile(r"\bZoneInfo\("),
        {"quiet_hours/zones.py"},
    ),
    (
        "SQL is never built by formatting strings",
        re.compile(r"execute\(\s*f[\"']|execute\([^)]*\.format\(|execute\([^)]*%\s*\("),
        {"kit/embedded.py"},  # a constant name, before any schema exists
    ),
    (
        "an error's message is never logged: it may quote what somebody sent (kit/logs.py reduces `exc_info`)",
        re.compile(r"log\.\w+\(.*\b(str|repr)\((error|failure|exc)|log\.\w+\(.*(?<!exc_info)=(error|failure)\b"),
        {"kit/embedded.py"},  # before there is anything to quote: what the system said about a folder
    ),
]
EDGES = ("cli/", "web/", "demo/", "cluster.py")


def source_lines(exempt: set[str]) -> Iterator[tuple[str, int, str]]:
    for file in sorted([*SOURCE.rglob("*.py"), *SOURCE.rglob("*.sql")]):
        name = file.relative_to(SOURCE).as_posix()
        if name in exempt:
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not line.lstrip().startswith(("#", "--", '"""')):
                yield name, number, line


@pytest.mark.parametrize(("rule", "pattern", "exempt"), RULES, ids=[rule for rule, _, _ in RULES])
def test_house_rule(rule: str, pattern: re.Pattern[str], exempt: set[str]) -> None:
    edge_rule = "edge" in rule
    broken = [
        f"{name}:{number}: {line.strip()}"
        for name, number, line in source_lines(exempt)
        if pattern.search(line) and not (edge_rule and name.startswith(EDGES))
    ]
    assert not broken, f"{rule}:\n" + "\n".join(broken)


def test_files_stay_readable() -> None:
    long = {name: count for name, count in _line_counts() if count > 420}
    assert not long, f"two rooms in one? {long}"


def _line_counts() -> Iterator[tuple[str, int]]:
    for file in SOURCE.rglob("*.py"):
        yield file.relative_to(SOURCE).as_posix(), len(file.read_text().splitlines())
