"""`AvailablePhoneNumbers` and `IncomingPhoneNumbers`: searching, buying and giving back numbers.

The numbers are real in form (libphonenumber's examples with other last digits) and in nothing else.
Which countries want an address or a bundle is plausible, not current regulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from urllib.parse import parse_qsl

import phonenumbers
from aiohttp import web
from phonenumbers import PhoneNumberType

from cartwake.carriers.sandbox import resources
from cartwake.carriers.sandbox.rules import Refusal, is_phone
from cartwake.carriers.sandbox.state import Number, State, new_sid

KINDS = {
    "Local": PhoneNumberType.FIXED_LINE,
    "Mobile": PhoneNumberType.MOBILE,
    "National": PhoneNumberType.UAN,
    "TollFree": PhoneNumberType.TOLL_FREE,
}
NO_DOMESTIC_NUMBERS = frozenset({"IE", "LV", "NZ"})
NO_PAPERS = frozenset({"US", "CA"})  # neither an address nor a bundle
BUNDLE_COUNTRIES = frozenset({"DE", "ES", "FR", "IT", "PL"})

SEARCH_DEFAULT = 30
SEARCH_MAX = 1000


class NumbersApi:
    """The two resources of phone numbers."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        account = resources.API + "/{account}"
        bought = account + "/IncomingPhoneNumbers"
        return [
            web.get(account + "/AvailablePhoneNumbers/{country}/{kind}.json", self.search),
            web.post(bought + ".json", self.buy),
            web.get(bought + ".json", self.list),
            web.get(bought + "/{sid}.json", self.fetch),
            web.post(bought + "/{sid}.json", self.update),
            web.delete(bought + "/{sid}.json", self.release),
        ]

    async def search(self, request: web.Request) -> web.Response:
        """Numbers for sale in a country, by kind, `Contains`, `SmsEnabled` and `ExcludeAllAddressRequired`."""
        country, kind, query = request.match_info["country"].upper(), request.match_info["kind"], request.query
        if kind not in KINDS or country in NO_DOMESTIC_NUMBERS or not _has(country, kind):
            return resources.refuse(Refusal(20404))
        size = int(query["PageSize"]) if query.get("PageSize", "").isdigit() else SEARCH_DEFAULT
        nothing = _is_true(query.get("SmsEnabled")) and not _can_text(country, kind)
        nothing = nothing or (_is_true(query.get("ExcludeAllAddressRequired")) and country not in NO_PAPERS)
        taken = {number.phone_number for number in self._state.numbers.values()}
        digits = query.get("Contains", "").strip("*+")
        offers = (n for n in _numbers(country, kind) if n not in taken and digits in n)
        records = [] if nothing else [_offer(n, country, kind) for n in islice(offers, min(size, SEARCH_MAX))]
        return resources.answer({"available_phone_numbers": records, "uri": request.path})

    async def buy(self, request: web.Request) -> web.Response:
        """Buy the number `PhoneNumber`."""
        form = await _form(request)
        wanted = form.get("PhoneNumber", "")
        if refused := self._not_for_sale(wanted) or _missing_papers(wanted, form):
            return resources.refuse(refused)
        number = Number(
            sid=new_sid("PN"),
            phone_number=wanted,
            sms_url=form.get("SmsUrl") or None,
            friendly_name=form.get("FriendlyName", wanted),
            address_sid=form.get("AddressSid") or None,
            bundle_sid=form.get("BundleSid") or None,
            created_at=self._state.clock.now(),
        )
        self._state.numbers[number.sid] = number
        return self._show(number, 201)

    async def list(self, request: web.Request) -> web.Response:
        """Numbers that were bought, all on one page; by `PhoneNumber`."""
        wanted = request.query.get("PhoneNumber")
        numbers = [n for n in self._state.numbers.values() if wanted in (None, n.phone_number)]
        records = [resources.incoming_number(n, self._state.options.account_sid) for n in numbers]
        return resources.answer(
            resources.page(
                "incoming_phone_numbers",
                records,
                request.path,
                request.query,
                page_size=max(len(records), 50),
                next_token=None,
            )
        )

    async def fetch(self, request: web.Request) -> web.Response:
        """One number."""
        number = self._state.numbers.get(request.match_info["sid"])
        return resources.refuse(Refusal(20404)) if number is None else self._show(number)

    async def update(self, request: web.Request) -> web.Response:
        """Change where replies to the number go, or its name."""
        number = self._state.numbers.get(request.match_info["sid"])
        if number is None:
            return resources.refuse(Refusal(20404))
        form = await _form(request)
        number.sms_url = form.get("SmsUrl", number.sms_url or "") or None
        number.friendly_name = form.get("FriendlyName", number.friendly_name)
        return self._show(number)

    async def release(self, request: web.Request) -> web.Response:
        """Give a number back; it is for sale again."""
        if self._state.numbers.pop(request.match_info["sid"], None) is None:
            return resources.refuse(Refusal(20404))
        return web.Response(status=204)

    def _not_for_sale(self, wanted: str) -> Refusal | None:
        country = _country(wanted) if is_phone(wanted) else ""
        taken = not country or country in NO_DOMESTIC_NUMBERS or self._state.number(wanted)
        return Refusal(21422) if taken else None

    def _show(self, number: Number, status: int = 200) -> web.Response:
        return resources.answer(resources.incoming_number(number, self._state.options.account_sid), status)


def _missing_papers(phone_number: str, form: dict[str, str]) -> Refusal | None:
    country = _country(phone_number)
    if country in BUNDLE_COUNTRIES and not form.get("BundleSid"):
        return Refusal(21649)
    if country not in NO_PAPERS and not form.get("AddressSid"):
        return Refusal(21631)
    return None


def _country(phone_number: str) -> str:
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(phone_number)) or ""
    except phonenumbers.NumberParseException:
        return ""


def _has(country: str, kind: str) -> bool:
    return phonenumbers.example_number_for_type(country, KINDS[kind]) is not None


def _can_text(country: str, kind: str) -> bool:
    # Outside North America a landline number cannot text.
    return kind == "Mobile" or country in NO_PAPERS


def _numbers(country: str, kind: str) -> Iterator[str]:
    example = phonenumbers.example_number_for_type(country, KINDS[kind])
    assert example is not None and example.national_number is not None
    for last_digits in range(10_000):
        number = phonenumbers.PhoneNumber()
        number.merge_from(example)
        number.national_number = example.national_number // 10_000 * 10_000 + last_digits
        if phonenumbers.is_valid_number_for_region(number, country):
            yield phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _offer(phone_number: str, country: str, kind: str) -> dict[str, object]:
    return {
        "address_requirements": "none" if country in NO_PAPERS else "any",
        "beta": False,
        "capabilities": {"voice": kind != "Mobile", "SMS": _can_text(country, kind), "MMS": country in NO_PAPERS},
        "friendly_name": phone_number,
        "iso_country": country,
        "lata": None,
        "latitude": None,
        "locality": None,
        "longitude": None,
        "phone_number": phone_number,
        "postal_code": None,
        "rate_center": None,
        "region": None,
    }


def _is_true(value: str | None) -> bool:
    return (value or "").lower() == "true"


async def _form(request: web.Request) -> dict[str, str]:
    return dict(parse_qsl((await request.read()).decode(errors="replace"), keep_blank_values=True))
