"""The schema's history: Alembic keeps the order, the steps are plain SQL."""
