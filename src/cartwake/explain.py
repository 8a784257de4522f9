"""Why was this cart (not) texted? The answer in lines that a merchant can read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cartwake.carriers.protocol import ErrorClass
from cartwake.carts.model import Session
from cartwake.carts.sessions import read_session
from cartwake.consent.events import last_events
from cartwake.consent.model import ConsentEvent
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection
from cartwake.messages.model import Decision, MessageState
from cartwake.messages.reading import MessageView, message_of_session, read_decisions
from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import read_sms_config
from cartwake.tenants.switches import deployment_paused_since

CONSENT_EVENTS_SHOWN = 20
# What mends a reason, where somebody can mend it.
ADVICE = {
    "no_consent": "Nothing to mend unless the box was ticked: then send `consent` with the phone.",
    "no_phone": "Send the shopper's phone with the checkout; `phone_problem` there says why one was left out.",
    "no_checkout_url": "Send `checkout_url`: without it there is nothing to come back to.",
    "sms_disabled": "Switch the shop's texts on: PUT /v1/sms-config.",
    "plan": "The organization's plan has no texts; another one has.",
    "insufficient_credits": "Add credits: `cartwake credits adjust`. Carts that are not too old are asked about again. "
    "(A new organization has none until its plan's first ones come, within an hour.)",
    "no_lawful_sender": "Give the shop a sender that may text this phone's country: `cartwake number add`.",
    "suppressed": "The owner of the phone said no; only their START takes that back.",
    f"carrier_{ErrorClass.ACCOUNT}": "Mend it at the carrier: it refuses the account, the sender or the route. Ask the "
    "doctor: `cartwake doctor`.",
    f"carrier_{ErrorClass.CONTENT}": "Look at the shop's text: `POST /v1/previews`; networks filter words and links.",
    f"carrier_{ErrorClass.RECIPIENT_PERMANENT}": "Nothing to mend: this number takes no texts, and is not tried again.",
    f"carrier_{ErrorClass.RECIPIENT_SOFT}": "Nothing to mend, unless many texts to one country end so.",
    f"carrier_{ErrorClass.EXPIRED}": "Nothing to mend: the phone was out of reach until the window closed.",
}
# What a receipt can end a text with; rejections are decisions of the carrier, and told with the others.
REPORTED = (MessageState.DELIVERED, MessageState.UNDELIVERED, MessageState.FAILED, MessageState.DELIVERY_UNKNOWN)


@dataclass(frozen=True)
class Line:
    """One thing that happened."""

    at: datetime
    what: str
    outcome: str
    why: str


@dataclass(frozen=True)
class Explanation:
    """Everything that was decided about one cart, and what became of its phone's consent at the shop; oldest first.

    With its message if it has one.
    """

    session: Session
    message: MessageView | None
    decisions: list[Decision]
    consents: list[ConsentEvent]  # the last `CONSENT_EVENTS_SHOWN`
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
        error = f": {error_of(self.message)}" if self.message.error_code else ""
        return f"The text is {self.message.state}{reason}{error}."

    @property
    def story(self) -> list[Line]:
        """All of it in order: what gates decided, what the shopper said, what the carrier reported."""
        lines = [Line(each.at, "consent", each.action, f"by {each.channel}") for each in self.consents]
        for each in self.decisions:
            until = f" until {each.until:%Y-%m-%d %H:%M} UTC" if each.until else ""
            lines.append(Line(each.at, each.gate, each.outcome, each.reason + until))
        return sorted(lines + self._receipts(), key=lambda line: line.at)

    def _receipts(self) -> list[Line]:
        """What the carrier reported, and when that was applied."""
        message, lines = self.message, []
        if message and message.sent_at:
            lines.append(Line(message.sent_at, "receipt", "sent", f"of {message.carrier_sid}"))
        if message and message.ended_at and message.state in REPORTED:
            why = f"of {message.carrier_sid}" if message.state != MessageState.DELIVERY_UNKNOWN else "none came"
            error = f", {error_of(message)}" if message.error_code else ""
            lines.append(Line(message.ended_at, "receipt", message.state, why + error))
        return lines

    @property
    def advice(self) -> str | None:
        """What somebody can do about it; None when nobody needs to, or can."""
        if self.paused and self.message is not None and self.message.state in ("scheduled", "held"):
            return "`cartwake resume` lets a paused deployment go on; a shop has a kill switch of its own."
        reason = self.message.reason if self.message else self.session.refusal
        return ADVICE.get(reason or "")


def error_of(message: MessageView) -> str:
    """The carrier's error code of a text that has one, and what it means where that is known."""
    return f"error {message.error_code}, {message.error_meaning or 'which the carrier explains on its pages'}"


async def explain_session(conn: Connection, vault: Vault, scope: ShopScope, external_id: str) -> Explanation:
    """The whole trace of a cart by the storefront's id. Raises `NotKnown`."""
    session = await read_session(conn, scope, external_id)
    message = await message_of_session(conn, vault, scope, session.session_id)
    decisions = await read_decisions(conn, scope, session.session_id)
    consents = []
    if session.phone_hash is not None:
        phone = (scope.organization_id, scope.shop_id, session.phone_hash)
        consents = await last_events(conn, phone, CONSENT_EVENTS_SHOWN)
    _, shop_paused_at = await read_sms_config(conn, scope)
    paused_at = shop_paused_at or await deployment_paused_since(conn)
    return Explanation(session, message, decisions, consents, paused_at is not None)
