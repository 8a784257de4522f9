"""Hostile HTTP at the doors that the API's description does not name: webhooks, links, health, metrics, documentation.

Whatever the method, path, headers and body: no 5xx, and only the statuses that are expected there. Bytes on a socket,
so that no client tidies up what is sent; a fixed budget of examples, the same ones each time. Some of the webhooks are
signed, so that what is in them gets past the door and is worked off.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.routing import Route

from cartwake.carriers.open import INBOUND_PATH, STATUS_PATH
from cartwake.carts.links import link_path
from cartwake.kit.clock import ManualClock
from cartwake.kit.db import ENGINE, rows
from cartwake.observe.exporter import exporting
from cartwake.worker import work_off_events
from deployment import serving
from ports import free_port
from rooms.test_hosted import text_to_ruta
from rooms.test_metrics import with_settings
from world import AINO, RUTA, World, sign

pytestmark = pytest.mark.thorough

EXAMPLES = 300
TOKEN = "a token for the scraper"
SID = "SM" + "7" * 32
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "REPORT"]


@dataclass(frozen=True)
class Door:
    """Where something is answered, and how it may be."""

    path: str
    statuses: set[int]
    form: Mapping[str, str] = field(default_factory=dict)  # a good one


# 404: what is appended leads elsewhere. 405: another method. 413: a body, or the announcement of one, is too large.
ELSEWHERE = {404, 405, 413}
DOORS = {
    STATUS_PATH: Door(
        STATUS_PATH, {204, 400, 403} | ELSEWHERE, {"MessageSid": SID, "MessageStatus": "failed", "ErrorCode": "30003"}
    ),
    INBOUND_PATH: Door(
        INBOUND_PATH,
        {200, 400, 403} | ELSEWHERE,
        {"MessageSid": SID, "From": RUTA, "To": AINO, "Body": "STOP", "OptOutType": "STOP"},
    ),
    "/r/": Door("/r/", {302, 410} | ELSEWHERE),
    "/o/": Door("/o/", {200, 400} | ELSEWHERE, {"action": "stop"}),
    "/healthz": Door("/healthz", {200} | ELSEWHERE),
    "/readyz": Door("/readyz", {200} | ELSEWHERE),
    "/metrics": Door("/metrics", ELSEWHERE),  # of the public port
    "/docs": Door("/docs", {200} | ELSEWHERE),
    "/docs/problems": Door("/docs/problems", {200} | ELSEWHERE),
    "/problems/": Door("/problems/", {302} | ELSEWHERE),
    "/openapi.json": Door("/openapi.json", {200} | ELSEWHERE),
    "/": Door("/", ELSEWHERE),
}

words = st.one_of(
    st.sampled_from(["", "x", "STOP", "delivered", "failed", "+37061234567", "SM" + "7" * 32, "0", "-1", "9" * 40]),
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")),
)
header_values = st.one_of(
    st.sampled_from(
        [
            *("application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x"),
            *("application/json", "text/plain; charset=nowhere", "de-AT,de;q=0.9,*;q=x", "bytes=0-1", "Bearer x"),
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
)
header_names = st.sampled_from(
    [
        *("Accept", "Accept-Language", "Authorization", "Content-Type", "Cookie", "Forwarded", "Idempotency-Key"),
        *("If-None-Match", "Origin", "Purpose", "Range", "Sec-Purpose", "Traceparent", "User-Agent"),
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Http-Method-Override", "X-Request-Id", "X-Twilio-Signature"),
    ]
)
headers_of_a_request = st.lists(st.tuples(header_names, header_values), max_size=4)


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    is_chunked: bool

    def answered(self, port: int) -> int:
        """The status that it is answered with."""
        length = [("Transfer-Encoding", "chunked")] if self.is_chunked else [("Content-Length", str(len(self.body)))]
        head = [("Host", "x"), ("Connection", "close"), *self.headers, *length]
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in head), "", ""]
        body = (
            f"{len(self.body):x}\r\n".encode() * bool(self.body) + self.body + b"\r\n" * bool(self.body) + b"0\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port), timeout=20) as conn:
            conn.sendall("\r\n".join(lines).encode("latin-1") + (body if self.is_chunked else self.body))
            answer = conn.makefile("rb").readline()
        return int(answer.split()[1])


@st.composite
def requests(draw: st.DrawFn, door: Door, tails: Sequence[str], world: World) -> Sent:
    """A request to a door: a path that is good or nearly, a form with its fields or bytes; of webhooks, signed ones."""
    is_plain = draw(st.booleans())
    tail = draw(st.sampled_from(tails) | words.map(lambda text: quote(text, safe="", errors="surrogateescape")))
    path = door.path + (tail if door.path.endswith("/") or not is_plain else "")
    pairs = st.lists(st.tuples(st.sampled_from(["attempt", "x", ""]), words), min_size=1, max_size=2)
    target = path + ("" if is_plain else "?" + draw(pairs.map(_form)))
    headers = draw(headers_of_a_request)
    form = dict(door.form) if draw(st.booleans()) else {}
    form |= draw(st.fixed_dictionaries({}, optional=dict.fromkeys([*door.form, "Extra"], words)))
    if is_plain and door.form:
        body = _form(list(form.items())).encode()
        headers = [each for each in headers if each[0] not in ("Content-Type", "X-Twilio-Signature")]
        headers.append(("Content-Type", "application/x-www-form-urlencoded"))
        if door.path.startswith("/hooks") and all(_is_text(value) for value in form.values()):
            headers.append(("X-Twilio-Signature", sign(world.runtime, target, form)))
    else:
        body = draw(st.binary(max_size=200) | st.just(b"x" * 65_537))
    usual = st.just("POST" if door.form else "GET")
    return Sent(draw(usual if is_plain else st.sampled_from(METHODS)), target, headers, body, draw(st.booleans()))


def _form(pairs: Sequence[tuple[str, str]]) -> str:
    return urlencode(pairs, errors="surrogateescape")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def attack(port: int, door: Door, tails: Sequence[str], world: World) -> Counter[int]:
    """Knock; how often each status was the answer."""
    seen: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sent=requests(door, tails, world))
    def knock(sent: Sent) -> None:
        status = sent.answered(port)
        seen[status] += 1
        assert status in door.statuses, (status, sent)

    knock()
    return seen


async def test_every_door_is_tried(world: World) -> None:
    """All that the application answers outside of its API."""
    plain = {route.path for route in world.app.routes if type(route) is Route}
    assert {path.partition("{")[0] for path in plain} == DOORS.keys() - {"/metrics", "/"}


@pytest.mark.parametrize("path", DOORS)
async def test_no_door_breaks(world: World, clock: ManualClock, path: str) -> None:
    text = await text_to_ruta(world, clock)
    good = {"/r/": text.recover[3:], "/o/": text.opt_out[3:], "/problems/": "not-allowed"}
    unknown = link_path(world.runtime.vault, b"123456789", "recover")[3:]
    tails = [*([good[path]] * 3 if path in good else ()), unknown, "", "/", "..", "%2e%2e%2f", "%00", "{token}"]
    port = free_port()
    async with serving(world.app, f"http://127.0.0.1:{port}"):
        seen = await asyncio.to_thread(attack, port, DOORS[path], tails, world)
    assert len(seen) >= min(3, len(DOORS[path].statuses) - 1), f"the attack got past the door: {seen}"
    if path.startswith("/hooks"):
        assert seen[204] + seen[200] > 3 and seen[400] > 3, seen
        await work_off_everything(world)


async def work_off_everything(world: World) -> None:
    """What was signed is worked off, however odd: none of it fails."""
    while await work_off_events(world.runtime, 500):
        pass
    async with world.runtime.db.transaction(ENGINE) as conn:
        found = await rows(conn, "SELECT DISTINCT outcome FROM carrier_events")
    assert not {each["outcome"] for each in found} & {None, "failed", "unreadable"}, found


async def test_the_port_of_the_metrics_does_not_break(world: World) -> None:
    port = free_port()
    runtime = with_settings(world.runtime, metrics_port=port, metrics_token=SecretStr(TOKEN))
    door = Door("/metrics", {200, 400, 401} | ELSEWHERE)  # 400: not quite HTTP, such as two Content-Types
    async with exporting(runtime, "web"):
        scrape = Sent("GET", "/metrics", [("Authorization", f"Bearer {TOKEN}")], b"", False)
        assert await asyncio.to_thread(scrape.answered, port) == 200
        seen = await asyncio.to_thread(attack, port, door, ["", "/", ".."], world)
    assert seen.keys() >= {401, 404, 405}
