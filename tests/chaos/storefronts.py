"""The public doors, knocked at again and again until somebody answers; and a diary of what was answered.

What was answered with 2xx is durable (G11): the count holds the diary against the database.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from chaos.plan import Act

TRY_AGAIN_AFTER_S = (0.2, 1.0)
ANSWER_TIMEOUT_S = 10.0
AT_A_TIME = 48


class Refused(Exception):
    """An answer that asking again would not change."""


@dataclass
class Diary:
    """What was answered, and what it took."""

    carts_api: set[int] = field(default_factory=set)
    carts_bulk: set[int] = field(default_factory=set)
    acts: dict[Act, set[int]] = field(default_factory=lambda: {act: set() for act in Act})
    said_no: dict[int, datetime] = field(default_factory=dict)  # when a buyer's or refuser's word was answered
    put_in: Counter[int] = field(default_factory=Counter)  # credits, by organization
    top_ups: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # every try, by what came back
    refused: list[str] = field(default_factory=list)


class Doors:
    """HTTP that does not give up."""

    def __init__(self, web_url: str, sandbox_url: str, http: aiohttp.ClientSession, diary: Diary) -> None:
        self._web_url = web_url
        self._sandbox_url = sandbox_url
        self._http = http
        self._diary = diary
        self._turn = asyncio.Semaphore(AT_A_TIME)

    async def api(self, method: str, path: str, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Cartwake's answer, once it is 2xx. Raises `Refused`."""
        headers = {"Authorization": f"Bearer {key}"}
        return await self._until_answered(method, self._web_url + path, body, headers)

    async def sandbox(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The carrier's answer at its door for people, once it is 2xx. Raises `Refused`."""
        return await self._until_answered(method, self._sandbox_url + path, body, {})

    async def _until_answered(
        self, method: str, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        while True:
            async with self._turn:
                status, document = await self._try(method, url, body, headers)
            self._diary.answers["no answer" if status is None else f"{status // 100}xx"] += 1
            if status is not None and status < 300:
                return document
            if status is not None and status < 500:
                self._diary.refused.append(f"{method} {url}: {status} {document}")
                raise Refused(self._diary.refused[-1])
            await asyncio.sleep(random.uniform(*TRY_AGAIN_AFTER_S))

    async def _try(
        self, method: str, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[int | None, dict[str, Any]]:
        """One try: the status and the whole answer; a half answer is none."""
        limit = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        try:
            async with self._http.request(method, url, json=body, headers=headers, timeout=limit) as answer:
                return answer.status, await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None, {}
