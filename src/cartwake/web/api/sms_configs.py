"""A shop's SMS settings."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, time
from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field

from cartwake.carts.abandonment import ask_again
from cartwake.carts.model import Refusal
from cartwake.kit.errors import BadInput
from cartwake.quiet_hours.windows import SendWindow, check_shop_window
from cartwake.tenants.model import SmsConfig
from cartwake.tenants.organizations import read_shop, read_sms_config, save_sms_config
from cartwake.web.api.fields import INTEGER_MAX, Body, UtcTime, example
from cartwake.web.auth import AtShop

router = APIRouter(prefix="/v1/sms-config", tags=["settings"])


def _clock_time(text: str) -> str:
    try:
        time.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time of day like 09:30") from None
    return text


ClockTime = Annotated[str, Field(pattern=r"^\d\d:\d\d$"), AfterValidator(_clock_time)]


class SmsConfigForm(Body):
    """Settings to change; what is absent or null stays. Durations are in seconds."""

    model_config = example(enabled=True, window_opens="09:30", window_closes="19:00")

    enabled: bool | None = Field(None, description="Whether this shop texts at all.")
    idle_s: int | None = Field(None, ge=60, le=86_400, description="Idle for so long, a cart counts as abandoned.")
    email_delay_s: int | None = Field(None, ge=0, le=86_400, description="From then until the first e-mail.")
    text_delay_s: int | None = Field(None, ge=60, le=259_200, description="From the last activity until the text.")
    stale_after_s: int | None = Field(None, ge=3600, le=1_209_600, description="Too old to text after so long.")
    payment_timeout_s: int | None = Field(None, ge=60, le=604_800, description="A payment counts as under way so long.")
    window_opens: ClockTime | None = Field(None, description="On the shopper's clock.")
    window_closes: ClockTime | None = Field(None, description="On the shopper's clock.")
    spread_s: int | None = Field(None, ge=0, le=7200, description="An opening's texts are spread over so long.")
    cycle_cap: int | None = Field(None, ge=1, le=100, description="Texts per 5 minutes, at most.")
    attribution_window_s: int | None = Field(None, ge=3600, le=2_592_000, description="A tap counts so long.")
    low_credits_at: int | None = Field(None, ge=0, le=INTEGER_MAX, description="Warn from so few credits on.")


class SmsConfigView(BaseModel):
    """A shop's SMS settings. Durations are in seconds; the window is on the shopper's clock."""

    enabled: bool
    idle_s: int
    email_delay_s: int
    text_delay_s: int
    stale_after_s: int
    payment_timeout_s: int
    window_opens: str
    window_closes: str
    spread_s: int
    cycle_cap: int
    attribution_window_s: int
    low_credits_at: int
    paused_at: UtcTime | None = Field(description="Since when the operator has paused the shop's texts.")


@router.get("")
async def get_sms_config(door: AtShop) -> SmsConfigView:
    """The shop's SMS settings."""
    async with door.open() as conn:
        return config_view(*await read_sms_config(conn, door.scope))


@router.put("")
async def put_sms_config(door: AtShop, form: SmsConfigForm) -> SmsConfigView:
    """Change settings. Switching texts on asks again about the carts that were refused while they were off."""
    async with door.open() as conn:
        shop = await read_shop(conn, door.scope)
        # Two changes at once must not undo each other: whoever switches texts off is heard.
        config, paused_at = await read_sms_config(conn, door.scope, lock=True)
        wanted = merged(form, config, shop.default_country)
        await save_sms_config(conn, door.moment.now, door.scope, wanted)
        if wanted.enabled and not config.enabled:
            await ask_again(conn, door.moment.now, shop.organization_id, [Refusal.SMS_DISABLED], shop_id=shop.shop_id)
    return config_view(wanted, paused_at)


def merged(form: SmsConfigForm, config: SmsConfig | None, country: str) -> SmsConfig:
    """`config` (None: the defaults) with what `form` changes.

    Raises `BadInput` when the settings contradict each other or the law of the shop's country.
    """
    changes: dict[str, object] = {name: value for name, value in form if value is not None}
    for name in ("window_opens", "window_closes"):
        if name in changes:
            changes[name] = time.fromisoformat(str(changes[name]))
    wanted = replace(config or SmsConfig(), **changes)  # type: ignore[arg-type]
    # The default window needs no check: sending keeps to the law of every place whatever the shop chose.
    if changes.keys() & {"window_opens", "window_closes"}:
        check_shop_window(SendWindow(wanted.window_opens, wanted.window_closes), country)
    if wanted.text_delay_s < wanted.idle_s:
        raise BadInput(
            "The text must not be due before the cart counts as abandoned: text_delay_s must be at least idle_s.",
            slug="text-before-abandonment",
            field="text_delay_s",
        )
    return wanted


def config_view(config: SmsConfig, paused_at: datetime | None) -> SmsConfigView:
    """Settings as they are answered."""
    window = {name: f"{getattr(config, name):%H:%M}" for name in ("window_opens", "window_closes")}
    return SmsConfigView.model_validate(asdict(config) | window | {"paused_at": paused_at})
