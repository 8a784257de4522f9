"""The one door of tenant scope: the only way to get a connection that can see a tenant's rows.

The scope is set for the transaction alone, so a pooled connection forgets it. Row-level security does
the rest: whatever a query forgets to ask, rows of another tenant are not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cartwake.kit.db import WEB, Connection, Database
from cartwake.tenants.model import Scope, ShopScope


@asynccontextmanager
async def tenant_transaction(db: Database, scope: Scope | ShopScope) -> AsyncIterator[Connection]:
    """A transaction on the web login that sees the rows of `scope` and no others."""
    async with db.transaction(WEB) as conn:
        await conn.execute(
            "SELECT set_config('cartwake.org', %s, true), set_config('cartwake.shop', %s, true)",
            [str(scope.organization_id), str(scope.shop_id or "")],
        )
        yield conn
