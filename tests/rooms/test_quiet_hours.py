"""The room of quiet hours: whose clocks, which law, and when the window next opens."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, partial
from importlib.resources import files
from typing import Any
from uuid import UUID

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cartwake.kit.errors import BadInput
from cartwake.quiet_hours.places import candidate_places, place_of, rule_book, rule_for
from cartwake.quiet_hours.windows import (
    Opening,
    SendWindow,
    check_shop_window,
    clock_openings,
    next_opening,
    spread,
    validity_s,
)
from cartwake.quiet_hours.zones import candidate_zones, zone

MINUTE = timedelta(minutes=1)
TEN_TO_SEVEN, EIGHT_TO_TEN, MORNING = SendWindow(), SendWindow(time(8), time(22)), SendWindow(time(10), time(12))

# One mobile number of each country that has a row.
PHONES = {
    "US": "+12015550123", "CA": "+15062345678", "GB": "+447400123456", "LT": "+37061234567", "LV": "+37121234567",
    "EE": "+37251234567", "FI": "+358412345678", "PL": "+48512345678", "IE": "+353850123456", "NL": "+31612345678",
    "BE": "+32450001234", "IT": "+393123456789", "ES": "+34612345678", "PT": "+351912345678", "DE": "+4915123456789",
    "FR": "+33612345678", "AT": "+43664123456", "CH": "+41781234567", "AU": "+61412345678", "NZ": "+64211234567",
    "SE": "+46701234567", "DK": "+4534412345", "NO": "+4740612345",
}  # fmt: skip
DALLAS, MONTGOMERY, PROVIDENCE = "+12142345678", "+13342345678", "+14012345678"
BOWLING_GREEN, LOS_ANGELES, UNKNOWN_AREA = "+12705550123", "+13105550123", "+15005550006"


def at(text: str) -> datetime:
    """`2026-07-12 12:00 Europe/Paris` as a moment."""
    day, clock, zone_name = text.split()
    return datetime.fromisoformat(f"{day} {clock}").replace(tzinfo=zone(zone_name)).astimezone(UTC)


def facts_of(country: str, phone: str, ship: str) -> dict[str, Any]:
    """A number (by default the example of its country) and an address such as `US-TX`, or none."""
    address, _, province = ship.partition("-")
    return {
        "phone_e164": phone or PHONES.get(country, "+00"), "phone_country": country,
        "shipping_country": address or None, "shipping_province": province or None,
    }  # fmt: skip


def zones_for(country: str, phone: str = "", ship: str = "", time_zone: str | None = None) -> tuple[str, ...]:
    return candidate_zones(**facts_of(country, phone, ship), time_zone=time_zone)


def places_for(country: str, phone: str = "", ship: str = "") -> tuple[str, ...]:
    return candidate_places(**facts_of(country, phone, ship))


def opening_for(now: datetime, country: str, phone: str = "", ship: str = "", window: Any = TEN_TO_SEVEN) -> Any:
    """Ask as the gates do."""
    zones, places = zones_for(country, phone, ship), places_for(country, phone, ship)
    return next_opening(now, zones=zones, places=places, window=window)


@pytest.mark.parametrize(
    ("country", "options", "clocks", "now", "opens", "closes"),
    [
        # A Lithuanian shop's 10:00 is the shopper's, wherever the shop is.
        ("FI", {}, "Europe/Vilnius", "2026-07-08 06:00", "2026-07-08 10:00", "19:00"),
        ("DE", {}, "Europe/Vilnius", "2026-07-08 06:00", "2026-07-08 11:00", "20:00"),
        # Sundays and public holidays.
        ("FR", {}, "Europe/Paris", "2026-07-12 12:00", "2026-07-13 10:00", "19:00"),
        ("FR", {}, "Europe/Paris", "2026-07-14 12:00", "2026-07-15 10:00", "19:00"),
        ("IT", {}, "Europe/Rome", "2026-07-12 12:00", "2026-07-13 10:00", "19:00"),
        ("DE", {}, "Europe/Berlin", "2026-12-25 12:00", "2026-12-25 12:00", "19:00"),
        # Good Friday is a holiday in Alsace: kept unless the address is elsewhere in France.
        ("FR", {}, "Europe/Paris", "2026-04-03 12:00", "2026-04-04 10:00", "19:00"),
        ("FR", {"ship": "FR-67"}, "Europe/Paris", "2026-04-03 12:00", "2026-04-04 10:00", "19:00"),
        ("FR", {"ship": "FR-75"}, "Europe/Paris", "2026-04-03 12:00", "2026-04-03 12:00", "19:00"),
        # Reunion keeps French law, its own clocks and its own holiday (20 December, here a Monday).
        ("RE", {}, "Indian/Reunion", "2027-12-20 12:00", "2027-12-21 10:00", "19:00"),
        # Texas on Sunday: 12-21, clipped by the shop. An address in Texas may be El Paso, an hour behind Dallas.
        ("US", {"phone": DALLAS}, "America/Chicago", "2026-07-12 10:30", "2026-07-12 12:00", "19:00"),
        ("US", {"phone": DALLAS, "ship": "US-TX"}, "America/Chicago", "2026-07-12 10:30", "2026-07-12 13:00", "19:00"),
        # An Alabama number stays Alabama's: no Sunday, no state holiday (Jefferson Davis, 1 June 2026).
        ("US", {"phone": MONTGOMERY}, "America/Chicago", "2026-05-31 12:00", "2026-06-02 10:00", "19:00"),
        # Rhode Island closes at 18, at 17 on Saturday; Canada at 18 on Saturday.
        ("US", {"phone": PROVIDENCE}, "America/New_York", "2026-07-10 09:00", "2026-07-10 10:00", "18:00"),
        ("US", {"phone": PROVIDENCE}, "America/New_York", "2026-07-11 09:00", "2026-07-11 10:00", "17:00"),
        ("CA", {}, "America/Halifax", "2026-07-11 09:00", "2026-07-11 10:00", "18:00"),
        # Every zone of the country at once: Perth opens last, Lord Howe closes first.
        ("AU", {}, "Australia/Perth", "2026-07-08 06:00", "2026-07-08 10:00", "16:30"),
        ("AU", {}, "Australia/Perth", "2026-12-09 06:00", "2026-12-09 10:00", "16:00"),
        # No area code to go by: from New York to Honolulu and Adak, three hours in summer and four in winter.
        ("US", {"phone": UNKNOWN_AREA}, "America/New_York", "2026-07-08 06:00", "2026-07-08 16:00", "19:00"),
        ("US", {"phone": UNKNOWN_AREA}, "America/New_York", "2026-01-07 06:00", "2026-01-07 15:00", "19:00"),
        # An afternoon in California is the next day already in UTC.
        ("US", {"phone": LOS_ANGELES}, "America/Los_Angeles", "2026-07-08 17:30", "2026-07-08 17:30", "19:00"),
        # A morning in Tonga is over before its day begins in UTC.
        ("TO", {"window": MORNING}, "Pacific/Tongatapu", "2026-07-08 06:00", "2026-07-08 10:00", "12:00"),
        # Canary, Azores and Chatham.
        ("ES", {}, "Europe/Madrid", "2026-07-08 06:00", "2026-07-08 11:00", "19:00"),
        ("PT", {}, "Europe/Lisbon", "2026-07-08 06:00", "2026-07-08 11:00", "19:00"),
        ("NZ", {}, "Pacific/Auckland", "2026-07-08 06:00", "2026-07-08 10:00", "18:15"),
        ("GB", {"ship": "ES-GC"}, "Europe/London", "2026-07-08 06:00", "2026-07-08 10:00", "19:00"),
        ("GB", {"ship": "PT-20"}, "Europe/London", "2026-07-08 06:00", "2026-07-08 11:00", "19:00"),
        # A country without a row: 9-20 holds even if the shop asks for more.
        ("JP", {"window": EIGHT_TO_TEN}, "Asia/Tokyo", "2026-07-12 06:00", "2026-07-12 09:00", "20:00"),
    ],
)  # fmt: skip
def test_known_openings(country: str, options: Any, clocks: str, now: str, opens: str, closes: str) -> None:
    expected = Opening(at(f"{opens} {clocks}"), at(f"{opens[:10]} {closes} {clocks}"))
    assert opening_for(at(f"{now} {clocks}"), country, **options) == expected


def test_both_edges_of_the_window() -> None:
    day = Opening(at("2026-11-24 10:00 Europe/Vilnius"), at("2026-11-24 19:00 Europe/Vilnius"))
    tick = timedelta(microseconds=1)
    assert opening_for(day.opens_at - tick, "LT") == opening_for(day.opens_at, "LT") == day
    assert opening_for(day.closes_at - tick, "LT") == Opening(day.closes_at - tick, day.closes_at)
    assert opening_for(day.closes_at, "LT").opens_at == day.opens_at + timedelta(days=1)


@pytest.mark.parametrize(
    ("zone_name", "saturday", "hours_of_night"),
    [
        ("Europe/London", "2026-03-28", 14), ("Europe/London", "2026-10-24", 16),
        ("America/New_York", "2026-03-07", 14), ("America/New_York", "2026-10-31", 16),
        ("Australia/Sydney", "2026-10-03", 14), ("Australia/Sydney", "2026-04-04", 16),
        ("America/St_Johns", "2026-03-07", 14), ("Australia/Lord_Howe", "2026-10-03", 14.5),
        ("Australia/Brisbane", "2026-10-03", 15), ("America/Regina", "2026-03-07", 15),
    ],
)  # fmt: skip
def test_the_night_in_which_the_clocks_change(zone_name: str, saturday: str, hours_of_night: float) -> None:
    """From 19:00 to 10:00 is 15 hours, except in two nights of the year."""
    evening = at(f"{saturday} 19:00 {zone_name}")
    opening = next_opening(evening, zones=(zone_name,), places=("LT",), window=SendWindow())
    assert opening is not None and opening.opens_at - evening == timedelta(hours=hours_of_night)
    assert opening.opens_at.astimezone(zone(zone_name)).time() == time(10)


@pytest.mark.parametrize(
    ("day", "opens", "closes", "expected"),
    [
        # New York skips 02:00-03:00 on 8 March (07:00 UTC) ...
        ("2026-03-08", "01:30", "02:30", [("06:30", "07:00")]),
        ("2026-03-08", "02:15", "02:45", []),
        ("2026-03-08", "02:30", "04:00", [("07:00", "08:00")]),
        # ... and shows 01:00-02:00 twice on 1 November (until 06:00 UTC and after it).
        ("2026-11-01", "01:15", "01:45", [("05:15", "05:45"), ("06:15", "06:45")]),
        ("2026-11-01", "00:30", "03:00", [("04:30", "08:00")]),
        ("2026-11-01", "00:30", "01:30", [("04:30", "05:30"), ("06:00", "06:30")]),
    ],
)
def test_a_change_inside_the_window(day: str, opens: str, closes: str, expected: list[tuple[str, str]]) -> None:
    found = clock_openings("America/New_York", date.fromisoformat(day), *map(time.fromisoformat, (opens, closes)))
    assert found == [Opening(at(f"{day} {start} Etc/UTC"), at(f"{day} {end} Etc/UTC")) for start, end in expected]


def test_a_day_that_never_was() -> None:
    """Samoa crossed the date line: after 29 December 2011 came the 31st."""
    assert opening_for(at("2011-12-29 19:00 Pacific/Apia"), "WS").opens_at == at("2011-12-31 10:00 Pacific/Apia")


def test_no_common_opening_and_no_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = at("2026-07-08 12:00 Europe/London")
    assert opening_for(noon, "GB", ship="NZ") is None  # nine hours of day each, eleven hours apart
    assert opening_for(noon, "BV") is None  # nobody lives on Bouvet Island
    assert opening_for(noon, "LT", window=SendWindow(time(20), time(21))) is None  # a window set before the rule
    monkeypatch.setattr("cartwake.quiet_hours.windows.HORIZON", timedelta(0))
    assert opening_for(noon, "GB") and not opening_for(noon - timedelta(hours=4), "GB")


def test_candidate_zones() -> None:
    assert [zones_for(c)[0] for c in ("LT", "LV", "EE")] == ["Europe/Vilnius", "Europe/Riga", "Europe/Tallinn"]
    assert zones_for("ES") == ("Africa/Ceuta", "Atlantic/Canary", "Europe/Madrid")
    assert zones_for("LT", ship="es-gc") == ("Atlantic/Canary", "Europe/Vilnius")
    assert zones_for("US", DALLAS) == ("America/Chicago",)
    assert zones_for("US", DALLAS, "US-NY") == ("America/Chicago", "America/New_York")
    assert zones_for("US", DALLAS, "US-Narnia") == zones_for("US", UNKNOWN_AREA)  # all of them
    assert zones_for("US", BOWLING_GREEN) == ("America/Chicago", "America/New_York")
    assert zones_for("US", "+13642345678") == ("America/Chicago", "America/New_York")  # laid over Bowling Green's
    assert {"America/New_York", "Pacific/Honolulu"} < set(zones_for("US", "+18005550123"))
    assert "America/New_York" not in zones_for("CA", "+16002345678")


def test_the_storefronts_time_zone_counts_only_if_it_is_a_place() -> None:
    assert zones_for("LT", time_zone="Asia/Tokyo") == ("Asia/Tokyo", "Europe/Vilnius")
    for nonsense in ("UTC", "Etc/GMT+5", "Europe/Atlantis", "../../etc/passwd", "EST5EDT"):
        assert zones_for("LT", time_zone=nonsense) == ("Europe/Vilnius",)


def test_zones_come_from_the_package_and_not_from_the_system() -> None:
    """British Columbia stays at UTC-7 from 2026 on; many a server's own table does not know it yet."""
    assert at("2026-12-15 12:00 America/Vancouver") == at("2026-12-15 19:00 Etc/UTC")


