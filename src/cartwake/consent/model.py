"""Consent as it is asked for, recorded and read."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


class Action(enum.StrEnum):
    """What happened to a consent."""

    GRANTED = "granted"
    WITHDRAWN = "withdrawn"
    SUPPRESSED = "suppressed"  # STOP and its like: no box lifts it
    UNSUPPRESSED = "unsuppressed"  # START


class Channel(enum.StrEnum):
    """How it reached us."""

    CHECKBOX = "checkbox"
    INBOUND_TEXT = "inbound_text"
    CARRIER = "carrier"
    OPT_OUT_LINK = "opt_out_link"
    API = "api"
    DASHBOARD = "dashboard"


class Suppression(enum.StrEnum):
    """Why a phone must not be texted, whatever was agreed to."""

    STOP = "stop"
    NOT_MY_NUMBER = "not_my_number"
    CARRIER_OPT_OUT = "carrier_opt_out"
    UNREACHABLE = "unreachable"  # the carrier says that this number can never be reached; no opinion on consent


@dataclass(frozen=True)
class Evidence:
    """What a controller must be able to show (GDPR 7(1); BGH I ZR 164/09: the whole declaration, printable)."""

    phone: str | None = field(default=None, repr=False)  # E.164; None: as in the phone's event before, if it had one
    wording: str | None = None  # the exact text beside the box, or the shopper's own words
    wording_version: str | None = None
    locale: str | None = None
    page_url: str | None = None
    form_field: str | None = None
    ip_hash: str | None = None  # keyed hash, hex
    actor: str | None = None


@dataclass(frozen=True)
class ConsentChange:
    """One event about one phone at one shop."""

    organization_id: UUID
    shop_id: UUID
    phone_hash: bytes
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True)
class ConsentEvent:
    """What happened to a phone's consent at a shop, without its evidence."""

    at: datetime
    action: str
    channel: str


@dataclass(frozen=True)
class ConsentState:
    """What holds for a phone at a shop. A phone without a row never agreed to anything."""

    granted: bool
    suppression: str | None


NEVER_ASKED = ConsentState(granted=False, suppression=None)
