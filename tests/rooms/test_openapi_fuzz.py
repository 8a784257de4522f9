"""Hostile HTTP, generated from our own OpenAPI: no 5xx and no undocumented status, whatever is sent.

What the description allows, and what it does not, which must be refused. A fixed budget of examples per operation, the
same ones each time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from cartwake.kit.config import Settings
from cartwake.web.gate import Gate
from deployment import serving
from ports import free_port
from world import World

pytestmark = pytest.mark.slow

# Per operation: of each with the key that opens it, and with each of the others.
EXAMPLES, EXAMPLES_OF_OTHERS = 40, 5
# The clock stands still, so that no bucket would ever fill again.
UNLIMITED = Settings(rate_operator=None, rate_organization=None, rate_shop_secret=None)
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance, content_type_conformance]

Statuses = Counter[tuple[str, int]]


async def attack(world: World, mode: GenerationMode) -> Statuses:
    """Try every operation with each kind of key; how often each was answered with which status."""
    shop = await world.shop()
    world.app.state.gate = Gate(UNLIMITED, world.runtime.clock)
    keys = {"operatorKey": world.operator.key, "organizationKey": shop.merchant.key, "shopSecretKey": shop.key}
    url = f"http://127.0.0.1:{free_port()}"
    async with serving(world.app, url):
        statuses = await asyncio.to_thread(_attack, url, {scheme: key or "" for scheme, key in keys.items()}, mode)
    assert len({operation for operation, _ in statuses}) > 45, "the whole API was tried"
    return statuses


async def test_nothing_that_the_description_allows_breaks_the_api(world: World) -> None:
    """The statuses prove that the attack got past the door: some of what was sent was good."""
    statuses = await attack(world, GenerationMode.POSITIVE)
    seen = Counter(status for _, status in statuses.elements())
    assert seen[200] > 100 and seen[422] > 100 and seen[403] > 100, seen


async def test_what_the_description_does_not_allow_is_refused(world: World) -> None:
    statuses = await attack(world, GenerationMode.NEGATIVE)
    seen = Counter(status for _, status in statuses.elements())
    assert seen[400] > 100 and seen[422] > 100 and seen[403] > 100, seen


def _attack(url: str, keys: dict[str, str], mode: GenerationMode) -> Statuses:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: Statuses = Counter()
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        ((opens,),) = operation.definition.raw["security"]
        for scheme, key in keys.items():
            _attack_operation(operation, mode, key, EXAMPLES if scheme == opens else EXAMPLES_OF_OTHERS, statuses)
    return statuses


def _attack_operation(operation: Any, mode: GenerationMode, key: str, examples: int, statuses: Statuses) -> None:
    checks = [*CHECKS, negative_data_rejection] if mode is GenerationMode.NEGATIVE else CHECKS

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {key}"})
        statuses[operation.label, response.status_code] += 1
        case.validate_response(response, checks=checks)

    try:
        attempt()
    except Unsatisfiable:  # nothing can be wrong with what takes nothing
        assert mode is GenerationMode.NEGATIVE
        statuses[operation.label, 0] += 1