def test_candidate_places() -> None:
    assert places_for("LT") == ("LT",)
    assert places_for("LT", ship="fi") == ("FI", "LT")
    assert places_for("FR", ship="FR-75") == ("FR-75",)
    assert places_for("FR", ship="FR-Narnia") == ("FR",)
    assert places_for("FR", ship="FR-RE") == places_for("RE") == ("FR-974",)
    assert places_for("US", DALLAS, ship="US-AL") == ("US-AL", "US-TX")
    assert places_for("US", UNKNOWN_AREA, ship="US-NY") == ("US-NY",)


def test_every_row_has_a_source_and_a_review() -> None:
    raw = tomllib.loads(files("cartwake.quiet_hours").joinpath("rules.toml").read_text("utf-8"))
    assert set(raw["country"]) == set(PHONES)
    rows = [raw["default"], *raw["country"].values()]
    for row in rows + [law for country in raw["country"].values() for law in country.get("law", ())]:
        assert len(row["source"]) > 10 and row["confidence"] in ("high", "medium", "low")
        assert date(2026, 1, 1) <= row["reviewed"]


def test_places_are_consistent() -> None:
    assert all(rule_for(place_of(country)).zones for country in phonenumbers.SUPPORTED_REGIONS)
    for place, rule in rule_book().places.items():
        national = rule_for(place[:2])
        assert all(map(zone, rule.zones))
        for hours, outer in zip(rule.week, national.week, strict=True):
            assert hours is None or (outer is not None and outer[0] <= hours[0] < hours[1] <= outer[1]), place
        assert rule.hours_on(date(2026, 7, 8))  # a plain Wednesday; asks the holiday calendar too


