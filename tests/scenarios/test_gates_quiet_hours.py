"""Gate 5: nobody is texted at night, on a French Sunday, or where two zones are never awake together."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from cartwake.carriers.protocol import Accepted
from cartwake.messages.dispatch import NOT_STARTED
from cartwake.worker import dispatch_once
from deployment import Deployment, leave_cart
from world import AINO, RUTA

CAMILLE, MATEUS = "+33612345678", "+351912345678"  # Camille Martin from Lyon; Mateus Silva from Porto
SPREAD = timedelta(minutes=15)

SCHEDULED, SENT, ACCEPTED = "schedule schedule scheduled", "carrier send all_gates_passed", "carrier send accepted"
HELD = "quiet_hours hold quiet_hours"


def local(at: datetime, zone: str) -> str:
    """What clocks in a zone show, with the day of the week."""
    return f"{at.astimezone(ZoneInfo(zone)):%a %H:%M}"


async def test_aino_leaves_a_cart_at_night_and_is_texted_in_the_morning(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await deployment.jump_until("22:00", "Europe/Helsinki")
    await leave_cart(shop, phone=AINO)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == [SCHEDULED, HELD]
    opens = deployment.next_time("10:00", "Europe/Helsinki")
    until = await deployment.held_until(shop)
    assert opens <= until <= opens + SPREAD, "a night's texts are spread over the morning's first minutes"

    await deployment.jump(until=until - timedelta(seconds=1))
    assert await deployment.phone_shows(AINO) == []
    await deployment.jump(until=until)
    (text,) = await deployment.phone_shows(AINO)
    assert local(datetime.fromisoformat(text["created_at"]), "Europe/Helsinki").startswith("Wed 10:")
    assert await deployment.trace(shop) == [SCHEDULED, HELD, SENT, ACCEPTED]


async def test_a_night_s_texts_do_not_all_go_at_ten(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await deployment.jump_until("22:00", "Europe/Helsinki")
    for number in range(12):
        await leave_cart(shop, f"cart-{number}", phone=f"+35841234{number:04}")
    await deployment.jump(minutes=45)
    held = {await deployment.held_until(shop, f"cart-{number}") for number in range(12)}
    opens = deployment.next_time("10:00", "Europe/Helsinki")
    assert len(held) > 6 and min(held) >= opens and max(held) <= opens + SPREAD


@pytest.mark.parametrize(
    ("left", "texted"),
    [
        ("09:14", "Wed 10:"),  # due at 09:59: a minute early
        ("09:15", "Wed 10:00"),  # due as the window opens
        ("18:13", "Tue 18:58"),  # due two minutes before it closes
        ("18:15", "Wed 10:"),  # due as it closes
    ],
)
async def test_the_window_s_edges(deployment: Deployment, left: str, texted: str) -> None:
    shop = await deployment.shop()
    deployment.clock.set(deployment.next_time(left, "Europe/Vilnius"))
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    if (await deployment.trace(shop))[-1] == HELD:
        await deployment.jump(until=await deployment.held_until(shop))
    (text,) = await deployment.phone_shows(RUTA)
    assert local(datetime.fromisoformat(text["created_at"]), "Europe/Vilnius").startswith(texted)


async def test_a_window_that_is_about_to_close_is_closed(deployment: Deployment) -> None:
    shop = await deployment.shop()
    closes = deployment.next_time("19:00", "Europe/Vilnius")
    deployment.clock.set(closes - timedelta(minutes=45, seconds=40))
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == [SCHEDULED, "quiet_hours hold window_closing"]
    await deployment.jump(until=closes)
    assert (await deployment.trace(shop))[1:] == ["quiet_hours hold window_closing", HELD]


async def test_camille_is_not_texted_on_a_sunday(deployment: Deployment) -> None:
    shop = await deployment.shop(sender="Maison")
    deployment.clock.set(datetime(2026, 11, 29, 11, tzinfo=UTC))  # noon on a Sunday
    await leave_cart(shop, phone=CAMILLE, country="FR")
    await leave_cart(shop, "vilnius", phone=RUTA)
    await deployment.jump(minutes=45)
    assert (await deployment.trace(shop, "vilnius"))[-1] == ACCEPTED, "no law keeps Lithuania's Sundays"
    assert await deployment.trace(shop) == [SCHEDULED, HELD]
    until = await deployment.held_until(shop)
    assert local(until, "Europe/Paris").startswith("Mon 10:")
    await deployment.jump(until=until)
    assert len(await deployment.phone_shows(CAMILLE)) == 1


async def test_a_lithuanian_phone_and_a_parcel_to_ireland_must_both_be_awake(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop, country="IE")  # 10:15 in Vilnius, 08:15 in Dublin
    await deployment.jump(minutes=45)
    until = await deployment.held_until(shop)
    assert "10:00" <= local(until, "Europe/Dublin")[4:] <= "10:15"
    await deployment.jump(until=until)
    assert len(await deployment.phone_shows(RUTA)) == 1


async def test_the_browser_s_zone_counts_too(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop, time_zone="Atlantic/Reykjavik")
    await deployment.jump(minutes=45)
    assert "10:00" <= local(await deployment.held_until(shop), "Atlantic/Reykjavik")[4:] <= "10:15"


async def test_zones_that_are_never_awake_together(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop, country="US", province="HI")
    await deployment.jump(minutes=45)
    assert await deployment.trace(shop) == [SCHEDULED, "quiet_hours drop no_common_window"]


async def test_portugal_is_asked_on_the_mainland_and_on_the_azores(deployment: Deployment) -> None:
    shop = await deployment.shop()
    await leave_cart(shop, phone=MATEUS, country=None)  # 08:15 in Porto, 07:15 on the Azores
    await deployment.jump(hours=2)
    assert "10:00" <= local(await deployment.held_until(shop), "Atlantic/Azores")[4:] <= "10:15"


async def test_a_shop_may_choose_hours_of_its_own(deployment: Deployment) -> None:
    shop = await deployment.shop(window_opens="12:00", window_closes="14:00", spread_s=0)
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    assert local(await deployment.held_until(shop), "Europe/Vilnius") == "Tue 12:00"


@pytest.mark.parametrize("left", ["12:00", "18:00"])
async def test_the_carrier_is_told_to_give_up_when_the_window_closes(deployment: Deployment, left: str) -> None:
    shop = await deployment.shop()
    deployment.clock.set(deployment.next_time(left, "Europe/Vilnius"))
    await leave_cart(shop)
    await deployment.jump(minutes=45)
    (text,) = await deployment.phone_shows(RUTA)
    closes = deployment.next_time("19:00", "Europe/Vilnius")
    handed_over = datetime.fromisoformat(text["created_at"])
    latest = handed_over + timedelta(seconds=text["validity_s"])
    assert closes - timedelta(minutes=1) <= latest <= closes
    (message,) = await deployment.messages(shop)
    assert message["send_until"] == closes


async def test_the_clocks_change_overnight_and_ten_is_still_ten(deployment: Deployment) -> None:
    shop = await deployment.shop(spread_s=0)
    deployment.clock.set(datetime(2027, 3, 27, 20, tzinfo=UTC))  # Saturday night before summer time
    await leave_cart(shop, phone=AINO)
    await deployment.jump(minutes=45)
    until = await deployment.held_until(shop)
    assert until == datetime(2027, 3, 28, 7, tzinfo=UTC)
    assert local(until, "Europe/Helsinki") == "Sun 10:00"


async def test_a_call_that_would_begin_when_the_window_has_closed_is_not_made(deployment: Deployment) -> None:
    """However long its worker was kept: the claim looked at the window, and so does the call."""
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=15)
    (attempt,) = (await dispatch_once(deployment.runtime)).attempts
    patient = replace(attempt, start_by=attempt.send_until + timedelta(minutes=1))
    deployment.clock.set(attempt.send_until)
    assert await deployment.send([patient]) == [(patient, NOT_STARTED)]
    deployment.clock.set(attempt.send_until - timedelta(seconds=1))
    ((_, result),) = await deployment.send([patient])
    assert isinstance(result, Accepted)
    assert deployment.sandbox.state.texts[result.sid].validity_s == 1, "nor does the carrier go on trying after it"
