"""`/docs` and `/docs/problems`: drawn once per process, from the API's description and the table of problems."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cartwake.web.auth import KEY_NAMES, runtime_of
from cartwake.web.policy import content_policy
from cartwake.web.problems import NO_SUCH_ADDRESS, TYPE_PATH, problem
from cartwake.web.reference.problems import is_known, known_problems
from cartwake.web.reference.shapes import Shapes

PROBLEMS_PATH = "/docs/problems"

_STYLE = files(__package__).joinpath("templates", "reference.css").read_text("utf-8")

# Nothing but this page's own style: no script, no picture, no font, no form, no frame around it.
HEADERS = {
    "Content-Security-Policy": content_policy(_STYLE, form_action="'none'"),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked about each time: a new version shows at once
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class Drawn:
    """A page as it is sent."""

    html: bytes
    compressed: bytes
    etag: str


async def reference(request: Request) -> Response:
    """Every operation, with its fields and an example to paste."""
    return _answer(request, "reference.html")


async def problems(request: Request) -> Response:
    """Every problem, with what it means and what to do."""
    return _answer(request, "problems.html")


async def problem_type(request: Request) -> Response:
    """Where a problem document's `type` leads: to its section."""
    slug = request.path_params["slug"]
    if not is_known(slug):
        return problem(404, "no-such-address", NO_SUCH_ADDRESS)
    return RedirectResponse(f"{PROBLEMS_PATH}#{slug}", 302)


def _answer(request: Request, template: str) -> Response:
    drawn: dict[str, Drawn] = request.app.state.drawn
    if template not in drawn:
        drawn[template] = _draw(request, template)
    page = drawn[template]
    headers = HEADERS | {"ETag": page.etag}
    if request.headers.get("if-none-match") == page.etag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(page.compressed, 200, headers | {"Content-Encoding": "gzip"}, "text/html")
    return Response(page.html, 200, headers, "text/html")


def _draw(request: Request, template: str) -> Drawn:
    document: dict[str, Any] = request.app.openapi()
    html = (
        _templates.get_template(template)
        .render(
            style=Markup(_STYLE),  # noqa: S704 - our own file
            version=document["info"]["version"],
            public_url=runtime_of(request).settings.public_url,
            subjects=Shapes(document).subjects() if template == "reference.html" else [],
            problems=known_problems(),
            key_names=KEY_NAMES,
            problems_path=PROBLEMS_PATH,
        )
        .encode()
    )
    return Drawn(html, gzip.compress(html, mtime=0), f'W/"{hashlib.sha256(html).hexdigest()[:32]}"')


def _prose(text: str) -> Markup:
    """Text with paragraphs and `code`, as docstrings and descriptions write it."""
    paragraphs = [re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(part))) for part in text.strip().split("\n\n")]
    return Markup("".join(f"<p>{part}</p>" for part in paragraphs))  # noqa: S704 - escaped above


def _inline(text: str) -> Markup:
    """One line with `code`."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped first


_templates = Environment(
    loader=PackageLoader("cartwake.web.reference"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"prose": _prose, "inline": _inline}

routes = [
    Route("/docs", reference, methods=["GET"]),
    Route(PROBLEMS_PATH, problems, methods=["GET"]),
    Route(TYPE_PATH + "{slug}", problem_type, methods=["GET"]),
]