@pytest.mark.parametrize("country", ["US", "CA", "ES", "PT", "AU", "NZ"])
def test_provinces_cover_the_clocks_of_their_country(country: str) -> None:
    """When a new zone parts from its neighbours, this says that the provinces must be looked at."""

    def clocks(name: str) -> list[timedelta | None]:
        weeks = (datetime(2026, 12, 1, tzinfo=UTC) + timedelta(weeks=number) for number in range(260))
        return [week.astimezone(zone(name)).utcoffset() for week in weeks]

    listed = {name for place, rule in rule_book().places.items() if place[2:] for name in rule.zones}
    assert all(clocks(name) in map(clocks, listed) for name in rule_for(country).zones if name not in listed)


def test_area_codes_are_those_of_libphonenumber() -> None:
    from phonenumbers import geocoder  # 100 MB, which is why the product does without it

    names = {
        "Alabama": "AL", "California": "CA", "Connecticut": "CT", "Florida": "FL", "Kentucky": "KY", "Louisiana": "LA",
        "Maryland": "MD", "Massachusetts": "MA", "Michigan": "MI", "Minnesota": "MN", "Mississippi": "MS",
        "Nevada": "NV", "New Mexico": "NM", "Oklahoma": "OK", "Rhode Island": "RI", "Texas": "TX",
        "Washington State": "WA",
    }  # fmt: skip
    found = {}
    for code in range(200, 1000):
        number = phonenumbers.PhoneNumber(country_code=1, national_number=code * 10**7 + 5550123)
        where = geocoder.description_for_number(number, "en")
        state = names.get(where) or where.rpartition(", ")[2]
        if state in names.values():
            found[str(code)] = f"US-{state}"
    assert rule_book().states == found


