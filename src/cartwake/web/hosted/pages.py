"""Pages for people: plain HTML that works without scripts, in the dark and on the smallest screen."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from cartwake.messages.templates import choose_locale, opt_out_page
from cartwake.web.policy import content_policy

_STYLE = files(__package__).joinpath("templates", "page.css").read_text("utf-8")

# Nothing but this page's own style; no script, no picture, no frame around it.
HEADERS = {
    "Content-Security-Policy": content_policy(_STYLE, form_action="'self'"),
    "X-Frame-Options": "DENY",
    # The address of a page is a key to it: no other site may be told.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}

_templates = Environment(
    loader=PackageLoader("cartwake.web.hosted"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def page(template: str, status: int, locale: str, **words: str | None) -> HTMLResponse:
    """A page in one language; `words` fill the template and are escaped there."""
    html = _templates.get_template(template).render(locale=locale, style=_STYLE, **words)
    return HTMLResponse(html, status, HEADERS)


def no_such_link(request: Request) -> HTMLResponse:
    """For a link that we never made. Nobody's language is known, so the browser's is used."""
    return dead_link(404, choose_locale(request.headers.get("accept-language"), None))


def dead_link(status: int, locale: str) -> HTMLResponse:
    """A link that leads nowhere, or nowhere any more."""
    return notice(status, locale, opt_out_page(locale).expired)


def notice(status: int, locale: str, words: str, receipt: str | None = None) -> HTMLResponse:
    """A page that only says something: its first sentence large, the rest below, at the end what is worth keeping."""
    heading, stop, rest = words.partition(". ")
    return page("notice.html", status, locale, title=heading + stop.strip(), text=rest, receipt=receipt)
