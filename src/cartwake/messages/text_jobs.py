"""What a queue outside of PostgreSQL needs to know of messages: whose time comes soon, and what became of whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cartwake.jobs.text_job import Fate, TextJob, Timed
from cartwake.kit.db import Connection, rows
from cartwake.messages import store
from cartwake.messages.model import CART_RECOVERY, WAITING, DueMessage
from cartwake.messages.queue import CYCLE
from cartwake.tenants.model import ShopScope

FIRST = ShopScope(UUID(int=0), UUID(int=0))
SHOPS_A_PAGE = 200
GONE = Fate(None, known=False)
OVER = Fate(None)


@dataclass(frozen=True)
class Page:
    """Some shops' messages, and where the next page begins (None: there is none)."""

    due: list[Timed]
    after: ShopScope | None


async def read_due(conn: Connection, before: datetime, after: ShopScope = FIRST) -> Page:
    """Messages that may be claimed before a time, by shop; of each as many as its cycles allow it until then.

    What a kill switch stops is left out: it may take days, and whoever lifts the switch wakes the workers.
    """
    params: dict[str, Any] = {
        "before": before,
        "after_organization": after.organization_id,
        "after_shop": after.shop_id,
        "limit": SHOPS_A_PAGE,
    }
    shops = await rows(conn, store.READ_SHOPS_DUE, params)
    columns = ("organization_id", "shop_id", "next_due_at", "cycle_cap")
    params |= {column: [shop[column] for shop in shops] for column in columns}
    found = await rows(conn, store.READ_DUE_OF_SHOPS, params) if shops else []
    last = shops[-1] if len(shops) == SHOPS_A_PAGE else None
    return Page(
        [(_job(each), each["at"]) for each in found],
        ShopScope(last["organization_id"], last["shop_id"]) if last else None,
    )


async def read_fates(conn: Connection, now: datetime, soon: timedelta, jobs: Sequence[TextJob]) -> list[Fate]:
    """What is to become of these messages' jobs, in their order.

    `soon`: when to look again for one that is due and could not be claimed, because another worker holds its shop.
    """
    params = {
        "kind": CART_RECOVERY,
        "organizations": [job.organization_id for job in jobs],
        "shops": [job.shop_id for job in jobs],
        "sessions": [job.session_id for job in jobs],
        "steps": [job.step for job in jobs],
    }
    found = {_job(each): each for each in await rows(conn, store.READ_FATES, params)}
    return [_fate(now, soon, found[job]) if job in found else GONE for job in jobs]


def _fate(now: datetime, soon: timedelta, found: dict[str, Any]) -> Fate:
    if found["state"] not in WAITING:
        return OVER
    if found["paused"]:
        return Fate(now + CYCLE)
    # A shop whose cycle is spent is asked again in the next one, as a whole.
    at: datetime = max(found["due_at"], found["next_due_at"] or found["due_at"])
    return Fate(at if at > now else now + soon)


def job_of(message: DueMessage) -> TextJob:
    """A message's job."""
    return TextJob(message.organization_id, message.shop_id, message.session_id, message.step)


def _job(found: dict[str, Any]) -> TextJob:
    return TextJob(found["organization_id"], found["shop_id"], found["session_id"], found["step"])