@pytest.mark.parametrize(
    ("country", "window"),
    [
        ("LT", SendWindow(time(9), time(20))), ("JP", SendWindow(time(9), time(20))), ("FR", EIGHT_TO_TEN),
        ("US", SendWindow(time(8), time(21))), ("CA", SendWindow(time(9), time(21, 30))), ("RE", EIGHT_TO_TEN),
    ],
)  # fmt: skip
def test_the_widest_window_of_a_shop(country: str, window: SendWindow) -> None:
    check_shop_window(window, country)
    earlier, later = replace(window, opens=time(window.opens.hour - 1, 59)), replace(window, closes=time(22, 1))
    backwards, aware = SendWindow(window.closes, window.opens), replace(window, opens=time(10, tzinfo=UTC))
    for wrong in (earlier, later, backwards, aware, SendWindow(time(12), time(12))):
        with pytest.raises(BadInput) as refused:
            check_shop_window(wrong, country)
        assert refused.value.slug == "invalid-send-window"


@given(message_id=st.uuids(), spread_s=st.integers(0, 7200), length_s=st.integers(1, 40_000))
def test_spread_stays_inside(message_id: UUID, spread_s: int, length_s: int) -> None:
    opens_at = datetime(2026, 7, 8, 7, tzinfo=UTC)
    opening = Opening(opens_at, opens_at + timedelta(seconds=length_s))
    due = spread(opening, message_id=message_id, spread_s=spread_s)
    assert opens_at <= due <= opens_at + timedelta(seconds=spread_s) and due < opening.closes_at
    assert due == opens_at or due <= opening.closes_at - timedelta(seconds=60)


