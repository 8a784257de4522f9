"""Is the database there, is it the right kind, and do its walls stand?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg

from cartwake.doctor import store
from cartwake.doctor.model import Finding, Patient, bad, ok, warn
from cartwake.kit.clock import SystemClock
from cartwake.kit.db import LOGINS, rows
from cartwake.kit.schema import NO_ENTRY, current_revision, expected_revision, is_older
from cartwake.kit.schema_parts import PARTS, READ_KEPT, WALL, some

OLDEST_MAJOR = 15

# No call to the carrier starts more than 30 s after its transaction: a clock further off than that breaks promises.
SKEW_WARN, SKEW_FAIL = timedelta(seconds=2), timedelta(seconds=30)


async def look_at_database(patient: Patient) -> Finding:
    """It answers."""
    if patient.url is None:
        return bad(*_first_line_and_rest(patient.no_url))
    try:
        server = await _ask(patient, store.SERVER)
    except psycopg.OperationalError as error:
        if "authentication failed" in str(error):
            return bad(f"the database lets nobody of ours in: {said_by_libpq(error)}", NO_ENTRY)
        return bad(
            f"the database cannot be reached: {said_by_libpq(error)}",
            "Start it, or correct CARTWAKE_DATABASE_URL (or _FILE).",
        )
    embedded = "embedded, " if patient.is_embedded else ""
    return ok(f"PostgreSQL {server['version'].split()[0]}, {embedded}database {server['database']} at {_where(server)}")


async def look_at_version(patient: Patient) -> Finding:
    """New enough."""
    server = await _ask(patient, store.SERVER)
    major = server["version_num"] // 10_000
    if major < OLDEST_MAJOR:
        return bad(f"PostgreSQL {major} is too old", f"Upgrade the server to PostgreSQL {OLDEST_MAJOR} or newer.")
    return ok(f"PostgreSQL {major} is new enough (at least {OLDEST_MAJOR})")


async def look_at_encoding(patient: Patient) -> Finding:
    """Texts in seven languages need UTF-8."""
    server = await _ask(patient, store.SERVER)
    if server["encoding"] != "UTF8":
        mend = "Make a new one with ENCODING 'UTF8' TEMPLATE template0, and restore a dump of this one there."
        return bad(f"the database's encoding is {server['encoding']}", mend)
    return ok("the database's encoding is UTF8")


async def look_at_owner(patient: Patient) -> Finding:
    """The configured login can migrate. Serving does not need it, so an address without a password is fine."""
    try:
        async with patient.as_configured() as conn:
            (own,) = await rows(conn, store.OWN_RIGHTS)
    except psycopg.OperationalError as error:
        if patient.url and not psycopg.conninfo.conninfo_to_dict(patient.url).get("password"):
            return ok("the address holds no owner's password; only `cartwake migrate` needs one")
        return warn(
            f"the login of CARTWAKE_DATABASE_URL does not get in: {said_by_libpq(error)}",
            "Only `cartwake migrate` needs it: correct the password there, or leave it out of the address here.",
        )
    missing = [] if own["may_create_roles"] else ["create roles (ALTER ROLE … CREATEROLE)"]
    missing += [] if own["owns_database"] else ["own the database (ALTER DATABASE … OWNER TO …)"]
    if missing:
        mend = f"`cartwake migrate` needs that {own['login']} may {' and '.join(missing)}."
        return warn(f"the login {own['login']} cannot migrate", mend)
    return ok(f"{own['login']} owns the database and may create roles")


async def look_at_logins(patient: Patient) -> Finding:
    """Each of our logins gets in."""
    refused = []
    for login in LOGINS:
        try:
            async with patient.as_login(login):
                pass
        except psycopg.OperationalError as error:
            refused.append(f"{login} ({said_by_libpq(error)})")
    if refused:
        return bad(f"cannot log in: {'; '.join(refused)}", NO_ENTRY)
    return ok(f"{', '.join(LOGINS)} log in")


async def look_at_rights(patient: Patient) -> Finding:
    """None of our logins has anything that it does not need."""
    async with patient.as_anybody() as conn:
        found = await rows(conn, store.TOO_MUCH, [list(LOGINS)])
    too_much = [f"{each['login']} is {', '.join(each['rights'])}" for each in found if each["rights"]]
    if too_much:
        return bad(
            f"logins have too much: {'; '.join(too_much)}",
            "Take it away (ALTER ROLE … NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB; REVOKE …).",
        )
    return ok("none of our logins has more than it needs")


async def look_at_walls(patient: Patient) -> Finding:
    """Row-level security is forced on every tenant table."""
    async with patient.as_anybody() as conn:
        tables = await rows(conn, store.TENANT_TABLES)
    open_tables = [each["name"] for each in tables if not each["walled"]]
    if open_tables:
        return bad(
            f"row-level security is not forced on {', '.join(open_tables)}",
            "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; and find out who took it off.",
        )
    return ok(f"row-level security is forced on all {len(tables)} tenant tables")


async def look_at_migrations(patient: Patient) -> Finding:
    """The schema is this version's."""
    expected = expected_revision()
    try:
        async with patient.as_anybody() as conn:
            found = await current_revision(conn)
    except psycopg.errors.UndefinedTable:
        found = None
    if found == expected:
        return ok(f"the schema is at revision {found}, as this version expects")
    if found is None:
        return bad("the database has no schema of Cartwake's yet", "Run: cartwake migrate")
    if is_older(found):
        return bad(f"the schema is at revision {found}, and this version expects {expected}", "Run: cartwake migrate")
    return warn(
        f"the schema is at revision {found}, which this version ({expected}) does not know",
        "Fine while an upgrade rolls; otherwise install the newer version here too.",
    )


