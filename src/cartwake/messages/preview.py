"""What a text would look like and cost in each country, before anybody gets it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from cartwake.credits.pricing import COUNTRY_MULTIPLIERS
from cartwake.kit.crypto import Vault
from cartwake.messages.overrides import Template
from cartwake.messages.rendering import Rendered, render
from cartwake.messages.template_rules import plainer


@dataclass(frozen=True)
class Forcing:
    """The first character that GSM-7 lacks, and so doubles the price."""

    character: str
    position: int  # in the text, counted from 1
    plainer: str | None  # what GSM-7 has in its place


@dataclass(frozen=True)
class Preview:
    """A text as a shopper of that country would read it, with its price."""

    country: str
    text: str
    encoding: str
    units: int  # septets or UTF-16 code units
    segments: int
    credits: int
    forcing: Forcing | None


def preview(
    vault: Vault,
    *,
    public_url: str,
    locale: str,
    template: Template | None,
    shop_name: str,
    phone_country: str,
    two_way_sender: bool,
) -> Preview:
    """Render with links of the real length. Raises `BadInput` when the text cannot be rendered."""
    rendered = render(
        vault,
        public_url=public_url,
        message_id=UUID(int=0),
        locale=locale,
        template=template,
        shop_name=shop_name,
        phone_country=phone_country,
        two_way_sender=two_way_sender,
    )
    size = rendered.measure
    return Preview(
        phone_country, rendered.body, size.encoding, size.units, size.segments, rendered.credits, _forcing(rendered)
    )


def countries_to_show(asked: Iterable[str]) -> list[str]:
    """Every country with a price of its own, and those that were asked about."""
    return sorted({*COUNTRY_MULTIPLIERS, *asked})


def _forcing(rendered: Rendered) -> Forcing | None:
    size = rendered.measure
    if size.forcing_character is None or size.forcing_position is None:
        return None
    return Forcing(size.forcing_character, size.forcing_position, plainer(size.forcing_character))
