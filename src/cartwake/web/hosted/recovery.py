"""The short link in a text: back to the cart, with a token that says which text did it."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cartwake.carts.links import (
    PATHS,
    OpenedLink,
    RecoveryClaim,
    checkout_address,
    open_link,
    record_click,
    sign_recovery_token,
)
from cartwake.kit.crypto import Vault
from cartwake.tenants.scope import tenant_transaction
from cartwake.web.auth import runtime_of
from cartwake.web.hosted.links import find_link, locale_of
from cartwake.web.hosted.pages import dead_link, no_such_link

# Programs that open a link to draw a preview of it, or to check it, without anybody tapping; parts of
# their User-Agent in lower case. Apple's Messages calls itself facebookexternalhit, Facebot and Twitterbot.
PREVIEW_AGENTS = (
    "applebot",
    "bingbot",
    "bingpreview",
    "discordbot",
    "embedly",
    "facebookexternalhit",
    "facebot",
    "google-pagerenderer",
    "google-safety",
    "googlebot",
    "iframely",
    "linkedinbot",
    "linkpreview",
    "link-preview",
    "skypeuripreview",
    "slackbot",
    "telegrambot",
    "twitterbot",
    "urlpreview",
    "viber",
    "vkshare",
    "whatsapp",
)

# What stays as it is in the redirect's address; the rest is percent-encoded, for headers carry ASCII.
_ADDRESS_CHARACTERS = ":/%#?=@[]!$&'()*+,;~"


async def follow(request: Request) -> Response:
    """Redirect to the checkout and, where a person tapped, remember the tap."""
    runtime = runtime_of(request)
    moment = runtime.moment()
    found = await find_link(runtime, request.path_params["token"], "recover")
    if found is None:
        return no_such_link(request)
    async with tenant_transaction(runtime.db, found.scope) as conn:
        link = await open_link(conn, moment.vault, found.scope, found.link_id)
        if link is None:
            return no_such_link(request)
        if link.expires_at <= moment.now or link.checkout_url is None:
            return dead_link(410, await locale_of(conn, moment.vault, link))
        if is_tap(request):
            await record_click(conn, moment, link.link_id)
    headers = {
        "Location": _destination(moment.vault, link, link.checkout_url),
        "Referrer-Policy": "no-referrer",  # the storefront's own pages must not pass the token on
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex",
    }
    return Response(status_code=302, headers=headers)


def is_tap(request: Request) -> bool:
    """Whether a person opened the link, as far as a request can tell. A preview is not a tap, nor is a prefetch."""
    agent = request.headers.get("user-agent", "").lower()
    purpose = request.headers.get("sec-purpose", "") + request.headers.get("purpose", "")
    return (
        request.method == "GET"
        and not purpose.lower().startswith(("prefetch", "preview"))
        and not any(name in agent for name in PREVIEW_AGENTS)
    )


def _destination(vault: Vault, link: OpenedLink, checkout_url: str) -> str:
    token = sign_recovery_token(vault, RecoveryClaim(link.message_id, link.session_id), link.expires_at)
    return quote(checkout_address(checkout_url, token), safe=_ADDRESS_CHARACTERS)


routes = [Route(PATHS["recover"] + "{token}", follow, methods=["GET"])]  # and HEAD, which comes with GET