def test_spread_is_even_and_the_same_in_every_process() -> None:
    opens_at = datetime(2026, 7, 8, 7, tzinfo=UTC)
    opening = Opening(opens_at, opens_at + timedelta(hours=9))
    offsets = [(spread(opening, message_id=UUID(int=n), spread_s=599) - opens_at).seconds for n in range(6000)]
    assert offsets[:3] == [61, 47, 206]
    assert all(40 < sum(offset // 60 == minute for offset in offsets) * 100 // 1000 < 80 for minute in range(10))


def test_validity() -> None:
    closes_at = datetime(2026, 7, 8, 16, tzinfo=UTC)
    for left_s, expected in {-5: 1, 0.5: 1, 1.9: 1, 30: 30, 35_999.9: 35_999, 90_000: 36_000}.items():
        assert validity_s(closes_at - timedelta(seconds=left_s), closes_at) == expected


# An independent reckoning: look at the clocks, minute by minute, and at the laws as the facts tell them.


@cache
def days_of_change(name: str) -> list[date]:
    mornings = [datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(20 * 365)]
    offsets = [morning.astimezone(zone(name)).utcoffset() for morning in mornings]
    return [mornings[n].date() for n in range(1, len(mornings)) if offsets[n] != offsets[n - 1]]


BIG_ZONES = ["Europe/Vilnius", "America/New_York", "Australia/Sydney", "Pacific/Auckland"]
# Clocks that change by half an hour, by two, at midnight, backwards in summer, or across the date line.
ODD_ZONES = [
    "America/St_Johns", "America/Havana", "America/Nuuk", "Africa/Casablanca", "Asia/Gaza", "Australia/Lord_Howe",
    "Antarctica/Troll", "Europe/Dublin", "Pacific/Apia", "Pacific/Chatham", "Asia/Pyongyang",
]  # fmt: skip
days_near = st.sampled_from(sorted({day for name in BIG_ZONES for day in days_of_change(name)}))
minutes_near = st.timedeltas(timedelta(days=-3), timedelta(days=3)).map(lambda delta: delta // MINUTE * MINUTE)
moments = st.builds(lambda day, delta: datetime.combine(day, time(), UTC) + delta, days_near, minutes_near)
moments |= st.datetimes(datetime(2021, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC))
minutes_of_day = st.integers(0, 1439)
ADDRESSES = ["", "US-TX", "US-FL", "US-KY", "CA-NL", "CA-ON", "AU-NSW", "ES-GC", "PT-20", "NZ-CIT", "FR-75", *PHONES]


@cache
def french_holidays(year: int, alsace: bool) -> set[date]:
    a, b, c = year % 19, year // 100, year % 100  # Easter after Meeus, Jones and Butcher
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    k = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7
    m = (a + 11 * h + 22 * k) // 451
    easter = date(year, (h + k - 7 * m + 114) // 31, (h + k - 7 * m + 114) % 31 + 1)
    fixed = "01-01 05-01 05-08 07-14 08-15 11-01 11-11 12-25" + " 12-26" * alsace
    moving = (-2, 1, 39, 50) if alsace else (1, 39, 50)
    return {date.fromisoformat(f"{year}-{day}") for day in fixed.split()} | {easter + timedelta(n) for n in moving}


@cache
def lawful_minutes(place: str, day: date) -> range:
    """The minutes of the day that a law allows, written again from the facts."""
    weekday = day.isoweekday()
    if place.startswith("FR"):
        holiday = day in french_holidays(day.year, place == "FR")
        return range(0) if weekday == 7 or holiday else range(8 * 60, 22 * 60)
    if place == "IT":
        return range(0) if weekday == 7 else range(8 * 60, 22 * 60)
    if place.startswith("CA"):
        return range(10 * 60, 18 * 60) if weekday > 5 else range(9 * 60, 21 * 60 + 30)
    if place == "US-TX":
        return range((12 if weekday == 7 else 9) * 60, 21 * 60)
    hours = {"US-FL": (8, 20), "US-KY": (10, 21)}.get(place, (8, 21) if place.startswith("US") else (9, 20))
    return range(hours[0] * 60, hours[1] * 60)


def clocks_allow(moment: datetime, zones: tuple[str, ...], places: tuple[str, ...], window: range) -> bool:
    for name in zones:
        shown = moment.astimezone(zone(name))
        minute = shown.hour * 60 + shown.minute
        if minute not in window or any(minute not in lawful_minutes(place, shown.date()) for place in places):
            return False
    return True


def check_next_opening(now: datetime, country: str, address: str, data: st.DataObject) -> None:
    opens, closes = sorted((data.draw(minutes_of_day), data.draw(minutes_of_day)))
    window = SendWindow(time(opens // 60, opens % 60), time(closes // 60, closes % 60))
    zones, places = zones_for(country, ship=address), places_for(country, ship=address)
    opening = next_opening(now, zones=zones, places=places, window=window)
    open_at = partial(clocks_allow, zones=zones, places=places, window=range(opens, closes))
    moment, until = now, opening.opens_at if opening else now + timedelta(days=7)
    while moment < until:
        assert not open_at(moment)
        moment = moment.replace(second=0, microsecond=0) + MINUTE
    if opening:
        assert moment == opening.opens_at
        while moment < opening.closes_at:
            assert open_at(moment)
            moment = moment.replace(second=0, microsecond=0) + MINUTE
        assert moment == opening.closes_at and not open_at(moment)


any_recipient = given(
    now=moments, country=st.sampled_from(sorted(PHONES)), address=st.sampled_from(ADDRESSES), data=st.data()
)


@settings(max_examples=40, deadline=None)
@any_recipient
def test_next_opening_against_the_clocks(now: datetime, country: str, address: str, data: st.DataObject) -> None:
    check_next_opening(now, country, address, data)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@any_recipient
def test_next_opening_against_the_clocks_at_length(
    now: datetime, country: str, address: str, data: st.DataObject
) -> None:
    check_next_opening(now, country, address, data)


def check_clock_openings(name: str, data: st.DataObject) -> None:
    day = data.draw(st.sampled_from(days_of_change(name))) + timedelta(days=data.draw(st.integers(-2, 1)))
    opens, closes = sorted((data.draw(minutes_of_day), data.draw(minutes_of_day)))
    found = clock_openings(name, day, time(opens // 60, opens % 60), time(closes // 60, closes % 60))
    moment = datetime.combine(day, time(), UTC) - timedelta(days=1)
    for _ in range(3 * 1440):
        shown = moment.astimezone(zone(name))
        expected = shown.date() == day and opens <= shown.hour * 60 + shown.minute < closes
        assert sum(opening.opens_at <= moment < opening.closes_at for opening in found) == expected
        moment += MINUTE


any_zone = given(name=st.sampled_from(BIG_ZONES + ODD_ZONES), data=st.data())


@settings(max_examples=40, deadline=None)
@any_zone
def test_clock_openings_against_the_clocks(name: str, data: st.DataObject) -> None:
    check_clock_openings(name, data)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@any_zone
def test_clock_openings_against_the_clocks_at_length(name: str, data: st.DataObject) -> None:
    check_clock_openings(name, data)
