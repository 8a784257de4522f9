"""Who is calling, and the one door that their key opens.

A handler asks for the door it needs (`AtShop`, `AtOrganization`, `AtOperator`). What it gets is the
caller's scope, the request's moment, and `open()`: the transaction, which the handler leaves before it
answers, so that what was answered is committed. A POST with an `Idempotency-Key` is committed a little
later, together with its answer (`cartwake.web.once`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from structlog.contextvars import bind_contextvars

from cartwake.kit.crypto import hash_secret
from cartwake.kit.db import OPERATOR, WEB, Connection
from cartwake.kit.errors import NotAllowed
from cartwake.kit.moment import Moment
from cartwake.kit.runtime import Runtime
from cartwake.tenants.keys import find_caller, note_use
from cartwake.tenants.model import Caller, KeyKind, Scope, ShopScope
from cartwake.tenants.scope import tenant_transaction
from cartwake.web.gate import EXTRA_HEADERS, Gate
from cartwake.web.once import SCOPE_NAME, Once, through
from cartwake.web.parameters import refuse_unknown_parameters
from cartwake.web.problems import Refused

# Ours have 56 at most: hashing a header of any length is work that a stranger could make us do.
KEY_MAX_CHARACTERS = 100

KEY_NAMES = {
    KeyKind.OPERATOR: "an operator key",
    KeyKind.ORGANIZATION: "an organization key",
    KeyKind.SHOP_SECRET: "a shop's secret key",
    KeyKind.SHOP_PUBLISHABLE: "a shop's publishable key",
}

_bearer = HTTPBearer(auto_error=False, description="A Cartwake API key.")


@dataclass(frozen=True)
class OperatorDoor:
    """The operator is calling: every tenant, on the operator's login."""

    runtime: Runtime
    moment: Moment
    once: Once | None

    def open(self) -> AbstractAsyncContextManager[Connection]:
        """The request's transaction."""
        return through(self.once, None, self.moment, lambda: self.runtime.db.transaction(OPERATOR))


@dataclass(frozen=True)
class OrganizationDoor:
    """A merchant is calling: the organization and all its shops."""

    runtime: Runtime
    moment: Moment
    once: Once | None
    scope: Scope

    def open(self) -> AbstractAsyncContextManager[Connection]:
        """The request's transaction, which sees this organization alone."""
        return through(self.once, self.scope, self.moment, lambda: tenant_transaction(self.runtime.db, self.scope))


@dataclass(frozen=True)
class ShopDoor:
    """A storefront is calling: one shop, not its siblings."""

    runtime: Runtime
    moment: Moment
    once: Once | None
    scope: ShopScope
    key_id: UUID  # the caller's, for what must say who did it

    def open(self) -> AbstractAsyncContextManager[Connection]:
        """The request's transaction, which sees this shop alone.

        Pipelined: statements whose result nobody waits for go out together with the next one.
        """
        return through(self.once, self.scope, self.moment, self._begin)

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[Connection]:
        async with tenant_transaction(self.runtime.db, self.scope) as conn, conn.pipeline():
            yield conn


def runtime_of(request: Request) -> Runtime:
    """The process's runtime."""
    return cast(Runtime, request.app.state.runtime)


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Whoever the bearer key belongs to, found on the web login before any tenant is known."""
    if credentials is None:
        raise _unauthorized("Send an API key, as in 'Authorization: Bearer <key>'.")
    caller = await _identify(request, credentials.credentials)
    if caller is None:
        raise _unauthorized("This API key is not known, or it was revoked or has expired.")
    refuse_unknown_parameters(request)
    return caller


async def _identify(request: Request, secret: str) -> Caller | None:
    """The key's owner, held to its rate. Raises `Refused` (429) when it asked too often, or its address guessed."""
    runtime = runtime_of(request)
    gate: Gate = request.app.state.gate
    address = request.client.host if request.client else ""
    secret_hash = hash_secret(secret[:KEY_MAX_CHARACTERS])
    now = runtime.clock.now()
    seen = gate.seen(secret_hash)
    if seen is None:
        gate.check_guesses(address)
    else:
        _count(request, gate, secret_hash, seen.kind)
    async with runtime.db.transaction(WEB) as conn:
        caller = await find_caller(conn, now, secret_hash)
        if caller is not None:
            known = gate.welcome(secret_hash, caller.kind)
            hour = now.replace(minute=0, second=0, microsecond=0)
            if known.noted_at != hour:
                known.noted_at = hour  # at once, so that of many requests at a time only one writes
                await note_use(conn, hour, secret_hash)
    if caller is None:
        gate.guessed_wrong(address, secret_hash)
        return None
    log_whose(caller.organization_id, caller.shop_id)
    if seen is None:
        _count(request, gate, secret_hash, caller.kind)
    return caller


