"""The operator's kill switches. While one is thrown nothing is sent; what waits keeps waiting."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import read_sms_config
from cartwake.tenants.switches import (
    deployment_paused_since,
    pause_deployment,
    pause_shop,
    resume_deployment,
    resume_shop,
)
from cartwake.web.api.fields import UtcTime
from cartwake.web.auth import AtOperator

router = APIRouter(tags=["operator"])

SHOP_SWITCH = "/v1/organizations/{organization_id}/shops/{shop_id}/kill-switch"


class SwitchView(BaseModel):
    """A kill switch."""

    paused_at: UtcTime | None


@router.put("/v1/kill-switch")
async def put_kill_switch(door: AtOperator) -> SwitchView:
    """Stop every shop's texts. Repeating it keeps the first time."""
    async with door.open() as conn:
        await pause_deployment(conn, door.moment.now)
        return SwitchView(paused_at=await deployment_paused_since(conn))


@router.delete("/v1/kill-switch")
async def delete_kill_switch(door: AtOperator) -> SwitchView:
    """Let texts go out again."""
    async with door.open() as conn:
        await resume_deployment(conn)
    return SwitchView(paused_at=None)


@router.put(SHOP_SWITCH)
async def put_shop_kill_switch(door: AtOperator, organization_id: UUID, shop_id: UUID) -> SwitchView:
    """Stop one shop's texts. Repeating it keeps the first time."""
    scope = ShopScope(organization_id, shop_id)
    async with door.open() as conn:
        await pause_shop(conn, door.moment.now, scope)
        _, paused_at = await read_sms_config(conn, scope)
    return SwitchView(paused_at=paused_at)


@router.delete(SHOP_SWITCH)
async def delete_shop_kill_switch(door: AtOperator, organization_id: UUID, shop_id: UUID) -> SwitchView:
    """Let the shop's texts go out again."""
    async with door.open() as conn:
        await resume_shop(conn, ShopScope(organization_id, shop_id))
    return SwitchView(paused_at=None)
