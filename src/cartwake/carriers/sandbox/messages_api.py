"""`/2010-04-01/Accounts/{AC}/Messages…`: sending a text, and asking about texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import parse_qsl

from aiohttp import web

from cartwake.carriers.sandbox import resources
from cartwake.carriers.sandbox.delivery import Courier
from cartwake.carriers.sandbox.rules import Refusal, refusal
from cartwake.carriers.sandbox.state import Recipient, State, Text, attempt_key

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1000

# The code of a scripted rejection for which the script names none.
REJECTED_CODE = 21614


class MessagesApi:
    """The Messages resource."""

    def __init__(self, state: State, courier: Courier) -> None:
        self._state = state
        self._courier = courier

    def routes(self) -> list[web.RouteDef]:
        base = resources.API + "/{account}/Messages"
        return [
            web.post(base + ".json", self.create),
            web.get(base + ".json", self.list),
            web.get(base + "/{sid}.json", self.fetch),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Take a text, or not, with the faults in force."""
        form = dict(parse_qsl((await request.read()).decode(errors="replace"), keep_blank_values=True))
        key = attempt_key(form.get("StatusCallback"), form.get("To", ""), form.get("Body", ""))
        faults = self._state.faults
        response = self._before_taking(key) or self._take(form)
        if faults.latency_ms and faults.strikes("latency", key):
            await asyncio.sleep(faults.latency_ms / 1000)
        if response.status == 201 and faults.strikes("error_after", key):
            return resources.refuse(Refusal(20500))
        if response.status == 201 and faults.strikes("drop_after", key) and request.transport is not None:
            request.transport.abort()
        return response

    async def list(self, request: web.Request) -> web.Response:
        """Texts by `To`, `From` and `DateSent` (`=`, `>=`, `<=`), newest first, a page at a time."""
        query = request.query
        size = int(query["PageSize"]) if query.get("PageSize", "").isdigit() else PAGE_SIZE_DEFAULT
        size = min(max(size, 1), PAGE_SIZE_MAX)
        try:
            wanted = self._matching(query)
        except ValueError:
            return resources.refuse(Refusal(20001))
        texts = list(islice(wanted, size + 1))
        token = f"PA{texts[size - 1].seq}" if len(texts) > size else None
        records = [resources.message(text, self._state.options.account_sid) for text in texts[:size]]
        return resources.answer(
            resources.page("messages", records, request.path, query, page_size=size, next_token=token)
        )

    async def fetch(self, request: web.Request) -> web.Response:
        """One text."""
        text = self._state.texts.get(request.match_info["sid"])
        if text is None:
            return resources.refuse(Refusal(20404))
        return resources.answer(resources.message(text, self._state.options.account_sid))

    def _before_taking(self, key: str) -> web.Response | None:
        if self._state.faults.strikes("throttle", key):
            response = resources.refuse(Refusal(20429))
            response.headers["Retry-After"] = str(self._state.faults.retry_after_s)
            return response
        return resources.refuse(Refusal(20500)) if self._state.faults.strikes("error_before", key) else None

    def _take(self, form: Mapping[str, str]) -> web.Response:
        refused = refusal(form) or self._refused_by_recipient(form)
        if refused:
            return resources.refuse(refused)
        text = self._accept(form)
        self._courier.carry(text)
        return resources.answer(resources.message(text, self._state.options.account_sid), 201)

    def _refused_by_recipient(self, form: Mapping[str, str]) -> Refusal | None:
        """Their STOP to this sender, or what a test scripted for them."""
        if (_stop_list(form), form["To"]) in self._state.stopped:
            return Refusal(21610)
        recipient = self._state.recipients.get(form["To"], Recipient())
        return Refusal(recipient.error_code or REJECTED_CODE) if recipient.outcome == "rejected" else None

    def _accept(self, form: Mapping[str, str]) -> Text:
        service = form.get("MessagingServiceSid") or None
        text = self._state.add(
            to=form["To"],
            sender=form.get("From") or None,
            body=form["Body"],
            status="accepted" if service else "queued",
        )
        text.service_sid = service
        text.status_callback = form.get("StatusCallback") or None
        text.validity_s = int(form.get("ValidityPeriod", text.validity_s))
        self._state.note_text(text)
        return text

    def _matching(self, query: Mapping[str, str]) -> Iterator[Text]:
        tests = [_page_test(query), *_date_tests(query)]
        texts = self._state.newest_first(query.get("To") or None, query.get("From") or None)
        return (text for text in texts if all(test(text) for test in tests))


def _stop_list(form: Mapping[str, str]) -> str:
    # A messaging service has one STOP list for all its numbers.
    return form.get("MessagingServiceSid") or form["From"]


def _page_test(query: Mapping[str, str]) -> Callable[[Text], bool]:
    token = query.get("PageToken", "").removeprefix("PA")
    if not token:
        return lambda text: True
    before = int(token)
    return lambda text: text.seq < before


def _date_tests(query: Mapping[str, str]) -> Iterator[Callable[[Text], bool]]:
    """A text that was not sent yet has no such date, so no date filter finds it."""
    for name in ("DateSent", "DateSent>", "DateSent<"):
        if value := query.get(name):
            first = datetime.fromisoformat(value.replace("Z", "+00:00"))
            first = first.replace(tzinfo=UTC) if first.tzinfo is None else first
            # A plain date means the whole day.
            last = first + (timedelta(days=1) if len(value) == len("2026-07-01") else timedelta(seconds=1))
            yield _between(None if name == "DateSent<" else first, None if name == "DateSent>" else last)


def _between(first: datetime | None, end: datetime | None) -> Callable[[Text], bool]:
    def test(text: Text) -> bool:
        sent = text.sent_at
        return sent is not None and (first is None or sent >= first) and (end is None or sent < end)

    return test
