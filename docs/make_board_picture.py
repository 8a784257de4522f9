"""Take the picture of bull-board in docs/bullmq.md: `python docs/make_board_picture.py`. Needs Node and Chromium.

A shop's carts are abandoned in a database of their own, the scan puts their jobs into a Valkey, and the page is
photographed as tests/node/board.mjs serves it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from pydantic import SecretStr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bulk import Bulk, make_world  # noqa: E402
from benchmarks.deployment import NOON, fresh_runtime, owner  # noqa: E402
from benchmarks.queue import queue_url  # noqa: E402
from cartwake.scheduler import scan_abandoned  # noqa: E402

PICTURE = Path(__file__).with_name("bull-board.png")
NODE = ROOT / "tests" / "node"
BULK = Bulk(organizations=2, shops=3, carts=12)


async def abandon_carts(url: str) -> None:
    """Carts that were left 31 minutes ago: their texts are due in 14."""
    nobody: Any = None  # the scan asks no carrier
    async with fresh_runtime(queue=SecretStr(url)) as (runtime, database_url):
        async with owner(database_url) as conn:
            await make_world(conn, runtime, BULK, NOON - timedelta(minutes=31))
        await scan_abandoned(runtime, nobody)


@contextmanager
def board(url: str) -> Iterator[str]:
    """bull-board on this queue; its address."""
    command = ["node", str(NODE / "board.mjs")]
    with subprocess.Popen(command, env=os.environ | {"QUEUE_URL": url}, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def photograph(address: str) -> None:
    """The delayed texts, as whoever opens the page sees them."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 640})
        page.goto(f"{address}/queue/cartwake-texts?status=delayed")
        page.get_by_text("sms-recovery").first.wait_for()
        page.screenshot(path=str(PICTURE))
        browser.close()


if __name__ == "__main__":
    if not (NODE / "node_modules").is_dir():
        raise SystemExit("Run `make bullmq` first: it installs the npm clients.")
    with queue_url() as queue:
        asyncio.run(abandon_carts(queue))
        with board(queue) as page:
            photograph(page)
