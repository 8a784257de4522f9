"""Twilio, or any server that speaks its API, through the official SDK on our own transport.

Twilio has no idempotency keys (error 20500), so the one rule that matters: a POST whose answer is
not a clear yes or no is `Unknown`, to be asked about and never repeated.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import aiohttp
from multidict import MultiDict
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.base.page import Page
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from cartwake.carriers import webhooks
from cartwake.carriers.errors import LOWEST_CODE, classify, describe
from cartwake.carriers.protocol import (
    Absent,
    Accepted,
    Account,
    CannotAsk,
    CarrierError,
    ErrorClass,
    Found,
    InboundText,
    ListedText,
    MessageStatus,
    OutboundText,
    OwnedNumber,
    Rejected,
    SendResult,
    StatusReport,
    Throttled,
    Trouble,
    Unknown,
)
from cartwake.carriers.transport import LAST_ANSWER, NEVER_SENT, Answer, Transport
from cartwake.kit.network import NetworkTrouble, explain, trouble_of

VALIDITY_MAX_S = 36_000  # Twilio's limit and default (Messages resource)

# How long to wait before handing a text over again, where the carrier does not say.
THROTTLE_RETRY_S = 5.0
UNREACHABLE_RETRY_S = 15.0
RETRY_MAX_S = 3600.0

# Retries that Twilio makes when our web is away: five, after any failure (webhook connection overrides).
CALLBACK_OVERRIDES = "#rc=5&rp=all"

# `find` reads at most this much before it admits that it cannot tell.
FIND_PAGE_SIZE = 100
FIND_PAGES_MAX = 20
HISTORY_PAGE_SIZE = NUMBERS_PAGE_SIZE = 1000  # the most that Twilio gives at once
NUMBERS_PAGES_MAX = 100

SIGNATURE_HEADER = "X-Twilio-Signature"
NO_ANSWER = Answer(0, None)
NETWORK_TROUBLES = {
    NetworkTrouble.UNREACHABLE: Trouble.UNREACHABLE,
    NetworkTrouble.CERTIFICATE: Trouble.CERTIFICATE,
    NetworkTrouble.TIMEOUT: Trouble.TIMEOUT,
}
NO_SUCH_TEXT = 20404

# Twilio's dates have whole seconds and its clock is not ours. Wider is safe: two texts to one phone
# with the same body are a day apart at least.
CLOCK_TOLERANCE = timedelta(minutes=2)


class TwilioCarrier:
    """The `Carrier` for Twilio. One per process; it holds a connection pool."""

    def __init__(
        self,
        *,
        api_base: str,
        account_sid: str,
        auth_token: str,
        callback_url: str,
        timeout_s: float,
        concurrency: int,
    ) -> None:
        """`callback_url`: where receipts go, without a query; `timeout_s`: machine seconds for one call."""
        self._transport = Transport(api_base=api_base, timeout_s=timeout_s, concurrency=concurrency)
        client = Client(  # type: ignore[no-untyped-call]
            account_sid,
            auth_token,
            http_client=self._transport,
            # Not empty, or the SDK reads the process's TWILIO_EDGE and TWILIO_REGION and changes the host.
            environment={"TWILIO_REGION": ""},
        )
        self._account_sid = account_sid
        self._accounts = client.api.v2010.accounts
        self._numbers = client.incoming_phone_numbers
        self._messages = client.messages
        self._validator = RequestValidator(auth_token)  # type: ignore[no-untyped-call]
        self._callback_url = callback_url

    async def send(self, text: OutboundText) -> SendResult:
        """Hand one text over, once. Never retries, never raises for what the carrier or the network does."""
        if text.validity_s < 1:
            return Rejected(None, ErrorClass.EXPIRED, "its time to be delivered was over before it was handed over")
        try:
            message = await self._messages.create_async(
                to=text.to,
                from_=text.sender,
                body=text.body,
                status_callback=f"{self._callback_url}?attempt={text.attempt_id.hex}{CALLBACK_OVERRIDES}",
                validity_period=min(text.validity_s, VALIDITY_MAX_S),
            )
        except NEVER_SENT:
            # No byte of the text left this machine, so handing it over again cannot text anybody twice.
            return Throttled(None, UNREACHABLE_RETRY_S, "carrier_not_reached")
        except (TwilioRestException, TwilioServiceException) as refusal:
            return _refused(refusal.code, LAST_ANSWER.get())
        except Exception as error:  # past this point the text may have been taken, whatever went wrong
            return Unknown(_why(error))
        return Accepted(message.sid) if webhooks.is_sid(message.sid) else Unknown("an answer without a message id")

    async def find(self, text: OutboundText, since: datetime) -> Found | Absent | CannotAsk:
        """Look for the text among those between its two numbers.

        Twilio can filter by `DateSent` too, but a text that still waits in its queue has no such
        date, and calling a waiting text absent would be wrong. One phone gets a text a day, so the
        list is short without that filter.
        """
        earliest = since - CLOCK_TOLERANCE
        try:
            page: Page | None = await self._messages.page_async(to=text.to, from_=text.sender, page_size=FIND_PAGE_SIZE)
            for _ in range(FIND_PAGES_MAX):
                if page is None:
                    return Absent()
                for record in page:
                    if _is_same(record, text, earliest):
                        return Found(_report(record, text.attempt_id))
                page = await page.next_page_async()
        except Exception as error:  # it was only a question: whatever went wrong, it can be asked again
            return CannotAsk(_why(error))
        return CannotAsk("more texts between these two numbers than can be searched")

    async def look_up(self, sid: str, attempt_id: UUID) -> Found | Absent | CannotAsk:
        """What became of a text that was taken; absent when Twilio has it no more (20404)."""
        try:
            record = await self._messages(sid).fetch_async()
        except TwilioRestException as refusal:
            return Absent() if refusal.code == NO_SUCH_TEXT else CannotAsk(describe(None, refusal.status))
        except Exception as error:  # it was only a question: whatever went wrong, it can be asked again
            return CannotAsk(_why(error))
        return Found(_report(record, attempt_id)) if record.sid == sid else CannotAsk("an answer about another text")

    async def history(self, since: datetime) -> AsyncIterator[ListedText]:
        """Every text of the account since then, newest first, a page at a time. Raises `CarrierError`."""
        try:
            page: Page | None = await self._messages.page_async(page_size=HISTORY_PAGE_SIZE)
            while page is not None:
                for record in page:
                    if record.date_created is not None and record.date_created < since - CLOCK_TOLERANCE:
                        return
                    yield _listed(record)
                page = await page.next_page_async()
        except (TwilioException, OSError, TimeoutError) as error:
            raise CarrierError(_why(error)) from None

    async def account(self) -> Account:
        """Our account, and the carrier's time. Raises `CarrierError`."""
        LAST_ANSWER.set(NO_ANSWER)
        try:
            found = await self._accounts(self._account_sid).fetch_async()
            if not found.status:  # a redirect, say, which the SDK takes for an answer
                raise ValueError("no account in the answer")
            return Account(str(found.status), str(found.type), _http_date(LAST_ANSWER.get().date))
        except Exception as error:  # a question only, and somebody wants to know what became of it
            raise _cannot_ask(error) from None

    async def owned_numbers(self) -> list[OwnedNumber]:
        """Every number of the account. Raises `CarrierError`."""
        LAST_ANSWER.set(NO_ANSWER)
        found: list[OwnedNumber] = []
        try:
            page: Page | None = await self._numbers.page_async(page_size=NUMBERS_PAGE_SIZE)
            for _ in range(NUMBERS_PAGES_MAX):
                if page is None:
                    return found
                found += [OwnedNumber(str(record.phone_number), record.sms_url or None) for record in page]
                page = await page.next_page_async()
        except Exception as error:
            raise _cannot_ask(error) from None
        raise CarrierError("it has more numbers than can be read")

    def sign(self, url: str, form: Mapping[str, str]) -> dict[str, str]:
        """The header by which Twilio proves a webhook to `url`."""
        return {SIGNATURE_HEADER: self._validator.compute_signature(url, dict(form))}  # type: ignore[no-untyped-call]

    def verify(self, url: str, body: bytes, headers: Mapping[str, str]) -> bool:
        """Whether the account's auth token signed this webhook (SDK's validator; with or without the port)."""
        signatures = [value for name, value in headers.items() if name.lower() == SIGNATURE_HEADER.lower()]
        if len(signatures) != 1 or not signatures[0]:
            return False
        try:
            form = MultiDict(webhooks.fields(body))
            return bool(self._validator.validate(url, form, signatures[0]))  # type: ignore[no-untyped-call]
        except ValueError:  # not a form, not UTF-8, not an address: nothing that Twilio would have signed
            return False

    def read_status(self, body: bytes, query: Mapping[str, str]) -> StatusReport | None:
        """The receipt in a verified callback; None where its status says nothing we act on. Raises `BadInput`."""
        return webhooks.read_status(body, query)

    def read_inbound(self, body: bytes) -> InboundText:
        """The shopper's text in a verified webhook. Raises `BadInput` when required fields are missing."""
        return webhooks.read_inbound(body)

    async def close(self) -> None:
        """Give connections back."""
        await self._transport.close()


