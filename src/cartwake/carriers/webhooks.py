"""Reading Twilio's webhooks: delivery receipts and shoppers' texts, as forms whose signature was verified.

Twilio adds fields without notice (Messages resource, status callbacks), so unknown ones are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard
from urllib.parse import parse_qsl
from uuid import UUID

from cartwake.carriers.protocol import InboundText, MessageStatus, StatusReport
from cartwake.kit.errors import BadInput

# Where our web listens for the carrier, under `CARTWAKE_PUBLIC_URL`.
STATUS_PATH = "/hooks/twilio/status"
INBOUND_PATH = "/hooks/twilio/inbound"

# A webhook has about 25 fields; a body with more than this is not one, and is not worth parsing.
FIELDS_MAX = 200

# Twilio's are `SM` or `MM` and 32 hex digits; compatible servers use UUIDs and other words.
_SID = re.compile(r"[0-9A-Za-z_-]{2,64}")

# Twilio's words for ours. What is not here (receiving, partially_delivered) says nothing about a text of ours.
STATUSES: Mapping[str, MessageStatus] = {
    "queued": MessageStatus.ACCEPTED,
    "accepted": MessageStatus.ACCEPTED,
    "scheduled": MessageStatus.ACCEPTED,
    "sending": MessageStatus.ACCEPTED,
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.DELIVERED,
    "undelivered": MessageStatus.UNDELIVERED,
    "failed": MessageStatus.FAILED,
    "canceled": MessageStatus.FAILED,
    "unsubscribed": MessageStatus.UNSUBSCRIBED,
}


def fields(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form, blank ones too (they are signed). Raises `ValueError` when it cannot be one."""
    return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX)


def is_sid(value: object) -> TypeGuard[str]:
    """Whether `value` can be a carrier's id of a text."""
    return isinstance(value, str) and _SID.fullmatch(value) is not None


def error_code(value: object) -> int | None:
    """A carrier's error code as a number; None when there is none or it is not one."""
    text = str(value)
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,5}", text) else None


def read_status(body: bytes, query: Mapping[str, str]) -> StatusReport | None:
    """The receipt in a status callback, or None where its status says nothing that Cartwake acts on.

    `query` is that of the callback's address, where our attempt id comes back.
    Raises `BadInput` when the message id or the status is missing, or the id is malformed.
    """
    form = _form(body)
    sid, status = _sid(form), STATUSES.get(_required(form, "MessageStatus"))
    if status is None:
        return None
    return StatusReport(
        sid=sid,
        attempt_id=_attempt_id(query.get("attempt", "")),
        status=status,
        error_code=error_code(form.get("ErrorCode")),
    )


def read_inbound(body: bytes) -> InboundText:
    """The text that a shopper sent to one of our numbers. An empty body is a text too (a picture, say).

    Raises `BadInput` when a required field is missing.
    """
    form = _form(body)
    return InboundText(
        sid=_sid(form),
        sender=_required(form, "From"),
        to=_required(form, "To"),
        body=form.get("Body", ""),
        opt_out_type=form.get("OptOutType", "").upper() or None,
    )


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = fields(body)
    except ValueError:
        raise BadInput("The webhook's body is not a form.", slug="bad-webhook") from None
    form = dict(pairs)
    # The signature covers a repeated field whatever its order, so which value is meant cannot be told.
    if any(form[name] != value for name, value in pairs):
        raise BadInput("The webhook repeats a field with different values.", slug="bad-webhook")
    return form


def _sid(form: Mapping[str, str]) -> str:
    sid = _required(form, "MessageSid")
    if not is_sid(sid):
        raise BadInput("The webhook's MessageSid is malformed.", slug="bad-webhook", field="MessageSid")
    return sid


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise BadInput(f"The webhook lacks {name}.", slug="bad-webhook", field=name)
    return value


def _attempt_id(text: str) -> UUID | None:
    return UUID(text) if re.fullmatch(r"[0-9a-f]{32}", text) else None
