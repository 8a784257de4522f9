"""One decision's means: the time, read once, with the ids and keys that whatever it writes will need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from cartwake.kit.crypto import Vault
from cartwake.kit.ids import Ids


@dataclass(frozen=True)
class Moment:
    """Made by the edge once per request, batch or command, and handed down."""

    now: datetime
    ids: Ids
    vault: Vault
    read_clock: Callable[[], datetime] | None = None
    traceparent: str | None = None  # of the trace that this belongs to, stored with what is to be followed

    def new_id(self) -> UUID:
        """A fresh id stamped with this moment."""
        return self.ids.new(self.now)

    def after_waiting(self) -> Moment:
        """The moment now, for what took effect only once a lock was had. Without a clock it is the same still."""
        return replace(self, now=self.read_clock()) if self.read_clock else self
