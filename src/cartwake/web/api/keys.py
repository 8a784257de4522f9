"""API keys: an organization manages its own and its shops', the operator everybody's.

A key's text is in the answer that makes it and nowhere else. `rotation` replaces one without a gap.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cartwake.kit.db import Connection
from cartwake.kit.errors import BadInput
from cartwake.kit.moment import Moment
from cartwake.tenants.keys import NewKey, issue_key, list_keys, revoke_key, revoke_operator_key, rotate_key
from cartwake.tenants.model import ApiKey, KeyKind, Scope, ShopScope
from cartwake.tenants.organizations import read_organization, read_shop
from cartwake.web.api.fields import Body, Id, UtcTime, example
from cartwake.web.api.pages import Before, Limit, cut
from cartwake.web.auth import AtOperator, AtOrganization
from cartwake.web.openapi import CONFLICT, NOT_KNOWN

router = APIRouter(prefix="/v1", tags=["keys"])

OVERLAP_MAX_S = 30 * 86_400


class KeyForm(Body):
    """A key to make."""

    model_config = example(kind="shop_secret", shop_id="0198f0a0-0000-7000-8000-000000000001")

    kind: Literal["organization", "shop_secret", "shop_publishable"]
    shop_id: Id | None = Field(None, description="Whose key it is; for the two shop kinds.")


class RotationForm(Body):
    """How a key is replaced."""

    model_config = example(overlap_s=86_400)

    overlap_s: int = Field(86_400, ge=0, le=OVERLAP_MAX_S, description="How long the old key stays good.")


class KeyView(BaseModel):
    """A key without its text, which cannot be read again."""

    key_id: UUID
    kind: KeyKind
    shop_id: UUID | None
    created_at: UtcTime
    expires_at: UtcTime | None = Field(description="Set by a rotation: good until then.")
    revoked_at: UtcTime | None
    last_used_at: UtcTime | None = Field(description="To the hour.")


class NewKeyView(KeyView):
    """A key that was just made."""

    key: str = Field(description="Its text. It is shown this once.")


class KeyPage(BaseModel):
    """Keys, newest first."""

    data: list[KeyView]
    next: UUID | None = Field(description="`before` of the next page; null on the last one.")


@router.get("/keys")
async def get_keys(door: AtOrganization, before: Before = None, limit: Limit = 50) -> KeyPage:
    """The organization's own keys and its shops'."""
    async with door.open() as conn:
        return _page(await list_keys(conn, door.scope.organization_id, before=before, limit=limit + 1), limit)


@router.post("/keys", status_code=201, responses=CONFLICT | NOT_KNOWN)
async def post_key(door: AtOrganization, form: KeyForm) -> NewKeyView:
    """Make another key of the organization, or of one of its shops."""
    async with door.open() as conn:
        return _new(await _issue(conn, door.moment, door.scope.organization_id, form))


@router.post("/keys/{key_id}/rotation", status_code=201, responses=CONFLICT)
async def post_key_rotation(door: AtOrganization, key_id: UUID, form: RotationForm) -> NewKeyView:
    """Replace a key: the new one is good at once, the old one expires after the overlap."""
    async with door.open() as conn:
        return _new(await _rotate(conn, door.moment, key_id, form, door.scope.organization_id))


@router.delete("/keys/{key_id}")
async def delete_key(door: AtOrganization, key_id: UUID) -> KeyView:
    """Revoke a key: it opens nothing from the next request on. That may be the key of this very request."""
    async with door.open() as conn:
        return _view(await revoke_key(conn, door.moment.now, key_id, door.scope.organization_id))


@router.get("/organizations/{organization_id}/keys")
async def get_organization_keys(
    door: AtOperator, organization_id: UUID, before: Before = None, limit: Limit = 50
) -> KeyPage:
    """An organization's own keys and its shops'."""
    async with door.open() as conn:
        await read_organization(conn, organization_id)
        return _page(await list_keys(conn, organization_id, before=before, limit=limit + 1), limit)


@router.post("/organizations/{organization_id}/keys", status_code=201, responses=CONFLICT)
async def post_organization_key(door: AtOperator, organization_id: UUID, form: KeyForm) -> NewKeyView:
    """Make another key of an organization or of one of its shops: for a merchant who lost theirs, say."""
    async with door.open() as conn:
        await read_organization(conn, organization_id)
        return _new(await _issue(conn, door.moment, organization_id, form))


@router.post("/organizations/{organization_id}/keys/{key_id}/rotation", status_code=201, responses=CONFLICT)
async def post_organization_key_rotation(
    door: AtOperator, organization_id: UUID, key_id: UUID, form: RotationForm
) -> NewKeyView:
    """Replace a key of an organization or of one of its shops; the old one expires after the overlap."""
    async with door.open() as conn:
        return _new(await _rotate(conn, door.moment, key_id, form, organization_id))


@router.delete("/organizations/{organization_id}/keys/{key_id}")
async def delete_organization_key(door: AtOperator, organization_id: UUID, key_id: UUID) -> KeyView:
    """Revoke a key of an organization or of one of its shops."""
    async with door.open() as conn:
        return _view(await revoke_key(conn, door.moment.now, key_id, organization_id))


@router.get("/operator-keys")
async def get_operator_keys(door: AtOperator, before: Before = None, limit: Limit = 50) -> KeyPage:
    """The operator's own keys."""
    async with door.open() as conn:
        return _page(await list_keys(conn, None, before=before, limit=limit + 1), limit)


@router.post("/operator-keys", status_code=201, responses=CONFLICT)
async def post_operator_key(door: AtOperator) -> NewKeyView:
    """Make another operator key."""
    async with door.open() as conn:
        return _new(await issue_key(conn, door.moment, KeyKind.OPERATOR))


@router.post("/operator-keys/{key_id}/rotation", status_code=201, responses=CONFLICT)
async def post_operator_key_rotation(door: AtOperator, key_id: UUID, form: RotationForm) -> NewKeyView:
    """Replace an operator key; the old one expires after the overlap."""
    async with door.open() as conn:
        return _new(await _rotate(conn, door.moment, key_id, form))


@router.delete("/operator-keys/{key_id}", responses=CONFLICT)
async def delete_operator_key(door: AtOperator, key_id: UUID) -> KeyView:
    """Revoke an operator key; never the last one that does not expire."""
    async with door.open() as conn:
        return _view(await revoke_operator_key(conn, door.moment.now, key_id))


async def _issue(conn: Connection, moment: Moment, organization_id: UUID, form: KeyForm) -> NewKey:
    if (form.kind == "organization") != (form.shop_id is None):
        raise BadInput("A shop's key needs shop_id, and an organization's key has none.", field="shop_id")
    if form.shop_id is not None:
        await read_shop(conn, ShopScope(organization_id, form.shop_id))
    return await issue_key(conn, moment, KeyKind(form.kind), Scope(organization_id, form.shop_id))


async def _rotate(
    conn: Connection, moment: Moment, key_id: UUID, form: RotationForm, organization_id: UUID | None = None
) -> NewKey:
    return await rotate_key(conn, moment, key_id, timedelta(seconds=form.overlap_s), organization_id)


def _view(key: ApiKey) -> KeyView:
    return KeyView.model_validate(key, from_attributes=True)


def _new(made: NewKey) -> NewKeyView:
    return NewKeyView(**_view(made.key).model_dump(), key=made.secret)


def _page(found: list[ApiKey], limit: int) -> KeyPage:
    keys, following = cut(found, limit, lambda key: key.key_id)
    return KeyPage(data=[_view(key) for key in keys], next=following)
