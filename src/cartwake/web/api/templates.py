"""A shop's own texts, in place of the built-in ones."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from cartwake.messages.overrides import TemplateVersion, change_template, list_versions, newest_versions
from cartwake.messages.template_rules import accept_template, replacements, worst_case
from cartwake.messages.templates import LOCALES, wording
from cartwake.web.api.fields import INTEGER_MAX, Body, UtcTime, example
from cartwake.web.api.pages import BEFORE, Limit, cut
from cartwake.web.auth import AtShop, ShopDoor

router = APIRouter(prefix="/v1/templates", tags=["texts"])

OwnLocale = Annotated[
    Literal["en", "lt", "de", "fr", "es", "pl", "ru"], Path(description="One of the seven that texts are written in.")
]
TemplateText = Annotated[
    str,
    Field(
        max_length=2000,
        description="With `{link}` and `{opt_out}`, and `{shop}` where the shop's name should stand. No other link.",
    ),
]


class TemplateForm(Body):
    """A text of the shop's own."""

    model_config = example(text="{shop} kept your cart: {link} {opt_out}")

    text: TemplateText


class ReplacementView(BaseModel):
    """A character that is written more plainly, because it would double the price of the text."""

    character: str
    position: int = Field(description="In characters counted from 1.")
    by: str


class TemplateView(BaseModel):
    """The text in one locale."""

    locale: str
    built_in: str
    own: str | None = Field(description="The shop's, which is sent in its place; null: the built-in text is sent.")
    version: int = Field(description="Of the last change; 0 when there never was one.")
    changed_by: str | None
    changed_at: UtcTime | None
    segments_max: int = Field(description="With the longest shop name, the longest opt-out wording, real links.")


class SavedTemplate(TemplateView):
    """The text as it was kept."""

    replaced: list[ReplacementView]


class TemplateList(BaseModel):
    """The texts in all locales; always the same seven, so there are no pages."""

    data: list[TemplateView]


class VersionView(BaseModel):
    """One change of a text."""

    version: int
    text: str | None = Field(description="Null: back to the built-in text.")
    changed_by: str
    at: UtcTime


class VersionPage(BaseModel):
    """Changes, newest first."""

    data: list[VersionView]
    next: int | None = Field(description="`before` of the next page; null on the last one.")


@router.get("")
async def get_templates(door: AtShop) -> TemplateList:
    """The built-in text and the shop's own, in each locale."""
    async with door.open() as conn:
        newest = await newest_versions(conn, door.scope)
    return TemplateList(data=[_view(door, locale, newest.get(locale)) for locale in LOCALES])


@router.get("/{locale}")
async def get_template(door: AtShop, locale: OwnLocale) -> TemplateView:
    """The built-in text and the shop's own, in one locale."""
    async with door.open() as conn:
        newest = await newest_versions(conn, door.scope)
    return _view(door, locale, newest.get(locale))


@router.put("/{locale}")
async def put_template(door: AtShop, locale: OwnLocale, form: TemplateForm) -> SavedTemplate:
    """Send a text of the shop's own from now on. A refusal names everything that is wrong, and where."""
    text = accept_template(form.text, locale=locale, public_url=door.runtime.settings.public_url)
    view = _view(door, locale, await _change(door, locale, text))
    return SavedTemplate(
        **view.model_dump(), replaced=[ReplacementView(**vars(each)) for each in replacements(form.text)]
    )


@router.delete("/{locale}")
async def delete_template(door: AtShop, locale: OwnLocale) -> TemplateView:
    """Send the built-in text again. Earlier versions are kept: they explain what was sent."""
    return _view(door, locale, await _change(door, locale, None))


@router.get("/{locale}/versions")
async def get_template_versions(
    door: AtShop,
    locale: OwnLocale,
    before: Annotated[int | None, Query(ge=1, le=INTEGER_MAX, description=BEFORE)] = None,
    limit: Limit = 50,
) -> VersionPage:
    """Every text that the shop ever had in this locale: who changed it, when. Messages name their version."""
    async with door.open() as conn:
        found = await list_versions(conn, door.scope, locale, before=before, limit=limit + 1)
    page, following = cut(found, limit, lambda change: change.version)
    return VersionPage(data=[VersionView.model_validate(each, from_attributes=True) for each in page], next=following)


async def _change(door: ShopDoor, locale: str, text: str | None) -> TemplateVersion | None:
    async with door.open() as conn:
        return await change_template(conn, door.moment, door.scope, locale, text, f"api-key {door.key_id}")


def _view(door: ShopDoor, locale: str, newest: TemplateVersion | None) -> TemplateView:
    built_in, own = wording(locale).cart_recovery, newest.text if newest else None
    size = worst_case(own or built_in, locale=locale, public_url=door.runtime.settings.public_url)
    return TemplateView(
        locale=locale,
        built_in=built_in,
        own=own,
        version=newest.version if newest else 0,
        changed_by=newest.changed_by if newest else None,
        changed_at=newest.at if newest else None,
        segments_max=size.segments,
    )
