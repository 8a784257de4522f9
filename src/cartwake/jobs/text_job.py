"""A text's job in BullMQ: its id, its data, and whom it may be believed. docs/bullmq.md documents the shape.

Anything that can write to the Redis can add jobs, so nothing in one is trusted: it names a message, and
PostgreSQL says whether there is one and what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

NAME = "sms-recovery"
# The e-mail step's job carries the same and is for a sender outside of Cartwake.
EMAIL_NAME = "email-recovery"
VERSION = 1
ADVICE = "Add jobs in the shape that docs/bullmq.md describes, or let Cartwake add them; the scan puts them back."


class BrokenJob(Exception):
    """A job that cannot be what it claims to be. The message says what is wrong and is safe to show and log."""


@dataclass(frozen=True)
class TextJob:
    """Which message a job is about. One per session and step, however often it is added."""

    organization_id: UUID
    shop_id: UUID
    session_id: UUID
    step: int

    @property
    def job_id(self) -> str:
        """Deterministic, so that adding twice makes one job. BullMQ allows no colon in it."""
        return f"{NAME}-{self.session_id}-{self.step}"

    @property
    def email_job_id(self) -> str:
        """As `job_id`, of the e-mail step."""
        return f"{EMAIL_NAME}-{self.session_id}-{self.step}"

    @property
    def data(self) -> dict[str, Any]:
        """What the job carries; no phone, no text."""
        return {
            "v": VERSION,
            "organization_id": str(self.organization_id),
            "shop_id": str(self.shop_id),
            "session_id": str(self.session_id),
            "step": self.step,
        }

    @classmethod
    def read(cls, job_id: str, name: str, data: Any) -> TextJob:
        """The message that a job names. Raises `BrokenJob`."""
        if name != NAME:
            raise BrokenJob(f"its name is not {NAME}")
        if not isinstance(data, Mapping):
            raise BrokenJob("its data is not an object")
        if data.get("v") != VERSION:
            raise BrokenJob(f"its version (data.v) is not {VERSION}")
        step = data.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or not 1 <= step <= 32767:
            raise BrokenJob("data.step is not a step's number")
        job = cls(_id(data, "organization_id"), _id(data, "shop_id"), _id(data, "session_id"), step)
        if job.job_id != job_id:
            raise BrokenJob(f"its id is not {NAME}-<data.session_id>-<data.step>")
        return job


def _id(data: Mapping[str, Any], field: str) -> UUID:
    value = data.get(field)
    try:
        return UUID(value)
    except (TypeError, ValueError, AttributeError):
        raise BrokenJob(f"data.{field} is not an id") from None


@dataclass(frozen=True)
class Fate:
    """What PostgreSQL says of a job that fired: look again at `again_at`, or (None) never, for the reason given."""

    again_at: datetime | None
    known: bool = True  # False: there is no such message under these ids


Timed = tuple[TextJob, datetime]  # a job, and when its message is due
