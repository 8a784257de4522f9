"""Databases to test in: each empty, and as the migrations left it.

A copy of the template is 300 new files, nearly all of them PostgreSQL's own catalogue: about 0.15 s of CPU, far more
than most tests need. To empty a database costs a tenth of that (by DELETE: TRUNCATE makes new files again). So one that
only has other rows than before is emptied and lent again; one whose catalogue differs, or that cannot be emptied, is
dropped.

Its connections go on with it: a new one forks a process that logs in, and then reads the catalogue and plans every
statement anew, which is more work than most tests are. They are closed when anybody else's was still open or when a
test had many; the database then gets another name, so that nobody who remembers it comes back.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cartwake.kit.crypto import Vault
from cartwake.kit.db import Database

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
KEPT = "kept by the tests"  # the application_name of connections that may outlive a test
OTHERS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = %s"
    f" AND (application_name <> '{KEPT}' OR state <> 'idle') AND pid <> pg_backend_pid()"
)
OUST = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
GOING_S = 0.05  # how long a connection that was closed just now may take to go
KEPT_AT_MOST = 4  # connections of a pool

# The database notes each move of a message as it happens, whoever makes it. A message that is held again
# moves too: to another time.
NOTE_ARROWS = """
CREATE TABLE walked_arrows (message_id uuid NOT NULL, source varchar(40) NOT NULL, target varchar(40) NOT NULL);
GRANT SELECT ON walked_arrows TO cartwake_engine;
CREATE FUNCTION note_arrow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO walked_arrows VALUES (NEW.message_id, OLD.state, NEW.state);
  RETURN NULL;
END $$;
CREATE TRIGGER note_arrow AFTER UPDATE ON sms_messages FOR EACH ROW
  WHEN (OLD.state <> NEW.state OR OLD.due_at <> NEW.due_at) EXECUTE FUNCTION note_arrow();
"""

State = list[tuple[object, ...]]


@dataclass
class Lent:
    """A database, with the connections that go on with it."""

    name: str
    url: str  # owner login
    pools: Database
    owner: psycopg.Connection
    pristine: State = field(default_factory=list)  # what to find again before it may be lent again

    async def hang_up(self) -> None:
        """Close every connection of ours."""
        self.owner.close()
        await self.pools.close()

    def holds_little(self) -> bool:
        """Whether so few connections were needed that they may stay."""
        return all(stats["pool_size"] <= KEPT_AT_MOST for stats in self.pools.pool_stats().values())


class Databases:
    """The databases of one pytest worker. `changed`: what tests need in each of them beside the template."""

    def __init__(self, server_url: str, template: str, vault: Vault, changed: str = "") -> None:
        self._server_url, self._template, self._vault, self._changed = server_url, template, vault, changed
        self._server = psycopg.connect(server_url, autocommit=True)
        self._spare: list[Lent] = []
        self._filled: list[str] = []  # tables in which the migrations wrote rows

    def take(self) -> Lent:
        """An empty migrated database."""
        if self._spare:
            return self._spare.pop()
        name = _new_name()
        self._do("CREATE DATABASE {} TEMPLATE {}", name, self._template)
        lent = self._open(name)
        self._filled = [table for (table,) in lent.owner.execute(FILLED_TABLES)]
        if self._changed:
            lent.owner.execute(self._changed)
        return replace(lent, pristine=self._state(lent.owner))

    async def give_back(self, lent: Lent) -> None:
        """Keep the database for another test, or drop it."""
        name = lent.name
        with suppress(psycopg.Error):
            if not lent.holds_little() or self._is_visited(name):
                await lent.hang_up()
                name = self._cleared(name)
                lent = replace(self._open(name), pristine=lent.pristine)
            if self._empty(lent):
                self._spare.append(lent)
                return
        await lent.hang_up()
        self._do("DROP DATABASE {} WITH (FORCE)", name)

    async def close(self) -> None:
        """Drop what is left."""
        for lent in self._spare:
            await lent.hang_up()
            self._do("DROP DATABASE {} WITH (FORCE)", lent.name)
        self._server.close()

    def _cleared(self, name: str) -> str:
        """Nobody is connected any more, or finds it again: its new name."""
        while self._server.execute(OUST, [name]).fetchone():
            time.sleep(0.001)  # PostgreSQL's own way to wait for their end takes 0.1 s
        renamed = _new_name()
        self._do("ALTER DATABASE {} RENAME TO {}", name, renamed)
        return renamed

    def _is_visited(self, name: str) -> bool:
        """Whether anybody else is connected, or anything still runs."""
        deadline_s = time.monotonic() + GOING_S
        while self._server.execute(OTHERS, [name]).fetchone():
            if time.monotonic() > deadline_s:
                return True
            time.sleep(0.001)
        return False

    def _open(self, name: str) -> Lent:
        url = make_conninfo(self._server_url, dbname=name)
        kept = make_conninfo(url, application_name=KEPT)
        return Lent(name, url, Database(kept, self._vault), psycopg.connect(kept, autocommit=True))

    def _empty(self, lent: Lent) -> bool:
        """Remove all rows but the template's; False when that does not make it what it was."""
        conn = lent.owner
        if self._state(conn) != lent.pristine:
            return False
        # Neither the history's guards nor foreign keys have a say.
        conn.execute("SET session_replication_role = replica")
        used = [name for (name,) in conn.execute(FILLED_TABLES) if name not in self._filled]
        if used:
            conn.execute(sql.SQL(";").join(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)) for table in used))
            # Else new rows would fill gaps, and lie in another order than they were written in.
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
