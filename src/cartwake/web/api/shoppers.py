"""What a storefront tells about a shopper rather than a checkout."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cartwake.carts.links import read_recovery_token
from cartwake.consent.events import withdraw
from cartwake.consent.model import Channel, ConsentChange, Evidence
from cartwake.consent.sealing import read_head
from cartwake.kit.errors import BadInput, NotKnown
from cartwake.kit.phones import hash_phone, mask, parse_mobile
from cartwake.messages.reading import read_message
from cartwake.tenants.organizations import read_shop
from cartwake.web.api.consent_chain import ChainView, chain_view
from cartwake.web.api.fields import Body, PhoneText, ShortText, TokenText, example
from cartwake.web.auth import AtShop

router = APIRouter(prefix="/v1", tags=["shoppers"])


class WithdrawalForm(Body):
    """A shopper who does not want this shop's texts any more."""

    model_config = example(phone="+37061234567", actor="customer service")

    phone: PhoneText
    actor: ShortText | None = None


class WithdrawalView(BaseModel):
    """What holds from now on."""

    phone: str
    granted: bool
    chain: ChainView = Field(description="Where the chain of consent events stood before this one is sealed into it.")


class TokenForm(Body):
    """The token that the recovery link put into the checkout's address."""

    model_config = example(token="AZnwoAAAcACAAAAAAAAAAQ.6773c1f0")  # noqa: S106 - shows how one looks

    token: TokenText


class TokenView(BaseModel):
    """What the token says: this text brought the shopper back to this checkout."""

    external_id: str
    message_id: UUID


@router.post("/consent-withdrawals")
async def post_consent_withdrawal(door: AtShop, form: WithdrawalForm) -> WithdrawalView:
    """Take back a phone's consent to this shop's texts, in whichever checkout it was given."""
    scope, moment = door.scope, door.moment
    async with door.open() as conn:
        shop = await read_shop(conn, scope)
        phone = parse_mobile(form.phone, shop.default_country)
        phone_hash = hash_phone(moment.vault, phone.e164)
        # Also when nobody agreed yet, as far as we can see: a box that is ticked this very moment loses.
        evidence = Evidence(phone=phone.e164, actor=form.actor)
        change = ConsentChange(scope.organization_id, scope.shop_id, phone_hash, evidence)
        await withdraw(conn, moment, Channel.API, [change])
        head = await read_head(conn, scope.organization_id, scope.shop_id)
    return WithdrawalView(phone=mask(phone.e164), granted=False, chain=chain_view(head))


@router.post("/recovery-tokens/verification")
async def post_recovery_token_verification(door: AtShop, form: TokenForm) -> TokenView:
    """Ask what a recovery token says, before the order is there. A bad one is answered with 400."""
    refusal = BadInput("The token was not made for this shop, or it has expired.", slug="bad-token", field="token")
    claim = read_recovery_token(door.moment.vault, door.moment.now, form.token)
    if claim is None:
        raise refusal
    async with door.open() as conn:
        try:
            message = await read_message(conn, door.moment.vault, door.scope, claim.message_id)
        except NotKnown:
            raise refusal from None
    return TokenView(external_id=message.external_id, message_id=message.message_id)
