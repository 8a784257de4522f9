"""A shop's own texts and what they would cost: saved, refused, taken back, explained; and previews of all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cartwake.credits.pricing import COUNTRY_MULTIPLIERS
from cartwake.kit.clock import ManualClock
from cartwake.messages.templates import LOCALES, wording
from world import ShopClient, World

OWN = "{shop}: dein Warenkorb wartet: {link} {opt_out}"


async def problem(shop: ShopClient, method: str, path: str, body: Any) -> Any:
    answer = await shop.api(method, path, body)
    assert answer.status_code == 400, answer.text
    return answer.json()


async def test_every_locale_is_listed_with_its_built_in_text(world: World) -> None:
    shop = await world.shop()
    found = (await shop.call("GET", "/v1/templates"))["data"]
    assert [each["locale"] for each in found] == list(LOCALES)
    for each in found:
        assert each["built_in"] == wording(each["locale"]).cart_recovery
        assert (each["own"], each["version"], each["changed_by"], each["changed_at"]) == (None, 0, None, None)
        assert 1 <= each["segments_max"] <= 6


async def test_a_text_is_saved_taken_back_and_its_history_kept(world: World, clock: ManualClock) -> None:
    shop = await world.shop()
    saved = await shop.call("PUT", "/v1/templates/de", {"text": "  " + OWN.replace("dein", "„dein“") + "\n"})
    assert saved["own"] == OWN.replace("dein", '"dein"') and saved["version"] == 1
    assert [each["by"] for each in saved["replaced"]] == ['"', '"']
    assert saved["changed_by"].startswith("api-key ") and saved["changed_at"] == "2026-11-24T08:15:00Z"
    clock.advance(minutes=1)
    await shop.call("PUT", "/v1/templates/de", {"text": OWN})
    assert (await shop.call("PUT", "/v1/templates/de", {"text": OWN}))["version"] == 2, "the same text is no change"
    removed = await shop.call("DELETE", "/v1/templates/de")
    assert (removed["own"], removed["version"]) == (None, 3)
    assert (await shop.call("DELETE", "/v1/templates/de"))["version"] == 3
    assert await shop.call("GET", "/v1/templates/de") == removed
    page = await shop.call("GET", "/v1/templates/de/versions?limit=2")
    assert [(each["version"], each["text"]) for each in page["data"]] == [(3, None), (2, OWN)]
    rest = await shop.call("GET", f"/v1/templates/de/versions?limit=2&before={page['next']}")
    assert [(each["version"], each["at"]) for each in rest["data"]] == [(1, "2026-11-24T08:15:00Z")]
    assert rest["next"] is None
    assert (await shop.call("GET", "/v1/templates/fr"))["version"] == 0
    assert (await shop.call("DELETE", "/v1/templates/fr"))["version"] == 0, "nothing to take back"


async def test_a_text_belongs_to_one_shop(world: World) -> None:
    shop = await world.shop()
    sibling = await shop.merchant.shop()
    await shop.call("PUT", "/v1/templates/en", {"text": OWN})
    assert (await sibling.call("GET", "/v1/templates/en"))["own"] is None
    assert (await sibling.call("GET", "/v1/templates/en/versions"))["data"] == []


async def test_a_refusal_says_what_is_wrong_and_where_and_keeps_nothing(world: World) -> None:
    shop = await world.shop()
    for method, path in (("PUT", "/v1/templates/en"), ("POST", "/v1/previews")):
        found = await problem(shop, method, path, {"text": "Hi {name}, see bit.ly/x {link}"})
        assert found["type"] == "/problems/unknown-variable"
        assert [each["field"] for each in found["errors"]] == ["text"] * 3
        assert "At character 4: {name} is not known" in found["errors"][0]["detail"]
        assert "At character 16" in found["errors"][1]["detail"]
        assert "{opt_out}" in found["errors"][2]["detail"]
    assert (await shop.call("GET", "/v1/templates/en"))["version"] == 0


async def test_changes_at_once_take_their_numbers_in_turn(world: World) -> None:
    shop = await world.shop()
    texts = [f"{OWN} {number}" for number in range(6)]
    await asyncio.gather(*(shop.call("PUT", "/v1/templates/en", {"text": text}) for text in texts))
    history = (await shop.call("GET", "/v1/templates/en/versions"))["data"]
    assert [each["version"] for each in history] == [6, 5, 4, 3, 2, 1]
    assert sorted(each["text"] for each in history) == texts


async def test_a_preview_shows_every_country_with_its_price(world: World) -> None:
    shop = await world.shop("Lino Namai", locale="en")
    shown = await shop.call("POST", "/v1/previews", {"countries": ["JP", "DE"]})
    by_country = {each["country"]: each for each in shown["data"]}
    assert set(by_country) == {*COUNTRY_MULTIPLIERS, "JP"} and len(shown["data"]) == 24
    german = by_country["DE"]
    assert "Lino Namai" in german["text"] and "/r/" in german["text"]
    assert (german["encoding"], german["segments"], german["credits"], german["forcing"]) == ("GSM-7", 1, 3, None)
    assert by_country["LT"]["credits"] == 1 and by_country["JP"]["credits"] == 3
    assert "STOP/ARRET" in by_country["CA"]["text"] and "ARRET" not in german["text"]
    assert (shown["locale"], shown["template_version"], shown["replaced"]) == ("en", None, [])


async def test_a_preview_names_what_forces_the_dearer_encoding(world: World) -> None:
    shop = await world.shop("Lino Namai", locale="lt")
    lithuanian = (await shop.call("POST", "/v1/previews", {"locale": "lt-LT"}))["data"][0]
    assert lithuanian["encoding"] == "UCS-2" and lithuanian["credits"] == 3 * lithuanian["segments"] == 6
    assert lithuanian["text"][lithuanian["forcing"]["position"] - 1] == lithuanian["forcing"]["character"] == "š"
    assert lithuanian["forcing"]["plainer"] is None, "letters are never changed"
    draft = {"text": "{shop} • it’s time: {link} {opt_out}", "locale": "en"}
    shown = await shop.call("POST", "/v1/previews", draft)
    assert shown["replaced"] == [{"character": "’", "position": 12, "by": "'"}]
    assert shown["data"][0]["forcing"] == {"character": "•", "position": 12, "plainer": "-"}


async def test_a_preview_is_of_the_text_in_force_or_of_a_draft(world: World) -> None:
    shop = await world.shop("Lino Namai", locale="de")
    await shop.call("PUT", "/v1/templates/de", {"text": OWN})
    shown = await shop.call("POST", "/v1/previews", {})
    assert shown["template_version"] == 1 and "dein Warenkorb wartet" in shown["data"][0]["text"]
    draft = await shop.call("POST", "/v1/previews", {"text": "Entwurf {link} {opt_out}"})
    assert draft["template_version"] is None and draft["data"][0]["text"].startswith("Entwurf http")
    assert (await shop.call("GET", "/v1/templates/de"))["version"] == 1
    named = await shop.call("POST", "/v1/previews", {"shop_name": "Knygos"})
    assert named["data"][0]["text"].startswith("Knygos")
    nameless = await problem(shop, "POST", "/v1/previews", {"shop_name": "\u200b"})
    assert nameless["type"] == "/problems/empty-shop-name"


@pytest.mark.parametrize(("sender", "germany", "america"), [("LinoNamai", "/o/", None), ("+12015550123", "STOP", "x")])
async def test_a_preview_knows_the_shop_s_senders(world: World, sender: str, germany: str, america: str | None) -> None:
    shop = await world.shop("Lino Namai", sender=sender, locale="en")
    by_country = {each["country"]: each for each in (await shop.call("POST", "/v1/previews", {}))["data"]}
    assert by_country["DE"]["sender"] == sender and germany in by_country["DE"]["text"]
    assert by_country["US"]["sender"] == (america and sender), "names are not carried in the US"
    asked = (await shop.call("POST", "/v1/previews", {"two_way_sender": False}))["data"]
    assert all("/o/" in each["text"] for each in asked)