async def look_at_schema(patient: Patient) -> Finding:
    """All of what the last migration left is there. Walls have a check of their own."""
    async with patient.as_anybody() as conn:
        kept = await rows(conn, READ_KEPT)
        there = {found["part"] for found in await rows(conn, PARTS)}
    parts = [part for part in kept[0]["parts"] if not part.startswith(WALL)] if kept else []
    if missing := [part for part in parts if part not in there]:
        mend = "A restore was broken off, or somebody removed it: restore again, or put back what is missing."
        return bad(f"the schema is not whole: it lacks {some(missing)}", mend)
    return ok(f"all {len(parts)} parts of the schema are there")


async def look_at_database_clock(patient: Patient) -> Finding:
    """This machine's clock against the server's."""
    clock = SystemClock()
    async with patient.as_anybody() as conn:
        await conn.execute("SELECT")  # so that only the question is measured, not the connecting
        before = clock.now()
        (found,) = await rows(conn, store.SERVER_TIME)
        after = clock.now()
    return skew_finding("the database server", found["at"], before, after)


def skew_finding(
    whose: str, theirs: datetime, before: datetime, after: datetime, resolution: timedelta = timedelta()
) -> Finding:
    """A judgement of their clock, read somewhere between two readings of ours; only what is certain counts."""
    behind, ahead = before - theirs - resolution, theirs - after
    off = max(behind, ahead, timedelta())
    if off < SKEW_WARN:
        return ok(f"the clocks of this machine and {whose} agree within {SKEW_WARN.seconds} s")
    direction = "ahead of" if ahead > behind else "behind"
    said = f"the clock of {whose} is {off.total_seconds():.0f} s {direction} this machine's"
    mend = "Let both keep time by NTP (`timedatectl`, chrony): quiet hours and limits are kept by the machine's clock."
    return bad(said, mend) if off > SKEW_FAIL else warn(said, mend)


async def _ask(patient: Patient, query: str) -> dict[str, Any]:
    async with patient.as_anybody() as conn:
        return (await rows(conn, query))[0]


def _where(server: dict[str, Any]) -> str:
    return f"{server['host']}:{server['port']}" if server["port"] else str(server["host"])


def said_by_libpq(error: Exception) -> str:
    """The last clause of libpq's message, which says what matters."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line.removeprefix("connection failed: ").rpartition("FATAL: ")[2].strip()


def _first_line_and_rest(text: str) -> tuple[str, str]:
    first, _, rest = text.partition("\n")
    return first, rest or "Set CARTWAKE_DATABASE_URL to a server of your own, or mend what it says."
