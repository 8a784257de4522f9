"""Bring a database to the schema that this version of the code expects."""

from __future__ import annotations

from importlib.resources import files

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine

from cartwake.kit.crypto import Vault
from cartwake.kit.db import LOGINS, WEB, Connection, Database, row

# Any constant will do; it keeps two `cartwake migrate` from running into each other.
MIGRATION_LOCK = 0x0CA27_3A4E
CONNECT_TIMEOUT_S = 10


def migrate(url: str, vault: Vault) -> None:
    """Run every migration that is missing, then set the passwords of the logins.

    `url` must be a login that owns the database and may create roles. Idempotent, and safe to start
    on several machines at once: the others wait.
    """
    with psycopg.connect(url, autocommit=True) as guard:
        guard.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        _run_migrations(url)
        for login in LOGINS:
            guard.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(login), sql.Literal(vault.password(login))
                )
            )


def expected_revision() -> str:
    """The newest migration that this version of the code ships."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def current_revision(conn: Connection) -> str | None:
    """The newest migration that this database has had; None when it has had none. Web login."""
    found = await row(conn, "SELECT version_num FROM alembic_version")
    return found["version_num"] if found else None


class NotReadyError(Exception):
    """The database cannot be used as it is; the message says why and what to do."""


def check_ready(db: Database) -> None:
    """Raise `NotReadyError` unless the database answers our login and has this version's schema, or a newer one.

    Newer is fine: while an upgrade rolls, old processes work on the new schema.
    """
    try:
        with psycopg.connect(db.conninfo(WEB), connect_timeout=CONNECT_TIMEOUT_S) as conn:
            found = conn.execute("SELECT version_num FROM alembic_version").fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        raise NotReadyError("The database has no schema of Cartwake's yet. Run: cartwake migrate") from None
    except psycopg.OperationalError as error:
        raise NotReadyError(
            f"The database cannot be used: {str(error).strip()}\n"
            "If it was never migrated, or the secret keys have changed since, run: cartwake migrate"
        ) from None
    older = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    older.discard(expected_revision())
    if found is None or found[0] in older:
        raise NotReadyError("The database's schema is older than this version of Cartwake. Run: cartwake migrate")


def _run_migrations(url: str) -> None:
    # Through psycopg itself, which reads every form of address that an operator may give.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("cartwake.migrations")))
    return config
