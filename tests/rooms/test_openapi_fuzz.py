"""Hostile HTTP, generated from our own OpenAPI: no 5xx and no undocumented status, whatever is sent.

A fixed budget of examples per operation, the same ones each time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from cartwake.kit.config import Settings
from cartwake.web.gate import Gate
from deployment import free_port, serving
from world import World

pytestmark = pytest.mark.slow

EXAMPLES = 40
# The clock stands still, so that no bucket would ever fill again.
UNLIMITED = Settings(rate_operator=None, rate_organization=None, rate_shop_secret=None)
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


async def test_nothing_that_is_sent_breaks_the_api(world: World) -> None:
    """The statuses prove that the attack got past the door: some of what was sent was good."""
    shop = await world.shop()
    world.app.state.gate = Gate(UNLIMITED, world.runtime.clock)
    keys = {"operator": world.operator.key, "organization": shop.merchant.key, "shop": shop.key}
    url = f"http://127.0.0.1:{free_port()}"
    async with serving(world.app, url):
        statuses = await asyncio.to_thread(attack, url, {kind: key or "" for kind, key in keys.items()})
    assert len({operation for operation, _ in statuses}) > 20, "the whole API was tried"
    seen = Counter(status for _, status in statuses.elements())
    assert seen[200] > 100 and seen[422] > 100 and seen[403] > 100, seen


def attack(url: str, keys: dict[str, str]) -> Counter[tuple[str, int]]:
    """Try every operation with each kind of key; how often each was answered with which status."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: Counter[tuple[str, int]] = Counter()
    for found in schema.get_all_operations():
        for key in keys.values():
            _attack_operation(found.ok(), key, statuses)  # type: ignore[union-attr]
    return statuses


def _attack_operation(operation: Any, key: str, statuses: Counter[tuple[str, int]]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def attempt(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {key}"})
        statuses[operation.label, response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    attempt()
