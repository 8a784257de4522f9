"""The hosted pages in a real browser: what a shopper sees after tapping, on a small phone and in the dark."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from cartwake.messages.templates import LOCALES, opt_out_page
from deployment import Deployment
from world import RUTA, TICKED

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.slow

OPT_OUT_LINK = re.compile(r"http://\S+/o/\S+")
SMALLEST_PHONE = {"width": 320, "height": 568}


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    opened = await browser.new_page(
        viewport=SMALLEST_PHONE,  # type: ignore[arg-type]
        color_scheme="dark",
        java_script_enabled=False,
    )
    yield opened
    await opened.close()


async def opt_out_link(deployment: Deployment, locale: str) -> str:
    """The link in a text from a sender that cannot be answered."""
    shop = await deployment.shop("Lino Namai", sender="LinoNamai", credits=100)
    await shop.put_session(consent=TICKED, locale=locale)
    await deployment.pass_time(minutes=50)
    (text,) = await deployment.phone_shows(RUTA)
    found = OPT_OUT_LINK.search(text["body"])
    assert found, text["body"]
    return found.group()


@pytest.mark.parametrize("locale", LOCALES)
async def test_ruta_stops_the_texts_by_the_link(deployment: Deployment, page: Page, locale: str) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await page.goto(await opt_out_link(deployment, locale))
    assert await page.get_attribute("html", "lang") == locale
    assert "Lino Namai" in await page.inner_text("main")
    assert await page.evaluate("document.documentElement.scrollWidth") <= SMALLEST_PHONE["width"], "scrolls sideways"
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(18, 18, 18)", "the dark is dark: the page's own style is let through by its policy"

    for button in await page.query_selector_all("button"):
        box = await button.bounding_box()
        assert box and box["height"] >= 44 and box["width"] > 200, "large enough for a thumb"

    await page.keyboard.press("Tab")  # by keyboard alone
    assert await page.inner_text(":focus") == opt_out_page(locale).confirm
    await page.keyboard.press("Enter")
    await page.wait_for_selector("form", state="detached")
    assert opt_out_page(locale).done.partition(". ")[2] in await page.inner_text("main")
    assert problems == []
    shop_answer = await deployment.tap(page.url)
    assert shop_answer.status_code == 200


async def test_a_stranger_says_that_it_is_not_their_number_by_keyboard(deployment: Deployment, page: Page) -> None:
    await page.goto(await opt_out_link(deployment, "en"))
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    assert await page.inner_text(":focus") == opt_out_page("en").not_mine
    await page.keyboard.press("Enter")
    await page.wait_for_selector("form", state="detached")
    assert "We will not text this number again." in await page.inner_text("main")
    async with deployment.runtime.db.transaction("cartwake_engine") as conn:
        cursor = await conn.execute("SELECT reason FROM suppressed_phones")
        assert await cursor.fetchall() == [{"reason": "not_my_number"}]


async def test_looking_at_the_page_stops_nothing(deployment: Deployment, page: Page) -> None:
    link = await opt_out_link(deployment, "en")
    await page.goto(link)
    await page.reload()
    async with deployment.runtime.db.transaction("cartwake_engine") as conn:
        cursor = await conn.execute("SELECT count(*) AS n FROM consent_states WHERE suppressed_at IS NOT NULL")
        assert await cursor.fetchone() == {"n": 0}


async def test_a_broken_link_says_so_kindly(deployment: Deployment, page: Page) -> None:
    answer = await page.goto(f"{deployment.runtime.settings.public_url}/o/{'x' * 24}")
    assert answer is not None and answer.status == 404
    assert await page.inner_text("h1")
