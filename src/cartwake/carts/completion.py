"""The order, and which text brought it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cartwake.carts import store
from cartwake.carts.links import read_recovery_token
from cartwake.carts.model import Session, SessionState
from cartwake.kit.db import Connection, row
from cartwake.kit.moment import Moment
from cartwake.tenants.model import SmsConfig


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the storefront says about the order."""

    completed_at: datetime
    order_id: str
    value_minor: int | None = None
    currency: str | None = None
    recovery_token: str | None = None


async def complete(conn: Connection, moment: Moment, config: SmsConfig, session: Session, order: Order) -> Session:
    """The cart became an order; no text follows. `session` is locked. The first completion stands.

    Attribution, in this order: the signed token that the recovery link put into the checkout's address;
    else the last tap on the session's link within the shop's window. A token that is forged, expired or
    of another session attributes nothing and is no error: the order is real all the same.
    """
    if session.state == SessionState.COMPLETED:
        return session
    message_id, how = await _attribute(conn, moment, config, session, order)
    found = await row(
        conn,
        store.COMPLETE,
        {
            "organization_id": session.organization_id,
            "shop_id": session.shop_id,
            "session_id": session.session_id,
            "completed_at": order.completed_at,
            "order_id": order.order_id,
            "order_value_minor": order.value_minor,
            "order_currency": order.currency,
            "attributed_to": message_id,
            "attribution": how,
            "now": moment.now,
        },
    )
    assert found is not None, "the row is locked, so it is there"
    return Session.of(found)


async def _attribute(
    conn: Connection, moment: Moment, config: SmsConfig, session: Session, order: Order
) -> tuple[UUID | None, str | None]:
    tenant = [session.organization_id, session.shop_id, session.session_id]
    if order.recovery_token:
        claim = read_recovery_token(moment.vault, moment.now, order.recovery_token)
        if claim and claim.session_id == session.session_id:
            went_out = await row(conn, store.LINK_OF_MESSAGE, [*tenant, claim.message_id])
            if went_out:
                return claim.message_id, "token"
    since = order.completed_at - timedelta(seconds=config.attribution_window_s)
    params = {
        "organization_id": session.organization_id,
        "shop_id": session.shop_id,
        "session_id": session.session_id,
        "completed_at": order.completed_at,
        "since": since,
    }
    click = await row(conn, store.LAST_CLICK, params)
    return (click["message_id"], "click") if click else (None, None)
