"""A checkout's news and the consent that comes with it, recorded in one transaction.

The session's row is locked first and the consent's state after it, as everywhere. Consent is as fresh as
the news it came with: old news cannot give it. Taking it back counts however late it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cartwake.carts.model import CheckoutFacts, Session
from cartwake.carts.sessions import lock_session, record_activity, remember_consent
from cartwake.consent import events
from cartwake.consent.model import NEVER_ASKED, Channel, ConsentChange, ConsentState, Evidence
from cartwake.consent.optin import validate_sms_consent
from cartwake.kit.crypto import Vault
from cartwake.kit.db import Connection
from cartwake.kit.errors import BadInput, NotKnown
from cartwake.kit.moment import Moment
from cartwake.kit.phones import Phone, hash_phone, parse_mobile, seal_phone
from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import read_shop, read_sms_config
from cartwake.web.api.fields import not_ahead
from cartwake.web.api.session_forms import ConsentForm, SessionForm


@dataclass(frozen=True)
class Recorded:
    """What became of a checkout's news."""

    session: Session
    consent: ConsentState
    is_new: bool
    phone_problem: str | None


async def record_checkout(
    conn: Connection, moment: Moment, scope: ShopScope, external_id: str, news: SessionForm
) -> Recorded:
    """Take note of a checkout and of the consent given or taken back in it.

    A phone that cannot be texted is refused when the shopper agreed to be texted at it (`BadInput`), and
    left out, with the problem's slug, when nobody agreed: shoppers mistype, and the cart is still a cart.
    """
    before = await _find(conn, scope, external_id)
    phone, phone_problem = await _read_phone(conn, scope, news, before)
    facts = _facts(moment, news, phone)
    config, _ = await read_sms_config(conn, scope)
    session, is_news = await record_activity(conn, moment, scope, config, external_id, facts)
    is_repeat = before is not None and facts.occurred_at <= before.last_activity_at
    if news.consent is None:
        pass
    elif not news.consent.granted:
        session = await _take_back(conn, moment, session, news.consent)
    elif is_news:
        assert phone is not None, "consent comes with a phone"
        session = await _give(conn, moment, session, phone, news.consent, is_repeat=is_repeat)
    return Recorded(session, await read_consent_of(conn, session), before is None, phone_problem)


async def read_consent_of(conn: Connection, session: Session) -> ConsentState:
    """What holds for the session's phone at this shop, whichever session it was said in."""
    if session.phone_hash is None:
        return NEVER_ASKED
    return await events.read_consent(conn, (session.organization_id, session.shop_id, session.phone_hash))


async def _give(
    conn: Connection, moment: Moment, session: Session, phone: Phone, form: ConsentForm, *, is_repeat: bool
) -> Session:
    """The box is ticked for the phone that came with it: an event, unless it says what is known."""
    assert session.phone_hash is not None, "consent comes with a phone"
    # Known in this session. What comes again as it was does not undo a withdrawal made since, elsewhere.
    if session.consented and (is_repeat or (await read_consent_of(conn, session)).granted):
        return session
    change = _change(moment.vault, session, session.phone_hash, form, phone.e164)
    await events.grant(conn, moment, Channel.CHECKBOX, [change])
    if not session.consented:
        await remember_consent(conn, moment, session, session.phone_hash)
    return replace(session, consented_phone=session.phone_hash)


async def _take_back(conn: Connection, moment: Moment, session: Session, form: ConsentForm) -> Session:
    """The box is not ticked any more. A box that never was takes nothing back."""
    if session.consented_phone is None:
        return session
    change = _change(moment.vault, session, session.consented_phone, form)
    await events.withdraw(conn, moment, Channel.CHECKBOX, [change])
    await remember_consent(conn, moment, session, None)
    return replace(session, consented_phone=None)


async def _find(conn: Connection, scope: ShopScope, external_id: str) -> Session | None:
    try:
        return await lock_session(conn, scope, external_id)
    except NotKnown:
        return None


async def _read_phone(
    conn: Connection, scope: ShopScope, news: SessionForm, before: Session | None
) -> tuple[Phone | None, str | None]:
    """The phone, or the slug of what is wrong with it. Raises `BadInput` when consent cannot be accepted."""
    country = news.country or (before.country if before else None)
    if country is None and news.phone and not news.phone.strip().startswith("+"):
        country = (await read_shop(conn, scope)).default_country
    if news.consent is not None:
        agreed = validate_sms_consent(news.consent.granted, news.phone, country)
        if agreed:
            _check_wording(news.consent)
            return agreed, None
    if not news.phone or not news.phone.strip():
        return None, None
    try:
        return parse_mobile(news.phone.strip(), country), None
    except BadInput as problem:
        return None, problem.slug


def _check_wording(form: ConsentForm) -> None:
    if form.wording is None:
        raise BadInput(
            "Send the wording that the shopper agreed to: consent that cannot be shown cannot be relied on.",
            slug="consent-without-wording",
            field="consent.wording",
        )


def _facts(moment: Moment, news: SessionForm, phone: Phone | None) -> CheckoutFacts:
    vault = moment.vault
    return CheckoutFacts(
        occurred_at=not_ahead(news.occurred_at, moment.now, "occurred_at"),
        phone_hash=hash_phone(vault, phone.e164) if phone else None,
        phone_sealed=seal_phone(vault, phone.e164) if phone else None,
        phone_country=phone.country if phone else None,
        country=news.country,
        province=news.province,
        time_zone=news.time_zone,
        locale=news.locale,
        cart_value_minor=news.cart_value_minor,
        currency=news.currency,
        checkout_url_sealed=vault.seal(news.checkout_url, "checkout-url") if news.checkout_url else None,
    )


def _change(
    vault: Vault, session: Session, phone_hash: bytes, form: ConsentForm, phone: str | None = None
) -> ConsentChange:
    evidence = Evidence(
        phone=phone,
        wording=form.wording,
        wording_version=form.wording_version,
        locale=form.locale,
        page_url=form.page_url,
        form_field=form.form_field,
        ip_hash=vault.hash(form.ip, "ip").hex() if form.ip else None,
        actor=form.actor,
    )
    return ConsentChange(session.organization_id, session.shop_id, phone_hash, evidence)
