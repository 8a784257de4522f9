"""What a shop's text would look like, and cost, in each country."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cartwake.messages.overrides import Template, read_templates
from cartwake.messages.preview import countries_to_show, preview
from cartwake.messages.template_rules import accept_template, replacements
from cartwake.messages.templates import choose_locale
from cartwake.numbers.model import choose_sender
from cartwake.numbers.senders import read_active_senders
from cartwake.tenants.organizations import read_shop
from cartwake.web.api.fields import Body, Country, LocaleTag, ShortText, example
from cartwake.web.api.templates import ReplacementView, TemplateText
from cartwake.web.auth import AtShop

router = APIRouter(prefix="/v1", tags=["texts"])


class PreviewForm(Body):
    """What would be sent. All of it may be left out."""

    model_config = example(text="{shop} kept your cart: {link} {opt_out}", locale="en", countries=["JP"])

    text: TemplateText | None = Field(None, description="A draft; the text in force, unless given.")
    locale: LocaleTag | None = Field(None, description="The shopper's; the shop's, unless we speak it.")
    shop_name: ShortText | None = Field(None, description="The shop's own, unless given.")
    countries: Annotated[
        list[Country] | None,
        Field(max_length=50, description="Of the phones, besides the 23 with prices of their own."),
    ] = None
    two_way_sender: bool | None = Field(
        None, description="Whether the sender can be answered; if not, a link opts out. The shop's own, unless given."
    )


class ForcingView(BaseModel):
    """The first character that needs the dearer encoding."""

    character: str
    position: int = Field(description="In the text, in characters counted from 1.")
    plainer: str | None = Field(description="What the cheaper encoding has in its place; null when nothing says it.")


class PreviewView(BaseModel):
    """The text as a phone of that country gets it, and what it costs."""

    country: str
    sender: str | None = Field(description="That it would come from; null: no sender of the shop may text there.")
    text: str
    encoding: str
    units: int = Field(description="Septets in GSM-7, code units in UCS-2.")
    segments: int
    credits: int
    forcing: ForcingView | None = Field(description="Null in GSM-7.")


class PreviewList(BaseModel):
    """One text in every country."""

    locale: str
    template_version: int | None = Field(description="Of the shop's own text; null for a draft and the built-in text.")
    replaced: list[ReplacementView] = Field(description="What of a draft is written more plainly.")
    data: list[PreviewView]


@router.post("/previews")
async def post_preview(door: AtShop, form: PreviewForm) -> PreviewList:
    """The text that shoppers would get, with its price, country by country. Nothing is sent or stored."""
    async with door.open() as conn:
        shop = await read_shop(conn, door.scope)
        senders = (await read_active_senders(conn, [door.scope]))[door.scope]
        locale = choose_locale(form.locale, shop.default_locale)
        saved = (await read_templates(conn, {(door.scope, locale)})).get((door.scope, locale))
    public_url = door.runtime.settings.public_url
    template = saved
    if form.text is not None:
        template = Template(0, accept_template(form.text, locale=locale, public_url=public_url))
    data = []
    for country in countries_to_show(form.countries or ()):
        sender = choose_sender(senders, country)
        two_way = sender is None or sender.two_way if form.two_way_sender is None else form.two_way_sender
        shown = preview(
            door.moment.vault,
            public_url=public_url,
            locale=locale,
            template=template,
            shop_name=form.shop_name or shop.name,
            phone_country=country,
            two_way_sender=two_way,
        )
        forcing = ForcingView(**vars(shown.forcing)) if shown.forcing else None
        view = vars(shown) | {"forcing": forcing, "sender": sender.address if sender else None}
        data.append(PreviewView(**view))
    return PreviewList(
        locale=locale,
        template_version=saved.version if saved and template is saved else None,
        replaced=[ReplacementView(**vars(each)) for each in replacements(form.text or "")],
        data=data,
    )
