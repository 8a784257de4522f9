"""The gates: every one is a reason not to send.

Pure functions of facts that were loaded under lock. They are asked in order, and the first that does
not let the message through decides. The two allocations, caps and credits, are no functions of one
message: they follow in `dispatch`, for what passed here.

    1 cart         still abandoned, and not too old
    2 shop         texts enabled, the plan allows them, a lawful sender exists, no kill switch
    3 consent      live, and for the phone that would be texted
    5 quiet hours  the recipient's send window is open
    7 text         it renders in the shopper's language, with its links
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cartwake.carts.model import Session, SessionState
from cartwake.consent.model import ConsentState
from cartwake.credits.model import plan_allows_sms
from cartwake.kit.errors import BadInput
from cartwake.messages.model import DueMessage, Gate, Outcome, Verdict
from cartwake.messages.rendering import Rendered
from cartwake.numbers.model import Sender
from cartwake.quiet_hours.windows import Opening, spread
from cartwake.tenants.model import SmsConfig

# How soon a message is looked at again when what holds it says no time of its own.
LOOK_AGAIN = timedelta(minutes=1)
# A window that closes sooner than this is as good as closed: the call may still wait its turn.
LEAST_WINDOW = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the gates need to know about one message. Loaded, never fetched from in here."""

    now: datetime
    message: DueMessage
    session: Session
    plan: str
    config: SmsConfig
    deployment_paused: bool
    shop_paused: bool
    sender: Sender | None
    consent: ConsentState
    suppressed_everywhere: bool
    opening: Callable[[], Opening | None]
    render: Callable[[], Rendered]


@dataclass(frozen=True)
class Passed:
    """A message that every pure gate let through, with what was worked out on the way."""

    facts: Facts
    sender: Sender
    opening: Opening
    text: Rendered


def evaluate(facts: Facts) -> Passed | Verdict:
    """Ask every pure gate in order; the first that objects decides."""
    for gate in (cart_gate, shop_gate, consent_gate):
        if (verdict := gate(facts)) is not None:
            return verdict
    opening = quiet_hours_gate(facts)
    if isinstance(opening, Verdict):
        return opening
    text = text_gate(facts)
    if isinstance(text, Verdict):
        return text
    assert facts.sender is not None, "the shop gate saw to it"
    return Passed(facts, facts.sender, opening, text)


def cart_gate(facts: Facts) -> Verdict | None:
    """Gate 1: the cart is still abandoned and young enough. A payment in flight holds."""
    session, now = facts.session, facts.now
    if session.state == SessionState.COMPLETED:
        return _drop(Gate.CART, "completed")
    if session.state == SessionState.EXPIRED or session.stale_at <= now:
        return _drop(Gate.CART, "stale")
    delay = timedelta(seconds=facts.config.text_delay_s)
    if session.state == SessionState.PAYMENT_PENDING:
        # One that failed this very moment would make the text due a full delay later: soon enough to look.
        until = min(session.payment_until or now, now + delay)
        return _hold(Gate.CART, "payment_pending", max(until, now + LOOK_AGAIN))
    # A shopper who came back and left again is texted the full delay after leaving again.
    ripe_at = session.last_activity_at + delay
    if ripe_at > now:
        return _hold(Gate.CART, "active_again", ripe_at)
    return None


def shop_gate(facts: Facts) -> Verdict | None:
    """Gate 2: the shop may text this phone. A kill switch holds, everything else drops."""
    if not facts.config.enabled:
        return _drop(Gate.SHOP, "sms_disabled")
    if not plan_allows_sms(facts.plan):
        return _drop(Gate.SHOP, "plan")
    if facts.deployment_paused or facts.shop_paused:
        return _hold(Gate.SHOP, "paused", facts.now + LOOK_AGAIN)
    if facts.sender is None:
        return _drop(Gate.SHOP, "no_lawful_sender")
    return None


def consent_gate(facts: Facts) -> Verdict | None:
    """Gate 3: the phone is valid, the one that was consented to, its consent is live, nothing suppresses it."""
    session = facts.session
    if session.phone_hash is None:
        return _drop(Gate.CONSENT, "no_phone")
    if facts.suppressed_everywhere or facts.consent.suppression is not None:
        return _drop(Gate.CONSENT, "suppressed")
    if not session.consented:
        return _drop(Gate.CONSENT, "no_consent_for_this_phone")
    if not facts.consent.granted:
        return _drop(Gate.CONSENT, "consent_withdrawn")
    return None


def quiet_hours_gate(facts: Facts) -> Opening | Verdict:
    """Gate 5: the recipient's window is open now, in every zone the recipient may be in; else hold until it is."""
    opening = facts.opening()
    if opening is None:
        return _drop(Gate.QUIET_HOURS, "no_common_window")
    if opening.opens_at > facts.now:
        until = spread(opening, message_id=facts.message.message_id, spread_s=facts.config.spread_s)
        return _hold(Gate.QUIET_HOURS, "quiet_hours", until)
    if opening.closes_at - facts.now < LEAST_WINDOW:
        return _hold(Gate.QUIET_HOURS, "window_closing", opening.closes_at)
    return opening


def text_gate(facts: Facts) -> Rendered | Verdict:
    """Gate 7: the text renders."""
    if facts.session.checkout_url_sealed is None:
        return _drop(Gate.TEXT, "no_checkout_url")
    try:
        return facts.render()
    except BadInput as error:
        return _drop(Gate.TEXT, error.slug)


def _drop(gate: Gate, reason: str) -> Verdict:
    return Verdict(Outcome.DROP, gate, reason)


def _hold(gate: Gate, reason: str, until: datetime) -> Verdict:
    return Verdict(Outcome.HOLD, gate, reason, until)
