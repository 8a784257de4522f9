"""Kill switches: nothing is sent while one is thrown; what waits keeps waiting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cartwake.jobs.trigger import Wake, announce
from cartwake.kit.db import Connection, row, rows
from cartwake.kit.errors import NotKnown
from cartwake.tenants import store
from cartwake.tenants.model import ShopScope

SENDING_PAUSED = "sending_paused"


@dataclass(frozen=True)
class Pauses:
    """Every kill switch that is thrown."""

    everywhere: bool
    shops: frozenset[ShopScope]

    def cover(self, shop: ShopScope) -> bool:
        """Whether this shop may send nothing."""
        return self.everywhere or shop in self.shops


NO_PAUSES = Pauses(everywhere=False, shops=frozenset())


async def read_pauses(conn: Connection) -> Pauses:
    """Every kill switch that is thrown, of the deployment and of shops. Engine or operator login."""
    found = await rows(conn, store.SELECT_PAUSED_SHOPS)
    shops = frozenset(ShopScope(each["organization_id"], each["shop_id"]) for each in found)
    return Pauses(await deployment_paused_since(conn) is not None, shops)


async def pause_deployment(conn: Connection, now: datetime) -> None:
    """No shop of this deployment sends from now on. Operator login."""
    await conn.execute(store.THROW_SWITCH, [SENDING_PAUSED, now])


async def resume_deployment(conn: Connection) -> None:
    """Sending goes on where it stopped. Operator login."""
    await conn.execute(store.RESET_SWITCH, [SENDING_PAUSED])
    await announce(conn, Wake.MESSAGES)


async def deployment_paused_since(conn: Connection) -> datetime | None:
    """When sending was paused; None while it runs."""
    thrown: dict[str, datetime] = {
        found["name"]: found["thrown_at"] for found in await rows(conn, store.SELECT_SWITCHES)
    }
    return thrown.get(SENDING_PAUSED)


async def pause_shop(conn: Connection, now: datetime, scope: ShopScope) -> None:
    """This shop sends nothing from now on. Operator login. Raises `NotKnown`."""
    if await row(conn, store.PAUSE_SHOP, [now, scope.organization_id, scope.shop_id]) is None:
        raise NotKnown("There is no such shop.")


async def resume_shop(conn: Connection, scope: ShopScope) -> None:
    """The shop's sending goes on. Operator login. Raises `NotKnown`."""
    if await row(conn, store.RESUME_SHOP, [scope.organization_id, scope.shop_id]) is None:
        raise NotKnown("There is no such shop.")
    await announce(conn, Wake.MESSAGES)
