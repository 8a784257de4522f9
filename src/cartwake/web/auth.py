"""Who is calling, and the one door that their key opens.

A handler asks for the door it needs (`AtShop`, `AtOrganization`, `AtOperator`). What it gets is the
caller's scope, the request's moment, and `open()`: the transaction, which the handler leaves before it
answers, so that what was answered is committed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from structlog.contextvars import bind_contextvars

from cartwake.kit.db import OPERATOR, WEB, Connection
from cartwake.kit.errors import NotAllowed
from cartwake.kit.moment import Moment
from cartwake.kit.runtime import Runtime
from cartwake.tenants.keys import find_caller
from cartwake.tenants.model import Caller, KeyKind, Scope, ShopScope
from cartwake.tenants.scope import tenant_transaction
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

    def open(self) -> AbstractAsyncContextManager[Connection]:
        """The request's transaction."""
        return self.runtime.db.transaction(OPERATOR)


@dataclass(frozen=True)
class OrganizationDoor:
    """A merchant is calling: the organization and all its shops."""

    runtime: Runtime
    moment: Moment
    scope: Scope

    def open(self) -> AbstractAsyncContextManager[Connection]:
        """The request's transaction, which sees this organization alone."""
        return tenant_transaction(self.runtime.db, self.scope)


@dataclass(frozen=True)
class ShopDoor:
    """A storefront is calling: one shop, not its siblings."""

    runtime: Runtime
    moment: Moment
    scope: ShopScope
    key_id: UUID  # the caller's, for what must say who did it

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Connection]:
        """The request's transaction, which sees this shop alone.

        Pipelined: statements whose result nobody waits for go out together with the next one.
        """
        async with tenant_transaction(self.runtime.db, self.scope) as conn, conn.pipeline():
            yield conn


def runtime_of(request: Request) -> Runtime:
    """The process's runtime."""
    return cast(Runtime, request.app.state.runtime)


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Whoever the bearer key belongs to, found on the web login before any tenant is known."""
    if credentials is None or len(credentials.credentials) > KEY_MAX_CHARACTERS:
        raise _unauthorized("Send an API key, as in 'Authorization: Bearer <key>'.")
    async with runtime_of(request).db.transaction(WEB) as conn:
        caller = await find_caller(conn, credentials.credentials)
    if caller is None:
        raise _unauthorized("This API key is not known, or it was revoked.")
    log_whose(caller.organization_id, caller.shop_id)
    return caller


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
    return OperatorDoor(runtime, runtime.moment())


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
    return OrganizationDoor(runtime, runtime.moment(), Scope(caller.organization_id))


async def _shop_door(request: Request, caller: Annotated[Caller, Depends(_only(KeyKind.SHOP_SECRET))]) -> ShopDoor:
    assert caller.organization_id is not None and caller.shop_id is not None, "a shop's key has both"
    runtime = runtime_of(request)
    return ShopDoor(runtime, runtime.moment(), ShopScope(caller.organization_id, caller.shop_id), caller.key_id)


AtOperator = Annotated[OperatorDoor, Depends(_operator_door)]
AtOrganization = Annotated[OrganizationDoor, Depends(_organization_door)]
AtShop = Annotated[ShopDoor, Depends(_shop_door)]


def _unauthorized(detail: str) -> Refused:
    return Refused(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})
