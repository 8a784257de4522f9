"""One decision's means: the time, read once, with the ids and keys that whatever it writes will need."""

from __future__ import annotations

from dataclasses import dataclass
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

    def new_id(self) -> UUID:
        """A fresh id stamped with this moment."""
        return self.ids.new(self.now)