def _cannot_ask(error: Exception) -> CarrierError:
    """Why a question was not answered. Quotes nothing of what was answered."""
    if isinstance(error, aiohttp.ClientError | OSError | TimeoutError):
        return CarrierError(explain(error), NETWORK_TROUBLES[trouble_of(error)])
    status = LAST_ANSWER.get().status
    code = error.code if isinstance(error, TwilioRestException | TwilioServiceException) else None
    if status == 401 or code == 20003:
        return CarrierError("it refuses our account SID and auth token", Trouble.CREDENTIALS)
    if code == 20404:
        return CarrierError("it knows no such account", Trouble.NO_ACCOUNT)
    answered = f"it answered HTTP {status}" if status >= 300 else "its answer is not one of the carrier's API"
    return CarrierError(answered, Trouble.REFUSED)


def _http_date(header: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(header).astimezone(UTC) if header else None
    except ValueError:
        return None


def _refused(code: object, answer: Answer) -> SendResult:
    """What an answer other than 2xx means for the text."""
    known = code if isinstance(code, int) and code >= LOWEST_CODE else None
    kind = classify(known, answer.status)
    if kind is ErrorClass.UNKNOWN_OUTCOME:
        return Unknown(describe(known, answer.status))
    if kind is ErrorClass.THROTTLE:
        return Throttled(known, _retry_after_s(answer.retry_after))
    return Rejected(known, kind, describe(known, answer.status))


def _retry_after_s(header: str | None) -> float:
    # A date is allowed there too (RFC 9110), but Twilio sends seconds.
    if header is None or not re.fullmatch(r"\d{1,9}", header.strip()):
        return THROTTLE_RETRY_S
    return min(float(header), RETRY_MAX_S)


def _why(error: Exception) -> str:
    """The kind of a failure. Never its message, which may quote a form or an answer with a phone number in it."""
    for part in error.args if isinstance(error, TwilioException) else ():
        if hasattr(part, "status_code"):  # the SDK's way of saying that a list could not be read
            return f"the carrier answered HTTP {part.status_code}"
    return type(error).__name__


def _is_same(record: Any, text: OutboundText, earliest: datetime) -> bool:
    # An empty body was redacted at the carrier; the numbers and the time must then be enough.
    return (
        (record.to, record.from_) == (text.to, text.sender)
        and record.body in (text.body, "", None)
        and (record.date_created is None or record.date_created >= earliest)
    )


def _listed(record: Any) -> ListedText:
    return ListedText(
        sid=record.sid,
        sender=record.from_ or "",
        to=record.to or "",
        body=record.body or "",
        created_at=record.date_created,
        inbound=record.direction == "inbound",
        status=_status(record),
    )


def _status(record: Any) -> MessageStatus:
    # A status that we do not know is still a text that was taken.
    return webhooks.STATUSES.get(record.status, MessageStatus.ACCEPTED)


def _report(record: Any, attempt_id: UUID) -> StatusReport:
    return StatusReport(
        sid=record.sid,
        attempt_id=attempt_id,
        status=_status(record),
        error_code=webhooks.error_code(record.error_code),
    )
