"""A message's text with its links, measured and priced."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from cartwake.carts.links import link_id_of, link_path
from cartwake.credits.pricing import price
from cartwake.kit.crypto import Vault
from cartwake.messages.overrides import Template
from cartwake.messages.segments import Measure, measure
from cartwake.messages.templates import render_text


@dataclass(frozen=True)
class Rendered:
    """A text ready to go, what it was made from, and what it costs."""

    body: str
    link_id: bytes
    locale: str
    template_version: int | None  # of the shop's own text; None for the built-in one
    measure: Measure
    credits: int


def render(
    vault: Vault,
    *,
    public_url: str,
    message_id: UUID,
    locale: str,
    template: Template | None,
    shop_name: str,
    phone_country: str,
    two_way_sender: bool,
) -> Rendered:
    """The text of a message. The same message renders the same each time. Raises `BadInput` (see `render_text`)."""
    link_id = link_id_of(vault, message_id)
    body = render_text(
        locale=locale,
        template=template.text if template else None,
        shop_name=shop_name,
        phone_country=phone_country,
        link=public_url + link_path(vault, link_id, "recover"),
        opt_out_link=public_url + link_path(vault, link_id, "opt-out"),
        two_way_sender=two_way_sender,
    )
    size = measure(body)
    version = template.version if template else None
    return Rendered(body, link_id, locale, version, size, price(size.segments, phone_country))
