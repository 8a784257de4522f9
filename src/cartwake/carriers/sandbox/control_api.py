"""`/sandbox/…`: the door for people, the demonstration and tests.

What a phone shows, what its owner answers, what becomes of texts to it, and what goes wrong.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cartwake.carriers.sandbox import resources
from cartwake.carriers.sandbox.callbacks import Webhooks
from cartwake.carriers.sandbox.delivery import Courier
from cartwake.carriers.sandbox.encoding import segments
from cartwake.carriers.sandbox.faults import Faults
from cartwake.carriers.sandbox.rules import is_phone
from cartwake.carriers.sandbox.state import Recipient, State, Text

LIMIT_DEFAULT = 100
LIMIT_MAX = 10_000


class Reply(BaseModel):
    """A shopper's answer; without `to` it goes to whoever texted them last."""

    model_config = ConfigDict(extra="forbid")

    sender: str = Field(alias="from")
    to: str | None = None
    body: str


class ControlApi:
    """The door for people and tests."""

    def __init__(self, state: State, courier: Courier, webhooks: Webhooks) -> None:
        self._state = state
        self._courier = courier
        self._webhooks = webhooks

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/sandbox/messages", self.messages),
            web.post("/sandbox/replies", self.reply),
            web.put("/sandbox/recipients/{phone}", self.script),
            web.get("/sandbox/faults", self.faults),
            web.put("/sandbox/faults", self.set_faults),
            web.get("/sandbox/counts", self.counts),
            web.get("/sandbox", self.summary),
            web.delete("/sandbox", self.reset),
        ]

    async def messages(self, request: web.Request) -> web.Response:
        """Newest first: texts sent `to` a phone, or to and from a `phone`, or all; at most `limit`."""
        query = request.query
        limit = min(_number(query.get("limit"), LIMIT_DEFAULT), LIMIT_MAX)
        if phone := query.get("phone"):
            texts = self._state.conversation(phone)
        else:
            to = query.get("to") or None
            texts = (text for text in self._state.newest_first(to, None) if not text.inbound)
        return resources.answer({"messages": [_show(text) for text in islice(texts, limit)]})

    async def reply(self, request: web.Request) -> web.Response:
        """A shopper answers: their STOP is noted, and our web is told. Returns once it answered."""
        reply = Reply.model_validate(await _json(request))
        to = reply.to or self._last_sender(reply.sender)
        if not is_phone(reply.sender) or to is None or not is_phone(to):
            return _bad("`from` must be a phone, and `to` (or who texted it last) a number that can receive texts")
        text = self._state.add(to=to, sender=reply.sender, body=reply.body, status="received", inbound=True)
        self._state.note_text(text)
        self._state.apply_keyword(to, reply.sender, reply.body)
        url = self._inbound_url(to)
        http_status = await self._webhooks.post(url, self._inbound_fields(text)) if url else None
        return resources.answer({"sid": text.sid, "to": to, "webhook": {"url": url, "http_status": http_status}}, 201)

    async def script(self, request: web.Request) -> web.Response:
        """Decide what becomes of later texts to one phone."""
        phone = request.match_info["phone"]
        if not is_phone(phone):
            return _bad("the recipient must be a phone number like +37061234567")
        recipient = Recipient.model_validate(await _json(request))
        self._state.script(phone, recipient)
        return resources.answer(recipient.model_dump())

    async def faults(self, request: web.Request) -> web.Response:
        """The faults in force."""
        return resources.answer(self._state.faults.model_dump())

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replace them all; what is not named goes back to its default."""
        self._state.go_wrong(Faults.model_validate(await _json(request)))
        return await self.faults(request)

    async def counts(self, request: web.Request) -> web.Response:
        """Accepted texts per recipient and body, for an audit; `at_least=2` shows duplicates only."""
        at_least = _number(request.query.get("at_least"), 1)
        seen = Counter((text.to, text.body) for text in self._state.texts.values() if not text.inbound)
        texts = [{"to": to, "body": body, "count": n} for (to, body), n in seen.items() if n >= at_least]
        return resources.answer(self._summary() | {"texts": texts})

    async def summary(self, request: web.Request) -> web.Response:
        """How many texts were accepted, are still remembered, and are under way. Cheap, unlike `counts`."""
        return resources.answer(self._summary())

    async def reset(self, request: web.Request) -> web.Response:
        """Forget everything, and drop what is under way."""
        await self._courier.stop()
        self._state.reset()
        return web.Response(status=204)

    def _summary(self) -> dict[str, Any]:
        return {
            "accepted": self._state.accepted,
            "kept": len(self._state.texts),
            "pending": self._courier.pending,
        }

    def _last_sender(self, phone: str) -> str | None:
        return next((text.sender for text in self._state.newest_first(phone, None) if not text.inbound), None)

    def _inbound_url(self, to: str) -> str | None:
        number = self._state.number(to)
        return number.sms_url if number else self._state.options.inbound_url

    def _inbound_fields(self, text: Text) -> dict[str, str]:
        return {
            "AccountSid": self._state.options.account_sid,
            "ApiVersion": "2010-04-01",
            "Body": text.body,
            "From": text.sender or "",
            "MessageSid": text.sid,
            "NumMedia": "0",
            "NumSegments": str(segments(text.body)),
            "SmsMessageSid": text.sid,
            "SmsSid": text.sid,
            "SmsStatus": "received",
            "To": text.to,
        }


@web.middleware
async def explain_bad_input(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turn a document that does not fit into a 400 that says where."""
    try:
        response: web.StreamResponse = await handler(request)
    except ValidationError as error:
        return _bad("; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()))
    return response


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        document = await request.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise web.HTTPBadRequest(text='{"error": "the body must be a JSON object"}', content_type="application/json")
    return document


def _bad(reason: str) -> web.Response:
    return resources.answer({"error": reason}, 400)


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else default


def _show(text: Text) -> dict[str, Any]:
    return {
        "sid": text.sid,
        "direction": "inbound" if text.inbound else "outbound",
        "from": text.sender,
        "to": text.to,
        "body": text.body,
        "num_segments": text.segments,
        "status": text.status,
        "error_code": text.error_code,
        "validity_s": text.validity_s,
        "created_at": text.created_at.isoformat(),
        "sent_at": text.sent_at.isoformat() if text.sent_at else None,
        "updated_at": text.updated_at.isoformat(),
        "callbacks": [
            {"status": c.status, "error_code": c.error_code, "at": c.at.isoformat(), "http_status": c.http_status}
            for c in text.callbacks
        ],
    }
