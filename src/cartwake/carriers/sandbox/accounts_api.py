"""`Accounts/{Sid}`: what Twilio says about the account itself."""

from __future__ import annotations

from aiohttp import web

from cartwake.carriers.sandbox import resources
from cartwake.carriers.sandbox.rules import Refusal
from cartwake.carriers.sandbox.state import State


class AccountsApi:
    """The one account of a sandbox."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        return [web.get(resources.API + "/{account}.json", self.fetch)]

    async def fetch(self, request: web.Request) -> web.Response:
        """The account."""
        sid = self._state.options.account_sid
        if request.match_info["account"] != sid:
            return resources.refuse(Refusal(20404))
        return resources.answer(
            {
                "auth_token": None,
                "date_created": None,
                "date_updated": None,
                "friendly_name": "Cartwake sandbox",
                "owner_account_sid": sid,
                "sid": sid,
                "status": "active",
                "subresource_uris": {},
                "type": "Sandbox",
                "uri": f"{resources.API}/{sid}.json",
            }
        )
