"""How often a key may ask, and how often an address may guess one. Counted in this process alone, in memory.

Why not in the database: docs/decisions. A key that was good here before is held to its own rate before
the database is asked, whatever else comes from its address; a stranger's key is looked up only while its
address has guesses left. So somebody who guesses behind the same proxy as a shop locks nobody out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

from cartwake.kit.clock import Clock
from cartwake.kit.config import Settings
from cartwake.kit.rates import Buckets, Level, Rate
from cartwake.tenants.model import KeyKind
from cartwake.web.problems import Refused

# Memory is bounded: about 200 bytes each.
KEYS_MAX = 20_000
ADDRESSES_MAX = 20_000

# Where in a request's scope its headers are left for the answer, whatever that will be.
EXTRA_HEADERS = "cartwake.headers"

Headers = dict[str, str]


@dataclass
class SeenKey:
    """A key that was good when it was last looked up."""

    kind: KeyKind
    noted_at: datetime | None = None  # the hour of which the database knows that the key was used


class Gate:
    """One process's counts. Keys go by their hash."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        rates = {
            KeyKind.OPERATOR: settings.rate_operator,
            KeyKind.ORGANIZATION: settings.rate_organization,
            KeyKind.SHOP_SECRET: settings.rate_shop_secret,
            KeyKind.SHOP_PUBLISHABLE: settings.rate_shop_publishable,
        }
        self._rates = {kind: rate for kind, rate in rates.items() if rate}
        self._requests: dict[KeyKind, Buckets[bytes]] = {
            kind: Buckets(clock, rate, KEYS_MAX) for kind, rate in self._rates.items()
        }
        bad_keys = settings.rate_bad_keys
        self._guesses: Buckets[str] | None = Buckets(clock, bad_keys, ADDRESSES_MAX) if bad_keys else None
        self._seen: OrderedDict[bytes, SeenKey] = OrderedDict()

    def seen(self, key_hash: bytes) -> SeenKey | None:
        """The key, if it was good in this process before."""
        return self._seen.get(key_hash)

    def welcome(self, key_hash: bytes, kind: KeyKind) -> SeenKey:
        """Remember a key that turned out to be good."""
        known = self._seen.setdefault(key_hash, SeenKey(kind))
        self._seen.move_to_end(key_hash)
        if len(self._seen) > KEYS_MAX:
            self._seen.popitem(last=False)
        return known

    def take(self, key_hash: bytes, kind: KeyKind) -> Headers:
        """Count a request; the headers that say how many are left. Raises `Refused` (429) when none are."""
        if kind not in self._requests:
            return {}
        level = self._requests[kind].take(key_hash)
        headers = _headers(kind, self._rates[kind], level)
        if not level.granted:
            raise _too_many(f"This key has asked too often. It may again in {level.next_in_s} s.", level, headers)
        return headers

    def check_guesses(self, address: str) -> None:
        """Raises `Refused` (429) when too many keys from there were nobody's."""
        if self._guesses is None:
            return
        level = self._guesses.look(network_of(address))
        if not level.granted:
            detail = f"Too many unknown keys came from this address. It may try again in {level.next_in_s} s."
            raise _too_many(detail, level, {})

    def guessed_wrong(self, address: str, key_hash: bytes) -> None:
        """Count a key that is nobody's, or nobody's any more."""
        self._seen.pop(key_hash, None)
        if self._guesses is not None:
            self._guesses.take(network_of(address))


def network_of(address: str) -> str:
    """What counts as one address: a whole /64 of IPv6, because whoever has one address there has all of them."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def _headers(kind: KeyKind, rate: Rate, level: Level) -> Headers:
    """The fields of draft-ietf-httpapi-ratelimit-headers: a quota that is whole again after a window."""
    return {
        "RateLimit-Policy": f'"{kind}";q={rate.burst};w={rate.refill_s}',
        "RateLimit": f'"{kind}";r={level.remaining};t={level.full_in_s}',
    }


def _too_many(detail: str, level: Level, headers: Headers) -> Refused:
    return Refused(429, "too-many-requests", detail, headers | {"Retry-After": str(level.next_in_s)})
