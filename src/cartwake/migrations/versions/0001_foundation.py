"""The first schema: tenants, credits, consent, carts, numbers, messages, periodic work."""

from cartwake.migrations.steps import run_sql_beside

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql_beside(__file__)
