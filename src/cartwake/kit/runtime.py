"""What every process carries with it: settings, clock, ids, keys and the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cartwake.kit.clock import Clock, open_clock
from cartwake.kit.config import Settings
from cartwake.kit.crypto import Vault, b64url, un_b64url
from cartwake.kit.db import Database
from cartwake.kit.ids import Ids
from cartwake.kit.moment import Moment
from cartwake.kit.tracing import traceparent

DEPLOYMENT, DEPLOYMENT_PURPOSE = b"this deployment", "deployment-mark"


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


def deployment_mark(vault: Vault) -> str:
    """What tells a deployment from others: proof of its secret key, which tells nothing about the key."""
    return b64url(vault.sign(DEPLOYMENT, DEPLOYMENT_PURPOSE, 9))


def is_our_mark(vault: Vault, mark: str) -> bool:
    """Whether a process with one of our secret keys made this mark."""
    try:
        return vault.verify(DEPLOYMENT, un_b64url(mark), DEPLOYMENT_PURPOSE)
    except ValueError:
        return False


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
