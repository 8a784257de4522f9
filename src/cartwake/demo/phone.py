"""The shoppers' phones: the texts that the sandbox carrier shows on them, and what their owners do with one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp

from cartwake.carts.links import PATHS, TOKEN_PARAMETER

PEOPLES_BROWSER = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1"


class PhoneError(Exception):
    """The sandbox or a link did not do what a phone's owner expects."""


@dataclass(frozen=True)
class Text:
    """A text as the carrier took it."""

    sid: str
    to: str
    body: str
    segments: int
    status: str

    def link(self, purpose: str) -> str:
        """The link in it that begins with this path. Raises `PhoneError`."""
        found = re.search(rf"https?://\S+?{re.escape(purpose)}[\w-]+", self.body)
        if found is None:
            raise PhoneError(f"the text holds no {purpose} link")
        return found[0]


class Phones:
    """All phones of the demonstration, through the sandbox's door for people."""

    def __init__(self, sandbox_url: str, http: aiohttp.ClientSession) -> None:
        self.sandbox_url = sandbox_url
        self._http = http

    async def script(self, phone: str, outcome: str, error_code: int) -> None:
        """Decide what becomes of texts to one phone."""
        await self._ask("PUT", f"/sandbox/recipients/{phone}", {"outcome": outcome, "error_code": error_code})

    async def texts(self) -> list[Text]:
        """Every text that the carrier took, newest first."""
        found = await self._ask("GET", "/sandbox/messages?limit=10000")
        return [
            Text(each["sid"], each["to"], each["body"], int(each["num_segments"]), each["status"])
            for each in found["messages"]
        ]

    async def find(self, sid: str) -> Text:
        """One text. Raises `PhoneError` when the carrier does not know it."""
        for text in await self.texts():
            if text.sid == sid:
                return text
        raise PhoneError(f"the carrier does not know the text {sid}")

    async def reply(self, phone: str, words: str) -> None:
        """Answer the sender of the last text."""
        answer = await self._ask("POST", "/sandbox/replies", {"from": phone, "body": words})
        status = answer["webhook"]["http_status"]
        if status != 200:
            raise PhoneError(f"the reply was not taken: HTTP {status}")

    async def tap(self, text: Text) -> str:
        """Tap the way back to the cart; the token that it puts into the checkout's address."""
        address = text.link(PATHS["recover"])
        async with self._http.get(address, allow_redirects=False, headers={"User-Agent": PEOPLES_BROWSER}) as answer:
            tokens = parse_qs(urlsplit(answer.headers.get("Location", "")).query).get(TOKEN_PARAMETER)
            if answer.status != 302 or not tokens:
                raise PhoneError(f"the short link led nowhere: HTTP {answer.status}")
            return tokens[0]

    async def press_not_my_number(self, text: Text) -> None:
        """Open the text's opt-out page and press the second button."""
        address, headers = text.link(PATHS["opt-out"]), {"User-Agent": PEOPLES_BROWSER}
        async with self._http.get(address, headers=headers) as answer:
            answer.raise_for_status()
        async with self._http.post(address, data={"action": "not_my_number"}, headers=headers) as answer:
            answer.raise_for_status()

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        async with self._http.request(method, self.sandbox_url + path, json=body) as answer:
            answer.raise_for_status()
            document: dict[str, Any] = await answer.json()
            return document
