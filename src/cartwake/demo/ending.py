"""Asks API and carrier, once the story is over, how everything ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cartwake.demo.phone import Phones
from cartwake.demo.stage import Stage
from cartwake.demo.stories import Story
from cartwake.demo.summary import Account, Report
from cartwake.demo.traffic import Traffic
from cartwake.demo.verdict import Ending, mismatches, strays
from cartwake.invariants import broken_invariants
from cartwake.kit.db import ENGINE
from cartwake.kit.runtime import Runtime

AT_A_TIME = 8
LEDGER_PAGE = 200


async def collect_report(
    runtime: Runtime, traffic: Traffic, stage: Stage, phones: Phones, stories: Sequence[Story]
) -> Report:
    """Everything that summary and verdict need."""
    turn = asyncio.Semaphore(AT_A_TIME)

    async def end(story: Story) -> Ending:
        async with turn:
            return Ending(story, await stage.storefronts[story.shopper.shop].story(story.shopper))

    endings = await asyncio.gather(*map(end, stories))
    texts = await phones.texts()
    async with runtime.db.transaction(ENGINE) as conn:
        broken = await broken_invariants(conn, runtime.clock.now())
    return Report(
        traffic=traffic,
        endings=endings,
        accounts=[await _account(stage, organization.name, organization.plan) for organization in traffic.organization],
        mismatches=mismatches(traffic, endings, texts),
        strays=strays(endings, texts),
        broken=broken,
    )


async def _account(stage: Stage, name: str, plan: str) -> Account:
    key = stage.organization_keys[name]
    ledger: list[dict[str, Any]] = []
    before = ""
    while True:
        page = await stage.api.call("GET", f"/v1/credits/ledger?limit={LEDGER_PAGE}{before}", key)
        ledger += page["data"]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    balance = await stage.api.call("GET", "/v1/credits", key)
    return Account(name, plan, ledger, balance["available_credits"])
