"""Bring a database to the schema that this version of the code expects."""

from __future__ import annotations

import hmac
import time
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import NullPool, create_engine

from cartwake.kit.crypto import Vault
from cartwake.kit.db import LOGINS, WEB, Connection, Database, ailment, row
from cartwake.kit.schema_parts import keep_parts, missing_parts, some, tables_of_ours

# Any constant will do; it keeps two `cartwake migrate` from running into each other.
MIGRATION_LOCK = 0x0CA27_3A4E
CONNECT_TIMEOUT_S = 10
# Why a login of ours may be refused. Of the three, a wrong key is the one that must not be mended by migrating.
NO_ENTRY = (
    "Either CARTWAKE_SECRET_KEYS is not what this database was set up with (the logins' passwords come from it), or "
    "`cartwake migrate` has not run there yet."
)

# This server and this database are the deployment's home.
SETTLE_HERE = """
INSERT INTO deployment_home (system_identifier, database_oid)
SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
"""
# The keys that this database was first migrated with; NULL before that.
KEYS_KNOWN = "SELECT to_regclass('public.deployment_keys')"
READ_KEYS_MARK = "SELECT mark FROM public.deployment_keys"
KEEP_KEYS_MARK = "INSERT INTO public.deployment_keys (mark) VALUES (%s) ON CONFLICT (only_row) DO NOTHING"
VERSION_KNOWN = "SELECT to_regclass('public.alembic_version') IS NOT NULL"
READ_VERSION = "SELECT version_num FROM public.alembic_version"
LOGINS_THERE = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
PART_OF_IT = (
    "It is a part of a schema, as a restore leaves it that was broken off or found no logins. Nothing was changed.\n"
    'Restore once more, into an empty database (docs/operate.md, "Back up, and restore"), or give another database in '
    "CARTWAKE_DATABASE_URL (or _FILE)."
)
RETRY_PAUSE_S = 0.2
# A migration's tries to get its locks; each waits as long as `run_sql_beside` lets it.
LOCK_TRIES = 12
LOCK_PAUSE_S = 1.0


def migrate(url: str, vault: Vault) -> str:
    """Run every migration that is missing, then set the passwords of the logins; the revision that it is at now.

    A database that a newer version has migrated is left as it is: this one runs on it (`is_older`), as it does after
    an upgrade that was taken back.

    `url` must be a login that owns the database and may create roles. Idempotent, and safe to start
    on several machines at once: the others wait. Raises `NotReadyError`, with nothing changed, when the database was
    set up with other secret keys, or holds a part of a schema.
    """
    mark = vault.hash("deployment", "keys-mark")
    with psycopg.connect(url, autocommit=True) as guard:
        guard.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        _require_same_keys(guard, mark)
        revision = _require_whole(guard)
        if revision is not None and revision > expected_revision():
            return revision
        _run_migrations_patiently(url)
        guard.execute(SETTLE_HERE + " ON CONFLICT (only_row) DO NOTHING")
        guard.execute(KEEP_KEYS_MARK, [mark])
        for login in LOGINS:
            guard.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(login), sql.Literal(vault.password(login))
                )
            )
    return expected_revision()


@cache
def expected_revision() -> str:
    """The newest migration that this version of the code ships."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def current_revision(conn: Connection) -> str | None:
    """The newest migration that this database has had; None when it has had none. Web login."""
    found = await row(conn, "SELECT version_num FROM alembic_version")
    return found["version_num"] if found else None


def is_older(revision: str | None) -> bool:
    """Whether a database at `revision` (None: at none) lacks what this version of the code needs.

    A newer one does not: while an upgrade rolls, old processes work on the new schema. Revisions are numbered in
    order, so that a process can tell a newer one which it has never heard of.
    """
    return revision is None or revision < expected_revision()


async def settle_here(conn: Connection) -> None:
    """This server and this database are the deployment's home from now on. Operator login."""
    await conn.execute(
        SETTLE_HERE + " ON CONFLICT (only_row) DO UPDATE SET system_identifier = EXCLUDED.system_identifier,"
        " database_oid = EXCLUDED.database_oid"
    )


class NotReadyError(Exception):
    """The database cannot be used as it is; the message says why and what to do."""


def check_ready(db: Database, patience_s: float = 0) -> None:
    """Raise `NotReadyError` unless the database answers our login and has this version's schema, or a newer one.

    A server that is away, because it restarts or recovers from a crash, is waited for, `patience_s` at most; this
    blocks.
    """
    try:
        found = _ask(db, "SELECT version_num FROM alembic_version", [], patience_s)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege):
        raise NotReadyError("The database has no schema of Cartwake's yet. Run: cartwake migrate") from None
    if is_older(str(found[0]) if found else None):
        raise NotReadyError("The database's schema is older than this version of Cartwake. Run: cartwake migrate")


