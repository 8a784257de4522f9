"""Does the carrier know us, does it tell the same time, and are our senders its numbers?"""

from __future__ import annotations

import re
from datetime import timedelta

from cartwake.carriers.protocol import CarrierError, Trouble
from cartwake.carriers.webhooks import INBOUND_PATH
from cartwake.doctor.database import skew_finding
from cartwake.doctor.model import Finding, Patient, bad, ok, skipped, warn
from cartwake.kit.clock import SystemClock
from cartwake.kit.db import OPERATOR
from cartwake.numbers.senders import numbers_in_use

SHOWN_MAX = 5
SANDBOX_KIND, TRIAL_KIND = "Sandbox", "Trial"

ADVICE = {
    Trouble.UNREACHABLE: "Correct CARTWAKE_TWILIO_API_BASE, or let this machine reach it (firewall, proxy, DNS).",
    Trouble.CERTIFICATE: "Correct CARTWAKE_TWILIO_API_BASE; a proxy that reads TLS needs its authority trusted here.",
    Trouble.TIMEOUT: "Look at the network in between; CARTWAKE_TWILIO_TIMEOUT_S says how long a call may take.",
    Trouble.CREDENTIALS: "Copy CARTWAKE_TWILIO_ACCOUNT_SID and CARTWAKE_TWILIO_AUTH_TOKEN from the carrier's console.",
    Trouble.NO_ACCOUNT: "Correct CARTWAKE_TWILIO_ACCOUNT_SID: the carrier has no such account.",
    Trouble.REFUSED: "Look at the carrier's status page, and at whether CARTWAKE_TWILIO_API_BASE is its API.",
}


async def look_at_carrier(patient: Patient) -> Finding:
    """An authenticated question that changes nothing: who are we to you?"""
    base, sid = patient.settings.twilio_api_base, patient.settings.twilio_account_sid
    try:
        account = await patient.carrier.account()
    except CarrierError as error:
        if error.trouble is Trouble.CREDENTIALS:
            wrong_form = not re.fullmatch(r"AC[0-9a-f]{32}", sid)
            hint = f" ({sid[:2]}… is not how an account SID looks: AC and 32 hexadecimal digits)" if wrong_form else ""
            return bad(f"{base} does not know this account SID and auth token together{hint}", ADVICE[error.trouble])
        return bad(f"{base} cannot be asked: {error}", ADVICE[error.trouble])
    if account.status != "active":
        return bad(f"the account at {base} is {account.status}", "Settle that with the carrier; it sends nothing now.")
    if account.kind == TRIAL_KIND:
        return warn(f"{base} knows us, on a trial account", "Upgrade it: a trial account texts verified numbers only.")
    if account.kind == SANDBOX_KIND:
        return ok(f"{base} knows us; it is the sandbox, which texts nobody")
    return ok(f"{base} knows us, and the account is active")


async def is_the_sandbox(patient: Patient) -> bool:
    """Whether the carrier texts nobody; one that does not answer is taken for a real one."""
    try:
        return (await patient.carrier.account()).kind == SANDBOX_KIND
    except CarrierError:
        return False


async def look_at_carrier_clock(patient: Patient) -> Finding:
    """This machine's clock against the carrier's, as far as its answers tell."""
    clock = SystemClock()
    before = clock.now()
    account = await patient.carrier.account()
    after = clock.now()
    if account.answered_at is None:
        return skipped("the carrier's answers hold no time")
    return skew_finding("the carrier", account.answered_at, before, after, resolution=timedelta(seconds=1))


async def look_at_senders(patient: Patient) -> Finding:
    """Each number that a shop texts from is the account's, and what is texted to it comes to us."""
    async with patient.as_login(OPERATOR) as conn:
        senders = await numbers_in_use(conn)
    if not senders:
        return ok("no shop has a number yet; add one with `cartwake number add`")
    account = await patient.carrier.account()
    owned = {number.address: number.inbound_url for number in await patient.carrier.owned_numbers()}
    missing = [address for address in senders if address not in owned]
    if missing:
        said = f"not numbers of the account: {_some(missing)} ({len(missing)} of {len(senders)} senders)"
        mend = "Buy or move them to this account; the carrier refuses texts from others (error 21606)."
        if account.kind == SANDBOX_KIND:
            return warn(f"{said}; the sandbox does not mind, a carrier does", mend)
        return bad(said, mend)
    ours = patient.settings.public_url + INBOUND_PATH
    deaf = [address for address in senders if owned[address] != ours]
    if deaf:
        mend = f"Set the incoming-message webhook (POST) of each to {ours}, or no STOP is heard."
        said = f"replies do not come here from {_some(deaf)} ({len(deaf)} of {len(senders)} senders)"
        return bad(said, mend)
    return ok(f"all senders in use ({len(senders)}) are the account's, and replies to them come here")


def _some(addresses: list[str]) -> str:
    more = len(addresses) - SHOWN_MAX
    return ", ".join(addresses[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
