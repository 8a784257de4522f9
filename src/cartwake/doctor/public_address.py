"""Can the world reach us by our own address, and does what the carrier signs arrive as it was signed?

The round trip posts a delivery receipt whose status says nothing that Cartwake acts on: it is verified and
answered like any other, and stores no row.
"""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import urlencode

import aiohttp

from cartwake.carriers.webhooks import STATUS_PATH
from cartwake.doctor.carrier import is_the_sandbox
from cartwake.doctor.model import Finding, Patient, bad, ok, warn
from cartwake.doctor.settings import is_local
from cartwake.kit.network import NetworkTrouble, explain, trouble_of
from cartwake.kit.runtime import is_our_mark

ANSWER_MAX_BYTES = 64 * 1024
HARMLESS_STATUS = "doctor"  # none of the carrier's
CERTIFICATE = "Put that right where TLS ends: the carrier refuses it too."
BEHIND = "Point the name and the proxy at the web processes (`cartwake serve`), or correct CARTWAKE_PUBLIC_URL."


async def look_at_public_address(patient: Patient) -> Finding:
    """`CARTWAKE_PUBLIC_URL` leads to a web process of this deployment, in a way that the carrier can go too."""
    url = patient.settings.public_url
    try:
        status, headers, document = await _call(patient, "GET", f"{url}/healthz")
    except (aiohttp.ClientError, OSError) as error:
        kind = trouble_of(error)
        mend = CERTIFICATE if kind is NetworkTrouble.CERTIFICATE else BEHIND
        return bad(f"{url} cannot be reached from here: {explain(error)}", mend)
    if 300 <= status < 400:
        target = headers.get("Location", "elsewhere")
        return bad(f"{url}/healthz redirects to {target}", "Name the final address in CARTWAKE_PUBLIC_URL.")
    if status != 200 or document.get("status") != "ok":
        return bad(f"something else answers at {url}/healthz (HTTP {status})", BEHIND)
    if not is_our_mark(patient.vault, str(document.get("deployment", ""))):
        return bad(
            f"another deployment answers at {url}: it has other secret keys",
            "Give every process the same CARTWAKE_SECRET_KEYS, or correct CARTWAKE_PUBLIC_URL.",
        )
    return await _judge_reach(patient, url)


async def look_at_signature(patient: Patient) -> Finding:
    """A webhook as the carrier signs it is accepted through the public address; one that it did not sign is not."""
    attempt = secrets.token_hex(16)
    url = f"{patient.settings.public_url}{STATUS_PATH}?attempt={attempt}"
    form = {
        "AccountSid": patient.settings.twilio_account_sid,
        "MessageSid": "SM" + attempt,
        "MessageStatus": HARMLESS_STATUS,
    }
    signed = patient.carrier.sign(url, form)
    forged = patient.carrier.sign(url, form | {"MessageStatus": "delivered"})
    try:
        status, _, document = await _call(patient, "POST", url, form, signed)
        forged_status, _, _ = await _call(patient, "POST", url, form, forged)
    except (aiohttp.ClientError, OSError) as error:
        return bad(f"the carrier's webhook got no answer: {explain(error)}", BEHIND)
    if forged_status < 300:
        return bad(
            "a webhook with a wrong signature was accepted: anybody can forge receipts and replies",
            f"Something answers {STATUS_PATH} in Cartwake's place; let it pass the request on.",
        )
    if status == 403 and str(document.get("type", "")).endswith("bad-signature"):
        return bad(
            "a webhook that the carrier signed for this address is refused: receipts and STOP are lost",
            "Let the proxy pass path, query and body on unchanged, and give the web processes the same "
            "CARTWAKE_PUBLIC_URL and CARTWAKE_TWILIO_AUTH_TOKEN as here.",
        )
    if status >= 300:
        return bad(
            f"a webhook that the carrier signed is answered with HTTP {status} before Cartwake sees it",
            f"Let the proxy or firewall pass POST {STATUS_PATH} on from anywhere.",
        )
    return ok("a webhook that the carrier signed is accepted through the public address, a forged one is not")


async def _judge_reach(patient: Patient, url: str) -> Finding:
    said = f"{url} leads to this deployment"
    if is_local(url):
        if is_local(patient.settings.twilio_api_base):
            return ok(f"{said}; only this machine reaches it, and so does its sandbox")
        if await is_the_sandbox(patient):
            return warn(
                f"{said}; only what shares that address reaches it",
                "Well for a trial, if the sandbox does, as in deploy/compose.yaml; else it cannot call back.",
            )
        mend = "Set CARTWAKE_PUBLIC_URL to an https address that the carrier and shoppers can reach."
        return bad(f"{said}, but no carrier can reach it: receipts and STOP are lost", mend)
    if not url.startswith("https://"):
        return warn(f"{said}, unencrypted", "Use https: links and webhooks hold tokens and phone numbers.")
    return ok(f"{said}, and its certificate is good")


async def _call(
    patient: Patient, method: str, url: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, Any]]:
    """Status, headers and the JSON document, if it is one, of an answer. Follows no redirect, as the carrier does."""
    more: dict[str, Any] = {}
    if form is not None:
        more["data"] = urlencode(form).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | (headers or {})
    async with patient.http.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
        text = await answer.content.read(ANSWER_MAX_BYTES)
    return answer.status, answer.headers, _document(text)


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
