"""Whether every story ended as written: its expectation against what API and carrier say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cartwake.demo.phone import Text
from cartwake.demo.stories import Story
from cartwake.demo.traffic import Shopper, Traffic

TAKEN = frozenset({"delivered", "undelivered"})
# Nobody is texted outside these hours of their own clock, whatever a story says: the default window.
WAKING_HOURS = (10, 19)


@dataclass(frozen=True)
class Ending:
    """How a story ended: what was played, and what the API says now (None: it knows no such cart)."""

    story: Story
    cart: dict[str, Any] | None

    @property
    def shopper(self) -> Shopper:
        return self.story.shopper

    @property
    def text(self) -> dict[str, Any] | None:
        """The text's message, if there is one."""
        return self.cart["message"] if self.cart else None

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """The trace, oldest first."""
        return self.cart["decisions"] if self.cart else []

    @property
    def held(self) -> list[dict[str, Any]]:
        """The decisions that made the text wait."""
        return [decision for decision in self.decisions if decision["outcome"] == "hold"]

    @property
    def text_state(self) -> str:
        return self.text["state"] if self.text else "none"

    @property
    def why(self) -> str | None:
        """Why the text ended as it did; why there is none."""
        if self.text:
            return str(self.text["reason"]) if self.text["reason"] else None
        return self.cart["refusal"] if self.cart else None

    @property
    def outcome(self) -> str:
        """What became of the cart, in the words of the file."""
        if self.cart is None:
            return "unknown"
        if self.cart["state"] != "completed":
            return "left"
        return f"recovered by {self.story.attribution}" if self.cart["recovered"] else "ordered"


@dataclass(frozen=True)
class Mismatch:
    """A story that did not end as written, and everything that was decided about it."""

    ending: Ending
    wrong: tuple[str, ...]


def mismatches(traffic: Traffic, endings: Sequence[Ending], texts: Sequence[Text]) -> list[Mismatch]:
    """The stories that did not end as written. `texts`: all that the carrier took."""
    by_sid = {text.sid: text for text in texts}
    found = [Mismatch(ending, tuple(_wrong(traffic, ending, by_sid))) for ending in endings]
    return [mismatch for mismatch in found if mismatch.wrong]


def strays(endings: Sequence[Ending], texts: Sequence[Text]) -> list[str]:
    """Texts at the carrier that no cart knows of, or that it took twice."""
    known = Counter(ending.text["carrier_sid"] for ending in endings if ending.text and ending.text["carrier_sid"])
    taken = Counter(text.sid for text in texts)
    bodies = Counter((text.to, text.body) for text in texts)
    return [f"the carrier took the text {sid}, and no cart knows of it" for sid in taken - known] + [
        f"the carrier took one text {times} times" for times in bodies.values() if times > 1
    ]


def _wrong(traffic: Traffic, ending: Ending, texts: dict[str, Text]) -> Iterator[str]:
    expect, story = ending.shopper.expect, ending.story
    yield from story.problems
    if story.next_act is not None:
        yield f"never came to: {ending.shopper.acts[story.played]}"
    yield from _differs("text", expect.text, ending.text_state)
    yield from _differs("cart", expect.cart, ending.outcome)
    yield from _differs("refused by the API", [expect.refused] if expect.refused else [], story.refused)
    yield from _differs("held for", set(expect.held), {decision["reason"] for decision in ending.held})
    if expect.why is not None:
        yield from _differs("reason", expect.why, ending.why)
    if ending.cart is not None:
        yield from _differs("suppressed", expect.suppressed, ending.cart["consent"]["suppressed"])
    if ending.text is not None:
        yield from _wrong_text(traffic, ending, ending.text, texts)


def _wrong_text(traffic: Traffic, ending: Ending, text: dict[str, Any], texts: dict[str, Text]) -> Iterator[str]:
    expect = ending.shopper.expect
    if expect.segments is not None:
        yield from _differs("segments", expect.segments, text["segments"])
        yield from _differs("credits", expect.credits, text["credits"])
    if expect.text not in TAKEN:
        return
    at_carrier = texts.get(text["carrier_sid"] or "")
    yield from _differs("segments at the carrier", text["segments"], at_carrier.segments if at_carrier else None)
    yield from _differs("status at the carrier", text["state"], at_carrier.status if at_carrier else None)
    yield from _wrong_time(traffic, ending.shopper, text["accepted_at"])


def _wrong_time(traffic: Traffic, shopper: Shopper, accepted_at: str | None) -> Iterator[str]:
    if accepted_at is None:
        return
    at = datetime.fromisoformat(accepted_at)
    local = at.astimezone(traffic.zone_of(shopper.city))
    if not WAKING_HOURS[0] <= local.hour < WAKING_HOURS[1]:
        yield f"texted at {local:%a %H:%M}, outside waking hours"
    if shopper.expect.at is not None:
        day_and_first, _, last = shopper.expect.at.partition("-")
        first = traffic.moment(day_and_first, shopper.city)
        until = traffic.moment(f"{day_and_first[:3]} {last}", shopper.city)
        if not first <= at < until:
            yield f"texted at {local:%a %H:%M:%S}, expected {shopper.expect.at}"


def _differs(what: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {_shown(expected)}, found {_shown(found)}"


def _shown(value: object) -> str:
    if isinstance(value, set | list):
        return ", ".join(sorted(map(str, value))) or "nothing"
    return "nothing" if value is None else str(value)
