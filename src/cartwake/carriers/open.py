"""Which carrier a deployment uses, read from its settings."""

from __future__ import annotations

from cartwake.carriers.protocol import Carrier, Examinable
from cartwake.carriers.twilio import TwilioCarrier
from cartwake.carriers.webhooks import INBOUND_PATH, STATUS_PATH
from cartwake.kit.config import Settings

__all__ = ["INBOUND_PATH", "STATUS_PATH", "open_carrier", "open_examinable"]


def open_carrier(settings: Settings) -> Carrier:
    """The carrier of this deployment. Close it when the process ends."""
    return _open(settings)


def open_examinable(settings: Settings) -> Examinable:
    """The same carrier, for questions about the account. Close it in the end."""
    return _open(settings)


def _open(settings: Settings) -> TwilioCarrier:
    return TwilioCarrier(
        api_base=settings.twilio_api_base,
        account_sid=settings.twilio_account_sid,
        auth_token=settings.twilio_auth_token.get_secret_value(),
        callback_url=settings.public_url + STATUS_PATH,
        timeout_s=settings.twilio_timeout_s,
        concurrency=settings.twilio_concurrency,
    )