def _count(request: Request, gate: Gate, secret_hash: bytes, kind: KeyKind) -> None:
    request.scope[EXTRA_HEADERS] = gate.take(secret_hash, kind)


def log_whose(organization_id: UUID | None, shop_id: UUID | None) -> None:
    """From here on the request's log lines say whose it is."""
    known = {"organization_id": organization_id, "shop_id": shop_id}
    bind_contextvars(**{name: str(found) for name, found in known.items() if found is not None})


def _only(kind: KeyKind) -> Callable[[Caller], Awaitable[Caller]]:
    # Async, though it waits for nothing: FastAPI would send a plain function to a thread.
    async def check(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        if caller.kind is not kind:
            raise NotAllowed(f"This needs {KEY_NAMES[kind]}; the request came with {KEY_NAMES[caller.kind]}.")
        return caller

    return check


async def _operator_door(
    request: Request, _caller: Annotated[Caller, Depends(_only(KeyKind.OPERATOR))]
) -> OperatorDoor:
    runtime = runtime_of(request)
    log_whose(_id_in(request, "organization_id"), _id_in(request, "shop_id"))
    return OperatorDoor(runtime, runtime.moment(), _once_of(request))


def _id_in(request: Request, name: str) -> UUID | None:
    """An id in the path, which the handler is yet to check."""
    with suppress(KeyError, ValueError):
        return UUID(request.path_params[name])
    return None


async def _organization_door(
    request: Request, caller: Annotated[Caller, Depends(_only(KeyKind.ORGANIZATION))]
) -> OrganizationDoor:
    assert caller.organization_id is not None, "an organization's key has one"
    runtime = runtime_of(request)
    return OrganizationDoor(runtime, runtime.moment(), _once_of(request), Scope(caller.organization_id))


async def _shop_door(request: Request, caller: Annotated[Caller, Depends(_only(KeyKind.SHOP_SECRET))]) -> ShopDoor:
    assert caller.organization_id is not None and caller.shop_id is not None, "a shop's key has both"
    runtime = runtime_of(request)
    scope = ShopScope(caller.organization_id, caller.shop_id)
    return ShopDoor(runtime, runtime.moment(), _once_of(request), scope, caller.key_id)


_KINDS: Mapping[object, KeyKind] = {
    _operator_door: KeyKind.OPERATOR,
    _organization_door: KeyKind.ORGANIZATION,
    _shop_door: KeyKind.SHOP_SECRET,
}


def key_kind_of(dependant: Dependant) -> KeyKind | None:
    """The kind of key that an endpoint's door wants; None when it has none."""
    return next((_KINDS[each.call] for each in dependant.dependencies if each.call in _KINDS), None)


AtOperator = Annotated[OperatorDoor, Depends(_operator_door)]
AtOrganization = Annotated[OrganizationDoor, Depends(_organization_door)]
AtShop = Annotated[ShopDoor, Depends(_shop_door)]


def _once_of(request: Request) -> Once | None:
    return cast("Once | None", request.scope.get(SCOPE_NAME))


def _unauthorized(detail: str) -> Refused:
    return Refused(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})
