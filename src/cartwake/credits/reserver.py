"""For callers outside a batch: reservations of one process, gathered into one transaction per flush.

An organization's balance is one row, and whoever changes it waits for the commit before. Gathering
makes that one wait for hundreds of callers instead of one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cartwake.credits.model import SMS_ACCOUNT, Account, ReserveRequest
from cartwake.credits.reservations import reserve
from cartwake.kit.clock import Clock
from cartwake.kit.coalescer import Coalescer
from cartwake.kit.db import ENGINE, Database

# More rows per commit gain little beyond this, and a flush holds its balances locked while it writes.
FLUSH_MAX_REQUESTS = 1000


@dataclass
class _Asked:
    """One caller's request, and the answer once its flush is committed."""

    request: ReserveRequest
    is_granted: bool = False


class Reserver:
    """An edge: it opens and commits its own transactions, on the engine's login. One per event loop."""

    def __init__(self, db: Database, clock: Clock, *, account: Account = SMS_ACCOUNT) -> None:
        self._db = db
        self._clock = clock
        self._account = account
        self._coalescer = Coalescer(self._flush, batch_max=FLUSH_MAX_REQUESTS)

    async def reserve(self, request: ReserveRequest) -> bool:
        """Whether the credits were taken; answered after the commit.

        Raises what the flush raised. If that came from the commit itself, the reservation may exist
        after all: asking again answers False, and whatever releases abandoned reservations releases it.
        """
        asked = _Asked(request)
        await self._coalescer.submit(asked)
        return asked.is_granted

    async def close(self) -> None:
        """Take no more requests, and return once all that were taken are answered."""
        await self._coalescer.close()

    async def _flush(self, batch: Sequence[_Asked]) -> None:
        async with self._db.transaction(ENGINE) as conn:
            requests = [asked.request for asked in batch]
            granted = await reserve(conn, self._clock.now(), requests, account=self._account)
        for asked in batch:
            asked.is_granted = asked.request.reservation_id in granted
            granted.discard(asked.request.reservation_id)  # two callers with one id: the first has it
