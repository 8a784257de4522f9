"""The proof of consent: where a shop's chain stands, and all of it as a file that proves itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from cartwake.consent.chain import Head
from cartwake.consent.export import MEDIA_TYPE, export_chain
from cartwake.consent.sealing import read_head
from cartwake.kit.phones import hash_phone, parse_mobile
from cartwake.tenants.organizations import read_shop
from cartwake.web.api.fields import PhoneText, UtcTime
from cartwake.web.auth import AtShop

router = APIRouter(prefix="/v1", tags=["shoppers"])

EXAMPLE = """\
{"format":"cartwake-consent-chain-1","organization_id":"…","shop_id":"…","type":"chain","whole":true}
{"action":"granted","at":"…","channel":"checkbox","commitment":"…","event_id":"…","link":"…","position":1,"proof":{…},…}
{"action":"withdrawn","at":"…","channel":"api","commitment":"…","event_id":"…","link":"…","position":2,"proof":null,…}
{"head":"…","position":2,"type":"head"}
"""


class ChainView(BaseModel):
    """Where the shop's consent chain stands. Keep it: no event up to there can be changed unnoticed any more.

    What was said just now is sealed within two minutes: a head that covers it comes after that.
    """

    position: int = Field(description="Events in the chain.")
    head: str = Field(description="The last link, hex; an export of any later day has it at this position.")
    sealed_at: UtcTime | None = Field(description="When that was; null while the chain is empty.")


class Ndjson(StreamingResponse):
    """JSON objects, one a line."""

    media_type = MEDIA_TYPE


@router.get("/consent-chain")
async def get_consent_chain(door: AtShop) -> ChainView:
    """Where the shop's consent chain stands. Events are sealed into it within a minute or two."""
    async with door.open() as conn:
        return chain_view(await read_head(conn, door.scope.organization_id, door.scope.shop_id))


@router.get(
    "/consent-chain/export",
    response_class=Ndjson,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": EXAMPLE}}}},
)
async def get_consent_chain_export(
    door: AtShop,
    phone: Annotated[
        PhoneText | None, Query(description="One shopper's: of the others' events come the digests alone.")
    ] = None,
) -> StreamingResponse:
    """Every consent event of the shop with its evidence, in chain order. `cartwake consent verify` checks the file."""
    scope, vault = door.scope, door.moment.vault
    async with door.open() as conn:
        shop = await read_shop(conn, scope)
    phone_hash = None
    if phone is not None:
        phone_hash = hash_phone(vault, parse_mobile(phone.strip(), shop.default_country).e164)
    lines = export_chain(door.open, vault, scope.organization_id, scope.shop_id, phone_hash)
    name = f"consent-{scope.shop_id}.ndjson"
    return Ndjson(lines, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def chain_view(head: Head) -> ChainView:
    """As a receipt has it."""
    return ChainView(position=head.position, head=head.head.hex(), sealed_at=head.sealed_at)
