"""Why was this cart (not) texted? The answer in lines that a merchant can read."""

from __future__ import annotations

from dataclasses import dataclass

from cartwake.carts.model import Session
from cartwake.carts.sessions import read_session
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection
from cartwake.messages.model import Decision
from cartwake.messages.reading import MessageView, message_of_session, read_decisions
from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import read_sms_config
from cartwake.tenants.switches import deployment_paused_since


@dataclass(frozen=True)
class Explanation:
    """Everything that was decided about one cart, oldest first, with its message if it has one."""

    session: Session
    message: MessageView | None
    decisions: list[Decision]
    paused: bool  # a kill switch is thrown: what waits keeps waiting

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.message is None:
            if self.session.refusal:
                return f"Not texted: {self.session.refusal}; asked again when that changes."
            return f"Not texted (yet): the checkout is {self.session.state}."
        if self.message.state in ("scheduled", "held"):
            if self.paused:
                return f"Not texted yet: {self.message.state}, and sending is paused by a kill switch."
            why = f" because of {self.message.reason}" if self.message.reason else ""
            return f"Not texted yet: {self.message.state}{why} until {self.message.due_at:%Y-%m-%d %H:%M} UTC."
        reason = f" ({self.message.reason})" if self.message.reason else ""
        return f"The text is {self.message.state}{reason}."


async def explain_session(conn: Connection, vault: Vault, scope: ShopScope, external_id: str) -> Explanation:
    """The whole trace of a cart by the storefront's id. Raises `NotKnown`."""
    session = await read_session(conn, scope, external_id)
    message = await message_of_session(conn, vault, scope, session.session_id)
    decisions = await read_decisions(conn, scope, session.session_id)
    _, shop_paused_at = await read_sms_config(conn, scope)
    paused_at = shop_paused_at or await deployment_paused_since(conn)
    return Explanation(session, message, decisions, paused_at is not None)
