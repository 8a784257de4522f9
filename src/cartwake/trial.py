"""A database and a clock of its own for each run that only tries things, so that no run sees another's."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cartwake.kit.clock import SystemClock
from cartwake.kit.crypto import Vault
from cartwake.kit.schema import migrate

# Those of earlier runs. One that somebody is connected to is a run that still goes on.
LEFT_BEHIND = """
SELECT datname FROM pg_database d
WHERE starts_with(datname, %s) AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)
"""


def fresh_database(server_url: str, vault: Vault, purpose: str) -> str:
    """Make a new, migrated database on this server, drop those of earlier runs, and return its address.

    `purpose`: a word for its name; runs with another purpose are left alone.
    """
    prefix = f"cartwake_{purpose}_"
    name = f"{prefix}{int(SystemClock().now().timestamp())}_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        for (old,) in conn.execute(LEFT_BEHIND, [prefix]).fetchall():
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(old)))
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = make_conninfo(server_url, dbname=name)
    migrate(url, vault)
    return url


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """A file to `source`, so that commands in another terminal join this run. It holds a password: mode 0600."""
    path.touch(mode=0o600)
    path.write_text(
        "".join(f"unset {name}_FILE; export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    )
