"""The acts of a story: short lines for people, read into times and deeds. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_WEEKDAY = "|".join(WEEKDAYS)
_ACT = re.compile(rf"(?P<after>(text)?\+(?P<minutes>\d+)m|(?P<local>({_WEEKDAY}) \d\d:\d\d)) (?P<deed>.+)")


class Deed(enum.StrEnum):
    """What a shopper does, or what happens to their checkout."""

    CHECKOUT = "checkout"
    ACTIVITY = "activity"
    PAYMENT_PENDING = "payment pending"
    PAYMENT_FAILED = "payment failed"
    ORDER_WITH_TOKEN = "order with token"  # noqa: S105 - not a token
    ORDER = "order"
    WITHDRAW = "withdraw"
    TAP = "tap"
    NOT_MY_NUMBER = "not my number"
    CORRECT = "correct"
    PHONE = "phone"
    REPLY = "reply"


WITH_DETAIL = frozenset({Deed.CORRECT, Deed.PHONE, Deed.REPLY})
# Deeds that need the text in hand.
ON_THE_PHONE = frozenset({Deed.TAP, Deed.NOT_MY_NUMBER, Deed.REPLY, Deed.ORDER_WITH_TOKEN})


class From(enum.StrEnum):
    """What an act's time counts from."""

    LOCAL_TIME = "local time"
    LAST_ACT = "the act before"
    TEXT = "the text"


@dataclass(frozen=True)
class Act:
    """One line of a story."""

    counts_from: From
    local: str  # "Tue 09:47"; empty when it counts from something else
    after: timedelta
    deed: Deed
    detail: str  # of `correct`, `phone` and `reply`


def read_act(line: str) -> Act:
    """Read one act. Raises `ValueError` when it is none."""
    found = _ACT.fullmatch(line)
    if found is None:
        raise ValueError(f"not an act: {line!r}")
    deed, detail = _read_deed(found["deed"])
    after = timedelta(minutes=int(found["minutes"] or 0))
    if found["local"]:
        return Act(From.LOCAL_TIME, found["local"], after, deed, detail)
    return Act(From.TEXT if found["after"].startswith("text") else From.LAST_ACT, "", after, deed, detail)


def local_moment(text: str, zone: ZoneInfo, start: datetime) -> datetime:
    """When clocks in `zone` first show `text` ("Tue 09:47") from `start` (aware) on."""
    weekday, _, clock = text.partition(" ")
    first = start.astimezone(zone)
    day = first.date() + timedelta(days=(WEEKDAYS.index(weekday) - first.weekday()) % 7)
    moment = datetime.combine(day, time.fromisoformat(clock), zone)
    if moment < first:
        moment = datetime.combine(day + timedelta(days=7), time.fromisoformat(clock), zone)
    return moment.astimezone(start.tzinfo)


def _read_deed(text: str) -> tuple[Deed, str]:
    for deed in Deed:  # the longer of two with one beginning comes first
        if text == deed and deed not in WITH_DETAIL:
            return deed, ""
        if deed in WITH_DETAIL and text.startswith(f"{deed} "):
            return deed, text.removeprefix(f"{deed} ")
    raise ValueError(f"nobody knows how to {text!r}")
