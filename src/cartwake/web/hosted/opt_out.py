"""The opt-out link in a text. Looking at the page changes nothing; pressing a button does.

It works for as long as the text exists: a recovery link expires, the right to be left alone does not.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cartwake.carts.links import PATHS, open_link
from cartwake.consent.chain import Head
from cartwake.consent.events import say_again, suppress
from cartwake.consent.model import Channel, ConsentChange, Evidence, Suppression
from cartwake.consent.sealing import read_head
from cartwake.kit.db import Connection
from cartwake.kit.moment import Moment
from cartwake.messages.reading import recipient_of
from cartwake.messages.templates import opt_out_page
from cartwake.tenants.model import ShopScope
from cartwake.tenants.organizations import read_shop
from cartwake.tenants.scope import tenant_transaction
from cartwake.web.auth import runtime_of
from cartwake.web.hosted.links import find_link, locale_of
from cartwake.web.hosted.pages import no_such_link, notice, page

ACTIONS = {"stop": Suppression.STOP, "not_my_number": Suppression.NOT_MY_NUMBER}


async def opt_out(request: Request) -> Response:
    """GET shows the two buttons, POST does what the pressed one says."""
    runtime = runtime_of(request)
    moment = runtime.moment()
    found = await find_link(runtime, request.path_params["token"], "opt-out")
    if found is None:
        return no_such_link(request)
    is_press = request.method == "POST"
    wish = ACTIONS.get(str((await request.form()).get("action"))) if is_press else None
    async with tenant_transaction(runtime.db, found.scope) as conn:
        link = await open_link(conn, moment.vault, found.scope, found.link_id)
        phone_hash = await recipient_of(conn, found.scope, link.message_id) if link else None
        if link is None or phone_hash is None:
            return no_such_link(request)
        locale = await locale_of(conn, moment.vault, link)
        shop = await read_shop(conn, found.scope)
        if wish:
            await stop_texts(conn, moment, found.scope, phone_hash, wish)
            head = await read_head(conn, found.scope.organization_id, found.scope.shop_id)
    words = opt_out_page(locale)
    if wish:
        said = words.done if wish is Suppression.STOP else words.done_not_mine
        return notice(200, locale, said, receipt_of(moment, head))
    return page(
        "opt_out.html",
        400 if is_press else 200,  # a press of neither button is nobody's decision: ask again
        locale,
        title=words.title,
        question=words.ask(shop.name),
        confirm=words.confirm,
        not_mine=words.not_mine,
        not_mine_hint=words.not_mine_hint,
    )


def receipt_of(moment: Moment, head: Head) -> str:
    """When it was said and where the shop's consent chain stood then: figures, which every language reads alike."""
    return f"{moment.now:%Y-%m-%d %H:%M:%S} UTC · {head.position} · {head.head.hex()}"


async def stop_texts(
    conn: Connection, moment: Moment, scope: ShopScope, phone_hash: bytes, reason: Suppression
) -> None:
    """Suppress the phone that got the text. Pressing twice records once; "not my number" outdoes a STOP."""
    evidence = Evidence(form_field="action", actor="recipient of the text")
    change = ConsentChange(scope.organization_id, scope.shop_id, phone_hash, evidence)
    if not await say_again(conn, moment.now, reason, change):
        await suppress(conn, moment, Channel.OPT_OUT_LINK, reason, [change])


routes = [Route(PATHS["opt-out"] + "{token}", opt_out, methods=["GET", "POST"])]
