"""What every process carries with it: settings, clock, ids, keys and the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cartwake.kit.clock import Clock, open_clock
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Database
from cartwake.kit.ids import Ids
from cartwake.kit.moment import Moment
from cartwake.kit.tracing import traceparent


@dataclass(frozen=True)
class Runtime:
    """One process's means. Handed down as it is; rooms take from it only what they name."""

    settings: Settings
    clock: Clock
    ids: Ids
    vault: Vault
    db: Database

    def moment(self) -> Moment:
        """Now, once, for one decision."""
        return Moment(self.clock.now(), self.ids, self.vault, self.clock.now, traceparent())


def vault_of(settings: Settings) -> Vault:
    """The vault with the deployment's secret keys, newest first."""
    return Vault([secret.get_secret_value().encode() for secret in settings.secret_keys])


@asynccontextmanager
async def open_runtime(
    settings: Settings, database_url: str, *, clock: Clock | None = None, ids: Ids | None = None
) -> AsyncIterator[Runtime]:
    """Everything a process needs, closed again on leaving. Clock and ids default to the configured ones."""
    vault = vault_of(settings)
    database = Database(database_url, vault, settings.database_pool_size, prepare=settings.database_prepare)
    try:
        yield Runtime(settings, clock or open_clock(settings.clock), ids or Ids(), vault, database)
    finally:
        await database.close()
