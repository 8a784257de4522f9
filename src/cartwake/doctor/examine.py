"""Run every check, each whatever became of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import aiohttp
import psycopg

from cartwake.carriers.open import open_examinable
from cartwake.doctor.checks import CHECKS
from cartwake.doctor.database import said_by_libpq
from cartwake.doctor.model import Check, Finding, Patient, Verdict, bad, skipped
from cartwake.kit.clock import open_clock
from cartwake.kit.config import ConfigError, Settings, load_settings
from cartwake.kit.embedded import EmbeddedPostgresError, embedded_postgres, has_cluster, home_of, no_database
from cartwake.kit.logs import configure_logs
from cartwake.kit.loop import run
from cartwake.kit.runtime import vault_of

CHECK_TIMEOUT_S = 30.0
HTTP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Examined:
    """One check and what it found."""

    check: Check
    finding: Finding


def examine_here() -> list[Examined]:
    """Examine the deployment that the environment describes. Starts the embedded database if it has one."""
    try:
        settings = load_settings()
    except ConfigError as error:
        wrong = bad("; ".join(str(error).splitlines()), "Correct them; `cartwake config` lists what each takes.")
        return [Examined(CHECKS[0], wrong)] + [
            Examined(check, skipped("the settings cannot be read")) for check in CHECKS[1:]
        ]
    configure_logs(settings)
    with _database(settings) as (url, no_url):
        return run(examine(settings, url, no_url))


async def examine(settings: Settings, url: str | None, no_url: str = "") -> list[Examined]:
    """What every check finds. `url` is the database's; None with the reason where there is none."""
    carrier = open_examinable(settings)
    timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
    # A connection for each call: one that a proxy has just closed would look like a failure.
    connector = aiohttp.TCPConnector(force_close=True)
    try:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            patient = Patient(
                settings,
                open_clock(settings.clock),
                vault_of(settings),
                carrier,
                http,
                url,
                no_url,
                is_embedded=settings.database_url is None,
            )
            examined: list[Examined] = []
            for check in CHECKS:
                examined.append(Examined(check, await _look(check, patient, examined)))
            return examined
    finally:
        await carrier.close()


async def _look(check: Check, patient: Patient, before: list[Examined]) -> Finding:
    lame = [each.check.name for each in before if each.finding.verdict in (Verdict.FAIL, Verdict.SKIPPED)]
    if needed := [name for name in check.needs if name in lame]:
        return skipped(f"needs {' and '.join(needed)}")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check.look(patient)
    except TimeoutError:
        return bad(f"no answer within {CHECK_TIMEOUT_S:.0f} s", "Look at what is slow there, and run this again.")
    except psycopg.OperationalError as error:
        return bad(f"the database cannot be asked: {said_by_libpq(error)}", "Mend the database first; run this again.")
    except psycopg.Error as error:
        return bad(f"the database refused to tell: {type(error).__name__}", "Mend what stands above; run this again.")
    except Exception as error:  # one check that fails must not hide the rest
        return bad(f"this check failed itself: {type(error).__name__}", "Please report it as a defect of the doctor.")


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str | None, str]]:
    """The database's address; or None and why there is none. Makes none where there is none."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value(), ""
        return
    home = home_of(settings)
    if not has_cluster(home):
        yield None, no_database(home)
        return
    with ExitStack() as stack:
        url, reason = None, ""
        try:
            url = stack.enter_context(embedded_postgres(home)).url
        except EmbeddedPostgresError as error:
            reason = str(error)
        yield url, reason
