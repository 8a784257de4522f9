"""How a migration runs its SQL files."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run_sql_beside(migration_file: str) -> None:
    """Run every `.sql` file of the folder named like the migration, in order of name."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    # A migration that cannot get its lock gives up instead of queueing every request behind it.
    connection.execute("SET LOCAL lock_timeout = '5s'")
    for step in sorted(Path(migration_file).with_suffix("").glob("*.sql")):
        connection.execute(step.read_text())
