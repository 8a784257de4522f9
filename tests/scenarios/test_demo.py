"""The demonstration: what its traffic must hold, the pure rules that play it, and the whole of it once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cartwake.credits.pricing import COUNTRY_MULTIPLIERS
from cartwake.demo.acts import ON_THE_PHONE, Deed, From, local_moment, read_act
from cartwake.demo.pace import CALM_S, FASTEST, next_scan, speed_towards
from cartwake.demo.phone import Text
from cartwake.demo.stories import Story
from cartwake.demo.traffic import Shopper, Traffic, load_traffic
from cartwake.demo.verdict import Ending, mismatches, strays
from cartwake.kit.errors import BadInput
from cartwake.kit.phones import parse_mobile
from cartwake.messages.templates import LOCALES
from cartwake.numbers.model import ALPHANUMERIC_COUNTRIES
from cartwake.quiet_hours.zones import zone

# What the demonstration has to show, each by the tag of the story that shows it.
TOLD = {
    "comes_back": "one who comes back before the text",
    "bank_link_fails": "one whose bank link is pending and then fails",
    "withdraws": "one who withdraws",
    "stop": "one who answers STOP",
    "stop_outlives_the_box": "and whose new tick does not lift it",
    "free_text_stop": "one who says so in their own words",
    "never_consented": "one who never consented",
    "invalid_phone": "an invalid phone",
    "corrected_phone": "put right",
    "landline": "a landline",
    "night": "one in the middle of the night who is texted the next morning",
    "evening": "one in the evening",
    "french_sunday": "one on a Sunday in France",
    "free_plan": "a shop on FREE",
    "switched_off": "a shop switched off",
    "switched_off_midway": "and one while a text of its waits",
    "insufficient_credits": "an organization that runs out of credits",
    "out_of_credits": "and refuses what it cannot pay",
    "asked_again": "until it buys more",
    "two_segments": "a Lithuanian text that costs two segments",
    "undelivered": "one text undelivered and refunded",
    "rejected": "one that the carrier rejects",
    "recipient_cap": "two carts at two merchants on one day",
    "phone_changed": "a number changed after consent",
    "not_my_number": "'not my number'",
    "not_my_number_everywhere": "at every merchant",
    "token": "an order attributed by token",
    "click": "an order attributed by click",
    "other_country": "a country outside the 23",
    "hawaii": "a number five hours from its owner",
    "multi_zone": "a country of many clocks",
    "stale": "a stale cart",
}
NO_MOBILE_AT_FIRST = {"invalid_phone", "landline"}
TUESDAY = datetime(2026, 11, 24, 7, 45, tzinfo=UTC)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return load_traffic()


# --- the traffic file --------------------------------------------------------------------------------


def test_traffic_is_large_and_crosses_borders(traffic: Traffic) -> None:
    people = {(shopper.name, shopper.e164) for shopper in traffic.shopper}
    assert len(people) >= 60
    assert len(traffic.organization) == 5
    assert len(traffic.shops) == 12
    assert set(COUNTRY_MULTIPLIERS) <= {shopper.country_code for shopper in traffic.shopper}
    assert {traffic.wording_for(shopper)[0] for shopper in traffic.shopper} == set(LOCALES)
    assert set(traffic.consent.wording) == set(LOCALES)


def test_traffic_starts_on_a_tuesday_at_a_quarter_to_ten_in_helsinki(traffic: Traffic) -> None:
    assert traffic.starts_at == TUESDAY
    assert traffic.home == "Helsinki"


def test_every_required_story_is_told(traffic: Traffic) -> None:
    tags = {tag for shopper in traffic.shopper for tag in shopper.tags}
    assert TOLD.keys() <= tags, {tag: TOLD[tag] for tag in TOLD.keys() - tags}


def test_every_story_has_one_line_and_begins_with_a_checkout(traffic: Traffic) -> None:
    for shopper in traffic.shopper:
        assert 10 < len(shopper.story) < 120 and "\n" not in shopper.story, shopper.name
        assert shopper.script[0].deed is Deed.CHECKOUT, shopper.name
        assert shopper.script[0].counts_from is From.LOCAL_TIME, shopper.name
    assert len({shopper.token for shopper in traffic.shopper}) == len(traffic.shopper)


def test_phones_are_mobiles_of_their_countries_where_the_story_does_not_say_otherwise(traffic: Traffic) -> None:
    for shopper in traffic.shopper:
        if NO_MOBILE_AT_FIRST & set(shopper.tags):
            with pytest.raises(BadInput):
                parse_mobile(shopper.phone, shopper.country_code)
        else:
            assert parse_mobile(shopper.phone, shopper.country_code).country == shopper.country_code, shopper.name
        for act in shopper.script:
            if act.deed in (Deed.CORRECT, Deed.PHONE):
                parse_mobile(act.detail)


def test_nobody_shares_a_phone_but_with_themselves(traffic: Traffic) -> None:
    names: dict[str, set[str]] = {}
    for shopper in traffic.shopper:
        names.setdefault(shopper.e164 or shopper.phone, set()).add(shopper.name)
    assert all(len(found) == 1 for found in names.values())


def test_acts_that_need_a_text_come_after_it(traffic: Traffic) -> None:
    for shopper in traffic.shopper:
        has_text = False
        for act in shopper.script:
            has_text |= act.counts_from is From.TEXT
            assert has_text or act.deed not in ON_THE_PHONE, shopper.name


def test_values_are_those_of_a_shopify_checkout(traffic: Traffic) -> None:
    for shopper in traffic.shopper:
        assert re.fullmatch(r"\d+\.\d\d", shopper.total_price), shopper.name
        assert re.fullmatch(r"[a-z]{2}-[A-Z]{2}", shopper.customer_locale), shopper.name
        assert re.fullmatch(r"[0-9a-f]{32}", shopper.token)


def test_what_is_named_exists(traffic: Traffic) -> None:
    organizations = {organization.name for organization in traffic.organization}
    for shopper in traffic.shopper:
        assert shopper.shop in traffic.shops
        assert shopper.city in traffic.zones
    for merchant in traffic.merchant:
        assert merchant.shop is None or merchant.shop in traffic.shops
        assert merchant.organization is None or merchant.organization in organizations


def test_one_way_senders_are_used_where_they_are_lawful(traffic: Traffic) -> None:
    for shop in traffic.shops.values():
        if all(not sender.startswith("+") for sender in shop.senders):
            texted = {s.country_code for s in traffic.shopper if s.shop == shop.name and s.expect.text == "delivered"}
            assert texted <= ALPHANUMERIC_COUNTRIES, shop.name


# --- the pure rules ------------------------------------------------------------------------------------


def test_an_act_is_read() -> None:
    act = read_act("text+5m reply STOP please")
    assert (act.counts_from, act.after, act.deed, act.detail) == (
        From.TEXT,
        timedelta(minutes=5),
        Deed.REPLY,
        "STOP please",
    )
    assert read_act("Tue 09:47 checkout").local == "Tue 09:47"
    assert read_act("+3m order with token").deed is Deed.ORDER_WITH_TOKEN
    assert read_act("+3m order").deed is Deed.ORDER


@pytest.mark.parametrize("line", ["checkout", "Tue 9:47 checkout", "Tue 09:47 dance", "+5m reply", "+5m tap twice"])
def test_what_is_no_act_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not an act|nobody knows how"):
        read_act(line)


def test_a_local_time_is_the_first_one_in_the_story() -> None:
    # Monday evening in Honolulu is still to come when it is Tuesday morning in Helsinki; Monday in Paris is not.
    assert local_moment("Mon 21:55", zone("Pacific/Honolulu"), TUESDAY) == datetime(2026, 11, 24, 7, 55, tzinfo=UTC)
    assert local_moment("Mon 10:00", zone("Europe/Paris"), TUESDAY) == datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
    assert local_moment("Tue 08:00", zone("Europe/Paris"), TUESDAY) == datetime(2026, 12, 1, 7, 0, tzinfo=UTC)


def test_the_clock_slows_down_before_something_is_due() -> None:
    pace = 240.0
    speeds = [speed_towards(TUESDAY, TUESDAY + timedelta(seconds=s), pace) for s in (-5, 0, 60, 3600, 86_400)]
    assert speeds == sorted(speeds)
    assert speeds[:2] == [pace, pace]
    assert speeds[-1] == FASTEST
    assert speed_towards(TUESDAY, TUESDAY + timedelta(seconds=CALM_S * pace), pace) == pace
    assert speed_towards(TUESDAY, None, pace) == FASTEST


def test_the_scan_comes_every_five_minutes() -> None:
    assert next_scan(TUESDAY) == TUESDAY
    assert next_scan(TUESDAY + timedelta(seconds=1)) == TUESDAY + timedelta(minutes=5)


def _ending(shopper: Shopper, **text: Any) -> Ending:
    """A story played to its end, whose text fits what it expects save for `text`."""
    story = Story(shopper, played=len(shopper.script), attribution="token")
    message = {
        "state": shopper.expect.text,
        "reason": shopper.expect.why,
        "segments": shopper.expect.segments,
        "credits": shopper.expect.credits,
        "carrier_sid": "SM1",
        "accepted_at": "2026-11-24T08:32:00Z",
    }
    cart = {
        "state": "completed",
        "recovered": True,
        "refusal": None,
        "consent": {"granted": True, "suppressed": False},
        "decisions": [],
        "message": message | text,
    }
    return Ending(story, cart)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ({"state": "undelivered"}, "text: expected delivered, found undelivered"),
        ({"segments": 1}, "segments: expected 2, found 1"),
        ({"credits": 6}, "credits: expected 2, found 6"),
        ({"accepted_at": "2026-11-24T08:29:59Z"}, "texted at Tue 10:29:59, expected Tue 10:31-10:35"),
        ({"accepted_at": "2026-11-24T19:00:00Z"}, "texted at Tue 21:00, outside waking hours"),
        ({"carrier_sid": "SM9"}, "status at the carrier: expected delivered, found nothing"),
    ],
)
def test_the_verdict_notices(traffic: Traffic, text: dict[str, Any], complaint: str) -> None:
    ruta = next(shopper for shopper in traffic.shopper if "two_segments" in shopper.tags)
    at_carrier = [Text("SM1", ruta.e164 or "", "words", 2, "delivered")]
    assert mismatches(traffic, [_ending(ruta)], at_carrier) == []
    (mismatch,) = mismatches(traffic, [_ending(ruta, **text)], at_carrier)
    assert complaint in mismatch.wrong


def test_the_verdict_notices_texts_that_no_cart_knows_of_and_texts_sent_twice(traffic: Traffic) -> None:
    ruta = next(shopper for shopper in traffic.shopper if "two_segments" in shopper.tags)
    texts = [Text(sid, ruta.e164 or "", "words", 2, "delivered") for sid in ("SM1", "SM2")]
    assert strays([_ending(ruta)], texts[:1]) == []
    assert len(strays([_ending(ruta)], texts)) == 2


# --- the whole of it -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_story_ends_as_written(server_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"CARTWAKE_DATABASE_URL": server_url, "CARTWAKE_DATA_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-m", "cartwake", "demo", "--once"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    told = len(load_traffic().shopper)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert f"{told} of {told} stories ended as written" in run.stdout
    assert "\x1b" not in run.stdout, "no colours where nobody can see them"
    assert not re.search(r"\+\d{7,15}", run.stdout), "phones are nobody's business"
    assert _left_behind(tmp_path) == []


def _left_behind(data_dir: Path) -> list[str]:
    """Processes that still carry the run's data folder in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"CARTWAKE_DATA_DIR={data_dir}".encode() in environ.read_bytes().split(b"\0"):
                found.append(environ.parent.name)
        except OSError:  # ended meanwhile, or not ours to look at
            continue
    return found
