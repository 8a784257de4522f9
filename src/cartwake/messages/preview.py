"""What a text would look like and cost, before anybody gets it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from cartwake.kit.crypto import Vault
from cartwake.messages.rendering import render


@dataclass(frozen=True)
class Preview:
    """A text as the shopper would read it, with its price."""

    text: str
    encoding: str
    segments: int
    forcing_character: str | None
    credits: int


def preview(
    *, locale: str, shop_name: str, phone_country: str, two_way_sender: bool, public_url: str, vault: Vault
) -> Preview:
    """Render with a link of the real length. Raises `BadInput` when the text cannot be rendered."""
    rendered = render(
        vault,
        public_url=public_url,
        message_id=UUID(int=0),
        locale=locale,
        shop_name=shop_name,
        phone_country=phone_country,
        two_way_sender=two_way_sender,
    )
    size = rendered.measure
    return Preview(rendered.body, size.encoding, size.segments, size.forcing_character, rendered.credits)
