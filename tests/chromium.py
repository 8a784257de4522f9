"""The browser that some tests look through."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium (`make slow` installs it), kept off the network that it would look for."""
    from playwright.async_api import async_playwright  # 0.3 s, which every process of the quick suite would pay

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "no Chromium here; run: make slow, or apt-get install chromium"
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=chromium, args=[*flags, "--disable-sync", "--disable-quic"]
        )
        yield opened
        await opened.close()
