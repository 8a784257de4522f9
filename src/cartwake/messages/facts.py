"""Loads, for a whole batch at once, every fact that the gates ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from cartwake.carts.abandonment import read_sessions_for_claim
from cartwake.carts.model import Session
from cartwake.consent.events import read_consents_for_claim
from cartwake.consent.model import NEVER_ASKED, ConsentState
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection, rows
from cartwake.kit.moment import Moment
from cartwake.kit.phones import open_phone
from cartwake.messages import store
from cartwake.messages.gates import Facts
from cartwake.messages.model import DueMessage
from cartwake.messages.overrides import Template, read_templates
from cartwake.messages.rendering import render
from cartwake.messages.templates import choose_locale
from cartwake.numbers.model import Sender, choose_sender
from cartwake.numbers.senders import read_active_senders
from cartwake.quiet_hours.places import candidate_places
from cartwake.quiet_hours.windows import Opening, SendWindow, next_opening
from cartwake.quiet_hours.zones import candidate_zones
from cartwake.tenants.model import ShopScope, SmsConfig
from cartwake.tenants.store import CONFIG_FIELDS
from cartwake.tenants.switches import deployment_paused_since


@dataclass(frozen=True)
class ShopFacts:
    """A shop as the gates see it."""

    shop: ShopScope
    name: str
    default_country: str
    default_locale: str
    plan: str
    config: SmsConfig
    paused: bool


async def load_shops(conn: Connection, shops: Sequence[ShopScope]) -> dict[ShopScope, ShopFacts]:
    """The shops of a batch with plan and settings."""
    unique = list(dict.fromkeys(shops))
    params = {"organizations": [s.organization_id for s in unique], "shops": [s.shop_id for s in unique]}
    return {facts.shop: facts for facts in map(_shop_facts, await rows(conn, store.READ_SHOPS, params))}


async def load_facts(
    conn: Connection, moment: Moment, public_url: str, messages: Sequence[DueMessage]
) -> tuple[Moment, list[Facts]]:
    """The facts of a batch, its sessions and consents share-locked until commit, and the moment at which they hold.

    That is when the locks were had: a consent that was waited for must not look younger than the claim that read it.

    A message whose session is being written just now is left out: it stays due.
    """
    sessions = await read_sessions_for_claim(conn, [message.session_key for message in messages])
    present = [message for message in messages if message.session_key in sessions]
    consents, everywhere = await _load_consents(conn, [sessions[message.session_key] for message in present])
    moment = moment.after_waiting()
    shops = await load_shops(conn, [message.shop for message in present])
    locales = {
        message.message_id: choose_locale(sessions[message.session_key].locale, shops[message.shop].default_locale)
        for message in present
    }
    templates = await read_templates(conn, {(message.shop, locales[message.message_id]) for message in present})
    senders = await read_active_senders(conn, list(shops))
    paused = await deployment_paused_since(conn) is not None
    return moment, [
        _facts(
            moment.vault,
            moment.now,
            public_url,
            message,
            sessions[message.session_key],
            shops[message.shop],
            senders[message.shop],
            locale=locales[message.message_id],
            template=templates.get((message.shop, locales[message.message_id])),
            consents=consents,
            everywhere=everywhere,
            deployment_paused=paused,
        )
        for message in present
    ]


async def _load_consents(
    conn: Connection, sessions: Sequence[Session]
) -> tuple[dict[tuple[UUID, UUID, bytes], ConsentState], set[bytes]]:
    keys = [(s.organization_id, s.shop_id, s.phone_hash) for s in sessions if s.phone_hash is not None]
    return await read_consents_for_claim(conn, keys)


def _facts(
    vault: Vault,
    now: datetime,
    public_url: str,
    message: DueMessage,
    session: Session,
    shop: ShopFacts,
    senders: Sequence[Sender],
    *,
    locale: str,
    template: Template | None,
    consents: dict[tuple[UUID, UUID, bytes], ConsentState],
    everywhere: set[bytes],
    deployment_paused: bool,
) -> Facts:
    country = session.phone_country or ""
    sender = choose_sender(senders, country) if country else None
    phone = session.phone_hash or b""
    return Facts(
        now=now,
        message=message,
        session=session,
        plan=shop.plan,
        config=shop.config,
        deployment_paused=deployment_paused,
        shop_paused=shop.paused,
        sender=sender,
        consent=consents.get((message.organization_id, message.shop_id, phone), NEVER_ASKED),
        suppressed_everywhere=phone in everywhere,
        opening=partial(_opening, vault, now, session, shop.config),
        render=partial(
            render,
            vault,
            public_url=public_url,
            message_id=message.message_id,
            locale=locale,
            template=template,
            shop_name=shop.name,
            phone_country=country,
            two_way_sender=sender is not None and sender.two_way,
        ),
    )


def _opening(vault: Vault, now: datetime, session: Session, config: SmsConfig) -> Opening | None:
    assert session.phone_sealed is not None and session.phone_country is not None
    whereabouts: dict[str, Any] = {
        "phone_e164": open_phone(vault, session.phone_sealed),
        "phone_country": session.phone_country,
        "shipping_country": session.country,
        "shipping_province": session.province,
    }
    return next_opening(
        now,
        zones=candidate_zones(time_zone=session.time_zone, **whereabouts),
        places=candidate_places(**whereabouts),
        window=SendWindow(config.window_opens, config.window_closes),
    )


def _shop_facts(found: dict[str, Any]) -> ShopFacts:
    return ShopFacts(
        shop=ShopScope(found["organization_id"], found["shop_id"]),
        name=found["name"],
        default_country=found["default_country"],
        default_locale=found["default_locale"],
        plan=found["plan"],
        config=SmsConfig(**{name: found[name] for name in CONFIG_FIELDS}),
        paused=found["paused_at"] is not None,
    )
