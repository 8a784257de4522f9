"""The reference at `/docs`: everything is on it, nothing is loaded for it, and no one can write into it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser

import pytest

from cartwake.web.reference.shapes import Shapes
from world import World

PAGES = ["/docs", "/docs/problems"]


class Seen(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attributes)
        assert not any(name.startswith("on") or name in ("style", "src") for name in found), (tag, found)
        self.ids += [found["id"]] if found.get("id") else []  # type: ignore[list-item]
        self.links += [found["href"]] if tag == "a" else []  # type: ignore[list-item]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> out of place"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_brings_all_that_it_needs(world: World, path: str) -> None:
    answer = await world.http.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    seen = Seen(answer.text)
    assert not seen.tags & {"script", "link", "img", "iframe", "form", "object", "svg"} and not seen.open
    assert len(set(seen.ids)) == len(seen.ids), "an anchor stands for two things"
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'" and f"style-src 'sha256-{digest}'" in policy
    assert {"form-action 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "http" not in style and "url(" not in style


@pytest.mark.thorough
async def test_every_link_leads_somewhere(world: World) -> None:
    pages = {path: Seen((await world.http.get(path)).text) for path in PAGES}
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if anchor:
                assert anchor in pages[target or path].ids, (path, link)
            else:
                assert (await world.http.get(target)).status_code == 200, link


async def test_every_operation_is_there_with_its_fields_and_what_to_type(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    page = Seen((await world.http.get("/docs")).text)
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["operationId"] in page.ids
    subjects = Shapes(document).subjects()
    assert [subject.name for subject in subjects][:3] == ["checkout sessions", "shoppers", "texts"]
    for subject in subjects:
        for operation in subject.operations:
            assert operation.curl in page.text and operation.answer_example in page.text
            assert operation.answer or operation.answer_example or operation.statuses == ["204 No Content"]
            assert operation.refusals and operation.summary.replace("`", "") in page.text
    put = next(each for each in subjects[0].operations if each.name == "put_session")
    assert {"phone", "consent", "consent.granted", "consent.wording"} <= {field.name for field in put.body}
    assert put.statuses == ["200 OK", "201 Created"]
    story = next(each for each in subjects[0].operations if each.name == "get_session")
    assert {"decisions[].gate", "message.state"} <= {field.name for field in story.answer}


async def test_what_the_page_says_to_send_is_taken(world: World) -> None:
    """The examples of the shop's operations, sent in the page's order."""
    shop = await world.shop()
    document = (await world.http.get("/openapi.json")).json()
    sent = 0
    for subject in Shapes(document).subjects():
        for operation in subject.operations:
            if (
                "shop's secret" in operation.key
                and operation.body
                and operation.name != "post_recovery_token_verification"
            ):
                path = operation.path.replace("{external_id}", "cart-1").replace("{locale}", "en")
                answer = await shop.api(
                    operation.method,
                    path,
                    content=operation.body_example.encode(),
                    headers={"Content-Type": "application/json"},
                )
                assert answer.is_success, (operation.name, answer.text)
                sent += 1
    assert sent >= 8


async def test_a_page_is_sent_small_and_only_when_it_changed(world: World) -> None:
    plain = await world.http.get("/docs", headers={"Accept-Encoding": "identity"})
    zipped = await world.http.get("/docs", headers={"Accept-Encoding": "gzip"})
    assert plain.text == zipped.text and zipped.headers["content-encoding"] == "gzip"
    assert len(gzip.compress(plain.content)) < len(plain.content) / 4
    again = await world.http.get("/docs", headers={"If-None-Match": plain.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert "content-security-policy" in again.headers
