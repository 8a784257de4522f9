"""How Twilio writes things down: JSON resources, dates, pages and errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from cartwake.carriers.sandbox.rules import Refusal
from cartwake.carriers.sandbox.state import Number, Text

API = "/2010-04-01/Accounts"


def answer(payload: object, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=json.dumps(payload).encode(), status=status, content_type="application/json")


def refuse(refusal: Refusal) -> web.Response:
    """Twilio's error document."""
    document = {
        "code": refusal.code,
        "message": refusal.message,
        "more_info": f"https://www.twilio.com/docs/errors/{refusal.code}",
        "status": refusal.http_status,
    }
    return answer(document, refusal.http_status)


def message(text: Text, account_sid: str) -> dict[str, Any]:
    """A Message resource. Prices are not known here, as at Twilio before a text is billed."""
    uri = f"{API}/{account_sid}/Messages/{text.sid}"
    return {
        "account_sid": account_sid,
        "api_version": "2010-04-01",
        "body": text.body,
        "date_created": rfc2822(text.created_at),
        "date_sent": rfc2822(text.sent_at),
        "date_updated": rfc2822(text.updated_at),
        "direction": "inbound" if text.inbound else "outbound-api",
        "error_code": text.error_code,
        "error_message": None,
        "from": text.sender,
        "messaging_service_sid": text.service_sid,
        "num_media": "0",
        "num_segments": str(text.segments),
        "price": None,
        "price_unit": "USD",
        "sid": text.sid,
        "status": text.status,
        "subresource_uris": {"media": f"{uri}/Media.json"},
        "to": text.to,
        "uri": f"{uri}.json",
    }


def incoming_number(number: Number, account_sid: str) -> dict[str, Any]:
    """An IncomingPhoneNumber resource."""
    return {
        "account_sid": account_sid,
        "address_requirements": "none",
        "address_sid": number.address_sid,
        "api_version": "2010-04-01",
        "beta": False,
        "bundle_sid": number.bundle_sid,
        "capabilities": {"voice": False, "sms": True, "mms": False},
        "date_created": rfc2822(number.created_at),
        "date_updated": rfc2822(number.created_at),
        "friendly_name": number.friendly_name,
        "phone_number": number.phone_number,
        "sid": number.sid,
        "sms_method": "POST",
        "sms_url": number.sms_url,
        "status": "in-use",
        "uri": f"{API}/{account_sid}/IncomingPhoneNumbers/{number.sid}.json",
    }


def page(
    key: str, records: Sequence[object], path: str, query: Mapping[str, str], *, page_size: int, next_token: str | None
) -> dict[str, Any]:
    """One page of a list, with the address of the next."""
    number = int(query.get("Page", "0")) if query.get("Page", "0").isdigit() else 0
    filters = {name: value for name, value in query.items() if name not in ("Page", "PageToken", "PageSize")}

    def uri(**position: str | int) -> str:
        return f"{path}?{urlencode({**filters, 'PageSize': page_size, **position})}"

    return {
        key: records,
        "end": number * page_size + max(len(records) - 1, 0),
        "first_page_uri": uri(Page=0),
        "next_page_uri": uri(Page=number + 1, PageToken=next_token) if next_token else None,
        "page": number,
        "page_size": page_size,
        "previous_page_uri": None,
        "start": number * page_size,
        "uri": f"{path}?{urlencode(query)}",
    }


def rfc2822(when: datetime | None) -> str | None:
    """`Thu, 24 Aug 2023 05:01:45 +0000`."""
    return None if when is None else format_datetime(when)
