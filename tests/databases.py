"""Databases to test in: each under a name of its own, empty, and as the migrations left it.

A copy of the template is 300 new files, nearly all of them PostgreSQL's own catalogue: about 0.15 s of CPU, far more
than most tests need. To empty a database costs a tenth of that (by DELETE: TRUNCATE makes new files again). So one that
only has other rows than before is emptied and lent again; one whose catalogue differs, or that cannot be emptied, is
dropped.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

import psycopg
from psycopg import sql

FIRST_OWN_OID = 16384
# Every row that a change of the schema writes has a newer xmin, and one that it removes is missing.
CATALOGUE = " UNION ALL ".join(
    f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM {name} WHERE {key} >= {FIRST_OWN_OID}"
    for name, key in {
        "pg_attrdef": "oid",
        "pg_attribute": "attrelid",
        "pg_class": "oid",
        "pg_constraint": "oid",
        "pg_index": "indexrelid",
        "pg_namespace": "oid",
        "pg_policy": "oid",
        "pg_proc": "oid",
        "pg_trigger": "oid",
        "pg_type": "oid",
    }.items()
)
FILLED_TABLES = (
    "SELECT relname FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0"
)
# A connection whose process is gone, or is going, may still be there.
OUST = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"

State = list[tuple[object, ...]]


class Databases:
    """The databases of one pytest worker."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url, self._template = server_url, template
        self._server = psycopg.connect(server_url, autocommit=True)
        self._spare: list[str] = []
        first = self.take()
        with psycopg.connect(self.url(first)) as conn:
            self._filled = [name for (name,) in conn.execute(FILLED_TABLES)]
            self._pristine = self._state(conn)
        self._spare.append(first)

    def url(self, name: str) -> str:
        """The same server and login, another database."""
        return psycopg.conninfo.make_conninfo(self._server_url, dbname=name)

    def take(self) -> str:
        """An empty migrated database, whose name nobody has heard before."""
        if self._spare:
            return self._spare.pop()
        name = _new_name()
        self._do("CREATE DATABASE {} TEMPLATE {}", name, self._template)
        return name

    def give_back(self, name: str) -> None:
        """Keep the database for another test, or drop it."""
        with suppress(psycopg.Error):
            self._server.execute(OUST, [name])
            # Whoever still knows it by its old name does not reach it any more.
            renamed = _new_name()
            self._do("ALTER DATABASE {} RENAME TO {}", name, renamed)
            name = renamed
            if self._empty(name):
                self._spare.append(name)
                return
        self._do("DROP DATABASE {} WITH (FORCE)", name)

    def close(self) -> None:
        """Drop what is left."""
        for name in self._spare:
            self._do("DROP DATABASE {} WITH (FORCE)", name)
        self._server.close()

    def _empty(self, name: str) -> bool:
        """Remove all rows but the template's; False when that does not make it the template's equal."""
        with psycopg.connect(self.url(name), autocommit=True) as conn:
            if self._state(conn) != self._pristine:
                return False
            # Neither the history's guards nor foreign keys have a say.
            conn.execute("SET session_replication_role = replica")
            used = [name for (name,) in conn.execute(FILLED_TABLES) if name not in self._filled]
            for table in used:
                conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
            if used:  # else new rows would fill gaps, and lie in another order than they were written in
                tables = sql.SQL(", ").join(sql.Identifier(table) for table in used)
                conn.execute(sql.SQL("VACUUM (INDEX_CLEANUP ON, TRUNCATE ON) {}").format(tables))
            return True

    def _state(self, conn: psycopg.Connection) -> State:
        """The catalogue, and the rows that the migrations wrote."""
        found: State = conn.execute(CATALOGUE).fetchall()
        for table in self._filled:
            found += conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
        return found

    def _do(self, command: str, *names: str) -> None:
        self._server.execute(sql.SQL(command).format(*map(sql.Identifier, names)))


def _new_name() -> str:
    return f"test_{uuid.uuid4().hex}"
