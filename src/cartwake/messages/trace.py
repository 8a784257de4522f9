"""Every evaluation is kept, so that "why was this cart (not) texted?" has an answer for every cart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from cartwake.kit.db import Connection
from cartwake.kit.moment import Moment
from cartwake.messages import store
from cartwake.messages.model import Verdict


@dataclass(frozen=True)
class Traced:
    """A verdict and what it is about."""

    organization_id: UUID
    shop_id: UUID
    session_id: UUID
    message_id: UUID | None
    verdict: Verdict


async def keep(conn: Connection, moment: Moment, traced: Sequence[Traced]) -> None:
    """Write the verdicts of a batch."""
    if not traced:
        return
    await conn.execute(
        store.INSERT_DECISIONS,
        {
            "now": moment.now,
            "organizations": [each.organization_id for each in traced],
            "shops": [each.shop_id for each in traced],
            "decisions": [moment.new_id() for _ in traced],
            "sessions": [each.session_id for each in traced],
            "messages": [each.message_id for each in traced],
            "gates": [each.verdict.gate for each in traced],
            "outcomes": [each.verdict.outcome for each in traced],
            "reasons": [each.verdict.reason for each in traced],
            "untils": [each.verdict.until for each in traced],
        },
    )
