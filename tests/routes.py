"""Every route of the API, each with what a good request to it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

# A body that each route with one accepts, by the last word of its path.
BODIES: dict[str, Any] = {
    "organizations": {"name": "Lino Namai", "plan": "PRO"},
    "plan": {"plan": "PRO"},
    "shops": {"name": "Lino Namai", "default_country": "LT", "default_locale": "lt"},
    "credit-adjustments": {"credits": 1, "note": "for a test"},
    "senders": {"address": "+37061999999"},
    "{external_id}": {},
    "payment": {"status": "pending"},
    "completion": {"order_id": "1", "value_minor": 1, "currency": "EUR"},
    "sms-config": {},
    "previews": {},
    "reply-webhook": {"url": "https://shop.example/hook"},
    "{locale}": {"text": "{shop}: {link} {opt_out}"},
    "consent-withdrawals": {"phone": "+37061234567"},
    "verification": {"token": "x"},
    "keys": {"kind": "organization"},
    "rotation": {},
}


@dataclass(frozen=True)
class ApiRoute:
    """One method at one path, as the route table has it."""

    method: str
    path: str
    body: Any  # a good one; None where there is none


def api_routes(app: FastAPI) -> Iterator[ApiRoute]:
    """All of them."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            body = BODIES[route.path.rpartition("/")[2]] if route.body_field else None
            for method in route.methods or ():
                yield ApiRoute(method, route.path, body)
