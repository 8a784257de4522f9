"""The command line as an operator types it, in this process: `cartwake("org", "create", "Lino Namai")`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psycopg
import pytest
import structlog

from cartwake.cli import main


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    def value(self, name: str) -> str:
        """What stands behind `name` on a line of the output."""
        return next(line.split(" ", 1)[1] for line in self.out.splitlines() if line.startswith(name + " "))


Cartwake = Callable[..., Said]


@pytest.fixture
def cartwake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cartwake]:
    """Run one command with `CARTWAKE_*` variables of the test's own; none is inherited."""
    for name in [name for name in os.environ if name.upper().startswith("CARTWAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, **environ: str) -> Said:
        capsys.readouterr()
        with monkeypatch.context() as here:
            here.setattr(sys, "argv", ["cartwake", *words])
            for name, value in environ.items():
                here.setenv(f"CARTWAKE_{name.upper()}", value)
            with pytest.raises(SystemExit) as end:
                main()
        said = capsys.readouterr()
        status = end.value.code
        return Said(status if isinstance(status, int) else int(status is not None), said.out, said.err)

    before = structlog.get_config()
    yield run
    structlog.configure(**before)


@pytest.fixture
def settled_url(fresh_url: str) -> Iterator[str]:
    """A test's database is a copy of a template; here it is the deployment's home, as `cartwake migrate` leaves it."""
    with psycopg.connect(fresh_url) as conn:
        (before,) = conn.execute("SELECT database_oid FROM deployment_home").fetchone() or (None,)
        conn.execute(
            "UPDATE deployment_home SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    yield fresh_url
    with suppress(psycopg.Error), psycopg.connect(fresh_url) as conn:  # so that it can be lent again
        conn.execute("UPDATE deployment_home SET database_oid = %s", [before])
