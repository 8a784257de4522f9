"""The reference in a real browser: on a phone, on a desk, in the dark, and on paper, without a word in the console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from deployment import serving
from ports import free_port
from world import World

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.slow

SIZES = {"phone": (320, 568), "tablet": (820, 1180), "desk": (1440, 900)}


@pytest.fixture
async def address(world: World) -> AsyncIterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    async with serving(world.app, url):
        yield url


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["/docs", "/docs/problems"])
async def test_a_page_fits_and_breaks_no_rule_of_its_own(
    browser: Browser,
    address: str,
    path: str,
    size: str,
) -> None:
    width, height = SIZES[size]
    page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark")
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(address + path)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width, "scrolls sideways"
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)", "has its style"
    await page.emulate_media(media="print")
    assert not await page.is_visible(".side")
    assert asked == [address + path] and said == []
    await page.close()


async def test_a_problems_type_opens_at_its_section(browser: Browser, address: str) -> None:
    page = await browser.new_page()
    await page.goto(f"{address}/problems/invalid-phone")
    assert page.url == f"{address}/docs/problems#invalid-phone"
    assert await page.evaluate("document.querySelector(':target').id") == "invalid-phone"
    await page.close()