def pause_if_moved(db: Database, now: datetime, patience_s: float = 0) -> bool:
    """Whether this database was restored from a backup, elsewhere than where it was made.

    Its sending is then paused, for it does not know what went out since the backup; `cartwake recover` finds out.
    Waits for the server as `check_ready` does, since it may go between the two. Raises `NotReadyError`.
    """
    return _ask(db, "SELECT pause_moved_deployment(%s)", [now], patience_s) == (True,)


def _ask(db: Database, query: str, params: list[object], patience_s: float) -> tuple[object, ...] | None:
    """The first row of a query that may be run twice: again and again while the server is away."""
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            with psycopg.connect(db.conninfo(WEB), connect_timeout=CONNECT_TIMEOUT_S) as conn:
                return conn.execute(query, params).fetchone()
        except psycopg.OperationalError as error:
            # Waiting changes no password. (What failed to connect has no SQLSTATE, only words.)
            refused = "authentication failed" in str(error)
            if refused or time.monotonic() > deadline_s:
                away = ailment(error) or "Start it, or set CARTWAKE_DATABASE_URL to where it is."
                advice = NO_ENTRY if refused else away
                raise NotReadyError(f"The database cannot be used: {str(error).strip()}\n{advice}") from None
        time.sleep(RETRY_PAUSE_S)


def _require_same_keys(guard: psycopg.Connection[Any], mark: bytes) -> None:
    """Lookups and passwords come from the oldest key, so that one stays for ever; newer ones may be added."""
    if guard.execute(KEYS_KNOWN).fetchone() == (None,):
        return
    known = guard.execute(READ_KEYS_MARK).fetchone()
    if known is not None and not hmac.compare_digest(known[0], mark):
        raise NotReadyError(
            "This database was set up with other secret keys: with these, no phone in it could be read and no STOP "
            "found. Nothing was changed.\nGive CARTWAKE_SECRET_KEYS (or _FILE) the keys that it was set up with: the "
            "oldest stays last, new ones go in front."
        )


def _require_whole(guard: psycopg.Connection[Any]) -> str | None:
    """The revision that the database is at; None for an empty one.

    A schema of which a part is missing is not for migrating: what is missing may be its walls.
    """
    (is_versioned,) = guard.execute(VERSION_KNOWN).fetchone() or (False,)
    found = guard.execute(READ_VERSION).fetchone() if is_versioned else None
    if found is None:
        if ours := tables_of_ours(guard):
            raise NotReadyError(f"This database has tables of Cartwake's ({some(ours)}) and no version.\n{PART_OF_IT}")
        return None
    there = {login for (login,) in guard.execute(LOGINS_THERE, [list(LOGINS)]).fetchall()}
    if absent := [login for login in LOGINS if login not in there]:
        raise NotReadyError(
            f"This server lacks the logins {', '.join(absent)}, which a backup does not hold.\n{PART_OF_IT}"
        )
    if missing := missing_parts(guard):
        raise NotReadyError(
            f"The database says that it is at revision {found[0]}, but lacks {some(missing)}.\n{PART_OF_IT}"
        )
    return str(found[0])


def _run_migrations_patiently(url: str) -> None:
    """A step that does not get its lock in time has given up its turn, so that nobody queues behind it; again, then.

    Raises `NotReadyError` when it never does.
    """
    for _ in range(LOCK_TRIES):
        try:
            return _run_migrations(url)
        except psycopg.errors.LockNotAvailable:
            time.sleep(LOCK_PAUSE_S)
        except psycopg.errors.InsufficientPrivilege:
            raise
        except psycopg.ProgrammingError as error:
            # Functions alone, say, or a table of somebody else's that bears the name of one of ours.
            said = (error.diag.message_primary or type(error).__name__).strip()
            raise NotReadyError(f"The migration met something that it did not expect: {said}.\n{PART_OF_IT}") from None
    raise NotReadyError(
        "The migration did not get the locks that it needs: a transaction holds a table for minutes. Find it in "
        "pg_stat_activity, end it, and run `cartwake migrate` again. Nothing was changed."
    )


def _run_migrations(url: str) -> None:
    # Through psycopg itself, which reads every form of address that an operator may give.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        config.attributes["on_version_apply"] = _keep_parts
        command.upgrade(config, "head")
        connection.commit()


def _keep_parts(*, ctx: MigrationContext, step: MigrationInfo, **_: object) -> None:
    connection = ctx.connection
    assert connection is not None and connection.connection.driver_connection is not None
    keep_parts(connection.connection.driver_connection, str(step.up_revision_id))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("cartwake.migrations")))
    return config
