"""`cartwake doctor`: each thing that can be wrong is found, named, and hides nothing else; and nothing is changed."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import os
import re
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import aiohttp
import httpx
import psycopg
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cartwake import __version__
from cartwake.carriers.open import INBOUND_PATH
from cartwake.doctor.checks import CHECKS
from cartwake.doctor.database import skew_finding
from cartwake.doctor.model import Verdict
from cartwake.jobs.beats import beat
from cartwake.kit.clock import VirtualClock
from cartwake.kit.db import ENGINE, WEB
from cartwake.messages.inbox import store_events
from cartwake.scheduler import run_due
from cartwake.worker import claim_rounds, living, open_webhook_client, tell
from conftest import TUESDAY_MORNING, database_url
from deployment import Deployment, leave_cart
from ports import free_port
from receiver import receiving
from typed import Cartwake
from world import RUTA, TICKED

Found = dict[str, tuple[str, str, str]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Change = Callable[[str, dict[str, str], bytes], tuple[str, dict[str, str], bytes]]

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname"


class Doctor:
    """The doctor, called to a deployment in a test."""

    def __init__(self, deployment: Deployment, cartwake: Cartwake, folder: Path) -> None:
        self.deployment, self._cartwake, self._folder = deployment, cartwake, folder
        self.status = -1

    async def examine(self, later: timedelta = timedelta(), /, **environ: str) -> Found:
        """What each check found: verdict, sentence, advice. `later`: by a clock that is ahead of the story's."""
        VirtualClock.create(self._folder / "clock", self.deployment.clock.now() + later, 0.0)
        settings = self.deployment.runtime.settings
        here = {
            "database_url": self.deployment.database_url,
            "public_url": settings.public_url,
            "twilio_api_base": settings.twilio_api_base,
            "clock": f"virtual:{self._folder / 'clock'}",
            "data_dir": str(self._folder / "home"),
        }
        said = await asyncio.to_thread(self._cartwake, "doctor", "--json", **(here | environ))
        self.status = said.status
        told = json.loads(said.out)
        assert [each["check"] for each in told["checks"]] == [check.name for check in CHECKS]
        assert self.status == (1 if told["verdict"] == "fail" else 0)
        for each in told["checks"]:
            assert bool(each["mend"]) == (each["verdict"] in ("warn", "fail")), "what is wrong comes with advice"
        return {each["check"]: (each["verdict"], each["said"], each["mend"]) for each in told["checks"]}

    def owner(self, query: str) -> list[tuple[object, ...]]:
        """Somebody with the owner's password does something."""
        with psycopg.connect(self.deployment.database_url, autocommit=True) as conn:
            cursor = conn.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def everything(self) -> dict[str, list[tuple[object, ...]]]:
        """Every row of every table, as text."""
        return {
            str(name): self.owner(f"SELECT t::text FROM {name} t ORDER BY t::text") for (name,) in self.owner(TABLES)
        }


async def a_worker_lives(deployment: Deployment, version: str = __version__) -> None:
    async with deployment.runtime.db.transaction(ENGINE) as conn:
        await beat(conn, deployment.clock.now(), uuid4(), version)


async def tell_all(deployment: Deployment) -> None:
    """What a worker tells shops' servers until nothing is due."""
    client = open_webhook_client(deployment.runtime)
    while rounds := await claim_rounds(deployment.runtime, 64):
        await asyncio.gather(*(tell(deployment.runtime, client, each) for each in rounds))
    await client.close()


@pytest.fixture
async def doctor(deployment: Deployment, cartwake: Cartwake, tmp_path: Path) -> Doctor:
    await run_due(deployment.runtime, deployment.carrier)
    await a_worker_lives(deployment)
    return Doctor(deployment, cartwake, tmp_path)


def wrong(found: Found) -> set[str]:
    """The checks that failed."""
    return {name for name, (verdict, _, _) in found.items() if verdict == "fail"}


async def test_a_deployment_that_is_well_is_told_so_and_nothing_is_changed(doctor: Doctor) -> None:
    await doctor.deployment.shop()
    before = doctor.everything()
    found = await doctor.examine()
    assert doctor.everything() == before
    assert doctor.status == 0
    assert {name for name, (verdict, _, _) in found.items() if verdict == "warn"} == {"secrets", "senders"}
    assert {name for name, (verdict, _, _) in found.items() if verdict == "skip"} == {"disk"}, "it is not ours"


async def test_the_page_shows_this_version_s_figures(doctor: Doctor) -> None:
    """The transcripts themselves are made, and compared, by the slow `test_doctor_transcript.py`."""
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    found = await doctor.examine()
    for check in ("migrations", "schema", "tenant walls", "periodic tasks"):
        assert page.count(found[check][1]) >= 1, found[check][1]
    assert page.count(f"\n{len(CHECKS)} checks: ") == 2
    table = page.partition("## What each check looks at")[2]
    explained = {name for row in re.findall(r"^\| ([a-z, ]+) \|", table, re.M) for name in row.split(", ")}
    assert explained - {"check"} == {check.name for check in CHECKS}


async def test_a_wrong_setting_is_told_and_the_rest_is_skipped(doctor: Doctor) -> None:
    found = await doctor.examine(port="http", log_level="loud")
    verdict, said, _ = found.pop("settings")
    assert verdict == "fail" and "CARTWAKE_PORT: " in said and "CARTWAKE_LOG_LEVEL: " in said
    assert set(found.values()) == {("skip", "skipped: the settings cannot be read", "")}
    misspelt = await doctor.examine(prot="8080")
    assert misspelt["settings"][0] == "warn" and "did you mean CARTWAKE_PORT?" in misspelt["settings"][1]


async def test_public_secrets_of_a_deployment_that_others_reach_are_a_failure(doctor: Doctor) -> None:
    found = await doctor.examine(public_url="https://no-such-host.invalid")
    assert found["secrets"][0] == "fail" and "CARTWAKE_SECRET_KEYS, CARTWAKE_TWILIO_AUTH_TOKEN" in found["secrets"][1]


# --- the carrier -------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers everything so; its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def nginx(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="Welcome to nginx!", content_type="text/html")


async def silence(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


def an_account(status: str, kind: str) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"sid": "AC" + "0" * 32, "status": status, "type": kind})

    return answer


WRONG: list[tuple[dict[str, str], str]] = [
    ({"twilio_auth_token": "mistyped"}, "does not know this account SID and auth token together"),
    ({"twilio_account_sid": "AC" + "1" * 32}, "does not know this account SID and auth token together"),
    ({"twilio_account_sid": "SK" + "1" * 32}, "(SK… is not how an account SID looks"),
    ({"twilio_api_base": "CLOSED"}, "the connection failed: Connection refused"),
    ({"twilio_api_base": "http://no-such-host.invalid"}, "no such host is known"),
    ({"twilio_api_base": "NGINX"}, "its answer is not one of the carrier's API"),
    ({"twilio_api_base": "SILENCE", "twilio_timeout_s": "0.1"}, "it did not answer in time"),
    ({"twilio_api_base": "OURS"}, "it answered HTTP 404"),
    ({"twilio_api_base": "GONE"}, "it knows no such account"),
]


@pytest.mark.thorough
async def test_what_keeps_the_carrier_from_knowing_us_is_told_apart(doctor: Doctor) -> None:
    async def gone(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"code": 20404, "message": "not found", "status": 404}, status=404)

    async with answering(nginx) as welcome, answering(silence) as silent, answering(gone) as nobody:
        servers = {"NGINX": welcome, "SILENCE": silent, "GONE": nobody, "CLOSED": f"http://127.0.0.1:{free_port()}"}
        servers["OURS"] = doctor.deployment.runtime.settings.public_url
        for environ, said in WRONG:
            found = await doctor.examine(**{name: servers.get(value, value) for name, value in environ.items()})
            assert found["carrier"][0] == "fail" and said in found["carrier"][1]
            assert found["carrier clock"][:2] == ("skip", "skipped: needs carrier")
            assert found["senders"][0] == "skip"
            assert "mistyped" not in str(found)


@pytest.mark.thorough
async def test_an_account_that_cannot_text_is_noticed(doctor: Doctor) -> None:
    for status, kind, verdict, said in (
        ("suspended", "Full", "fail", "is suspended"),
        ("active", "Trial", "warn", "on a trial account"),
        ("active", "Full", "ok", "the account is active"),
    ):
        async with answering(an_account(status, kind)) as carrier:
            found = await doctor.examine(twilio_api_base=carrier)
        assert found["carrier"][0] == verdict and said in found["carrier"][1]


@pytest.mark.thorough
async def test_senders_are_the_account_s_and_their_replies_come_to_us(doctor: Doctor) -> None:
    await doctor.deployment.shop(sender="+37061000001")
    found = await doctor.examine()
    assert found["senders"][0] == "warn", "the sandbox does not mind"
    assert "not numbers of the account: +37061000001 (1 of 1 senders)" in found["senders"][1]

    http, settings = doctor.deployment.http, doctor.deployment.runtime.settings
    api = f"{doctor.deployment.sandbox.url}/2010-04-01/Accounts/{settings.twilio_account_sid}/IncomingPhoneNumbers"
    auth = httpx.BasicAuth(settings.twilio_account_sid, settings.twilio_auth_token.get_secret_value())
    form = {"PhoneNumber": "+37061000001", "AddressSid": "AD1", "SmsUrl": "https://elsewhere.example/sms"}
    bought = (await http.post(f"{api}.json", data=form, auth=auth)).json()
    found = await doctor.examine()
    assert found["senders"][:2] == ("fail", "replies do not come here from +37061000001 (1 of 1 senders)")

    ours = {"SmsUrl": settings.public_url + "/hooks/twilio/inbound"}
    assert (await http.post(f"{api}/{bought['sid']}.json", data=ours, auth=auth)).status_code == 200
    found = await doctor.examine()
    assert found["senders"][:2] == ("ok", "all senders in use (1) are the account's, and replies to them come here")


# --- the public address ------------------------------------------------------------------------------------


def proxy(doctor: Doctor, change: Change = lambda path, headers, body: (path, headers, body)) -> Answer:
    """A proxy before our web that changes what passes."""
    ours = doctor.deployment.runtime.settings.public_url

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        path, headers, body = change(request.path_qs, headers, await request.read())
        async with (
            aiohttp.ClientSession() as http,
            http.request(request.method, ours + path, headers=headers, data=body, allow_redirects=False) as theirs,
        ):
            return web.Response(status=theirs.status, body=await theirs.read(), content_type=theirs.content_type)

    return answer


CHANGES: dict[str, Change] = {
    "nothing": lambda path, headers, body: (path, headers, body),
    "host": lambda path, headers, body: (path, headers | {"Host": "inside.local"}, body),
    "query": lambda path, headers, body: (path.partition("?")[0], headers, body),
    "body": lambda path, headers, body: (path, headers, body + b"&x=1" if body else body),
    "signature": lambda path, headers, body: (path, headers | {"X-Twilio-Signature": ""}, body),
}


@pytest.mark.thorough
async def test_a_proxy_that_changes_what_the_carrier_signed_is_noticed(doctor: Doctor) -> None:
    runtime = doctor.deployment.runtime
    before = runtime.settings
    for name, change in CHANGES.items():
        async with answering(proxy(doctor, change)) as address:
            told = before.model_copy(update={"public_url": address})  # as every process must be
            object.__setattr__(runtime, "settings", told)
            found = await doctor.examine()
            object.__setattr__(runtime, "settings", before)
        assert found["public address"][0] == "ok"
        if name in ("nothing", "host"):
            assert found["webhooks"][0] == "ok", "the address that was signed is the public one, whatever reaches us"
        else:
            assert wrong(found) == {"webhooks"}, name
            assert "is refused: receipts and STOP are lost" in found["webhooks"][1]


@pytest.mark.thorough
async def test_a_web_process_with_another_address_is_noticed(doctor: Doctor) -> None:
    async with answering(proxy(doctor)) as address:
        found = await doctor.examine(public_url=address)
    assert wrong(found) == {"webhooks"} and "the same CARTWAKE_PUBLIC_URL" in found["webhooks"][2]


@pytest.mark.thorough
async def test_whoever_answers_webhooks_in_our_place_is_noticed(doctor: Doctor) -> None:
    passes = proxy(doctor)
    for status, said in (
        (403, "answered with HTTP 403 before Cartwake sees it"),
        (413, "answered with HTTP 413 before Cartwake sees it"),
        (200, "a webhook with a wrong signature was accepted"),
    ):

        async def answer(request: web.Request, status: int = status) -> web.StreamResponse:
            hook = request.path.startswith("/hooks")
            return web.Response(status=status, text="<h1>Blocked</h1>") if hook else await passes(request)

        async with answering(answer) as address:
            found = await doctor.examine(public_url=address)
        assert wrong(found) == {"webhooks"} and said in found["webhooks"][1]


@pytest.mark.thorough
async def test_an_address_that_does_not_lead_to_us_is_told_apart(doctor: Doctor) -> None:
    async def moved(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMovedPermanently(f"https://sms.example.com{request.path}")

    async def stranger(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok", "deployment": "AAAAAAAAAAAA"})

    async with answering(nginx) as welcome, answering(moved) as old, answering(stranger) as other:
        for address, said in {
            f"http://127.0.0.1:{free_port()}": "cannot be reached from here: the connection failed: Connection refused",
            "https://no-such-host.invalid": "cannot be reached from here: no such host is known",
            welcome: "something else answers",
            old: "redirects to https://sms.example.com/healthz",
            other: "another deployment answers",
            welcome.replace("http:", "https:"): "it does not speak TLS on this port",
        }.items():
            found = await doctor.examine(public_url=address)
            assert found["public address"][0] == "fail" and said in found["public address"][1]
            assert found["webhooks"][:2] == ("skip", "skipped: needs public address")


@pytest.mark.thorough
async def test_a_public_address_that_no_carrier_can_reach_is_noticed(doctor: Doctor) -> None:
    async with answering(an_account("active", "Full")) as carrier:
        # Not an address of this machine alone, as far as names tell.
        found = await doctor.examine(twilio_api_base=carrier.replace("127.0.0.1", "0.0.0.0"))
    assert found["public address"][0] == "fail" and "no carrier can reach it" in found["public address"][1]
    async with answering(an_account("active", "Sandbox")) as sandbox:
        found = await doctor.examine(twilio_api_base=sandbox.replace("127.0.0.1", "0.0.0.0"))
    assert (found["public address"][0], found["carrier"][0]) == ("warn", "ok"), found["carrier"]
    assert "shares that address" in found["public address"][1]


class Certificate(NamedTuple):
    """One that signed itself, valid from a month ago."""

    file: Path
    tls: ssl.SSLContext


def certificate(folder: Path, host: str, *, valid_days: int) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    start = dt.datetime.now(UTC) - timedelta(days=30)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(start).not_valid_after(start + timedelta(days=valid_days))
    signed = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = folder / f"{host}-{valid_days}.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(pem))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    return Certificate(file, tls)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "valid_days", "trusted", "said"),
    [
        ("127.0.0.1", 60, False, "self-signed certificate (use one that a public authority has signed)"),
        ("127.0.0.1", 1, True, "certificate has expired (renew it)"),
        ("192.0.2.1", 60, True, "(use one that is made out to this host name)"),
    ],
)
async def test_a_bad_certificate_is_explained(
    tmp_path: Path, host: str, valid_days: int, trusted: bool, said: str
) -> None:
    made = certificate(tmp_path, host, valid_days=valid_days)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    environ |= {"SSL_CERT_FILE": str(made.file)} if trusted else {}
    async with answering(nginx, made.tls) as address:
        environ |= {"CARTWAKE_PUBLIC_URL": address, "CARTWAKE_DATA_DIR": str(tmp_path / "home")}
        environ |= {"CARTWAKE_TWILIO_API_BASE": address}
        # A process of its own: which authorities are trusted is read once.
        command = [sys.executable, "-m", "cartwake", "doctor", "--json"]
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
    found = {each["check"]: each for each in json.loads(out)["checks"]}
    for name in ("public address", "carrier"):
        assert said in found[name]["said"]
    assert "where TLS ends" in found["public address"]["mend"]


# --- the database ------------------------------------------------------------------------------------------


async def test_a_database_that_is_away_hides_nothing_else(doctor: Doctor) -> None:
    found = await doctor.examine(database_url=f"postgresql://u:hunter2@127.0.0.1:{free_port()}/cartwake")
    assert wrong(found) == {"database"} and "hunter2" not in str(found)
    assert found["migrations"][:2] == ("skip", "skipped: needs database")
    assert found["periodic tasks"][:2] == ("skip", "skipped: needs logins and migrations")
    assert found["webhooks"][0] == found["carrier clock"][0] == "ok"


async def test_where_there_is_no_database_the_doctor_makes_none(cartwake: Cartwake, tmp_path: Path) -> None:
    said = await asyncio.to_thread(cartwake, "doctor", data_dir=str(tmp_path / "nowhere"))
    assert said.status == 1
    assert "FAIL  database        There is no database here yet" in said.out
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.thorough
async def test_an_address_without_the_owner_s_password_is_fine_and_a_wrong_one_is_told(doctor: Doctor) -> None:
    without = psycopg.conninfo.make_conninfo(doctor.deployment.database_url, user="nobody", password=None)
    found = await doctor.examine(database_url=without.replace("password=''", ""))
    assert wrong(found) == set()
    mistyped = psycopg.conninfo.make_conninfo(doctor.deployment.database_url, password="mistyped")
    found = await doctor.examine(database_url=mistyped)
    assert found["owner"][0] == "warn" and "password authentication failed" in found["owner"][1]
    assert "mistyped" not in str(found)


@pytest.mark.thorough
async def test_other_secret_keys_are_not_a_database_that_is_away(doctor: Doctor) -> None:
    without = psycopg.conninfo.make_conninfo(doctor.deployment.database_url, user="nobody", password=None)
    without = without.replace("password=''", "")
    verdict, said, mend = (await doctor.examine(database_url=without, secret_keys="x" * 32))["database"]
    assert verdict == "fail" and said.startswith("the database lets nobody of ours in: password authentication failed")
    assert "CARTWAKE_SECRET_KEYS is not what this database was set up with" in mend
    # The owner gets in all the same, so there the logins say it.
    found = await doctor.examine(secret_keys="x" * 32)
    assert found["database"][0] == "ok" and "CARTWAKE_SECRET_KEYS" in found["logins"][2]


@pytest.mark.thorough
async def test_a_database_of_the_wrong_kind_is_noticed(doctor: Doctor, server_url: str) -> None:
    name = f"{psycopg.conninfo.conninfo_to_dict(doctor.deployment.database_url)['dbname']}_latin"
    with psycopg.connect(server_url, autocommit=True) as conn:
        latin = "ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        conn.execute(f"CREATE DATABASE {name} {latin}".encode())
        try:
            found = await doctor.examine(database_url=database_url(server_url, name))
        finally:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    assert found["encoding"][:2] == ("fail", "the database's encoding is LATIN1")
    assert found["migrations"][:2] == ("fail", "the database has no schema of Cartwake's yet")
    assert found["version"][0] == "ok"


async def test_a_wall_that_was_taken_down_is_noticed(doctor: Doctor) -> None:
    doctor.owner("ALTER TABLE shops NO FORCE ROW LEVEL SECURITY; ALTER TABLE senders DISABLE ROW LEVEL SECURITY")
    found = await doctor.examine()
    assert wrong(found) == {"tenant walls"}
    assert found["tenant walls"][1] == "row-level security is not forced on senders, shops"


@pytest.mark.thorough
async def test_a_schema_that_is_not_ours_is_noticed(doctor: Doctor) -> None:
    doctor.owner("UPDATE alembic_version SET version_num = '9999'")
    found = await doctor.examine()
    assert found["migrations"][0] == "warn" and "9999" in found["migrations"][1]
    assert found["periodic tasks"][0] == "ok"
    doctor.owner("DELETE FROM alembic_version")
    assert (await doctor.examine())["migrations"][1] == "the database has no schema of Cartwake's yet"


@pytest.mark.parametrize(
    ("off_s", "verdict", "said"),
    [
        (0, Verdict.OK, "agree within 2 s"),
        (2.4, Verdict.OK, "agree within 2 s"),  # two, and half of the second that the question took
        (-3.4, Verdict.OK, "agree within 2 s"),  # and the second that an answer in whole seconds may hide
        (3.5, Verdict.WARN, "is 3 s ahead of this machine's"),
        (-4.5, Verdict.WARN, "is 3 s behind this machine's"),
        (89.5, Verdict.FAIL, "is 89 s ahead of this machine's"),
        (-3600.5, Verdict.FAIL, "is 3599 s behind this machine's"),
    ],
)
def test_a_clock_is_off_by_what_the_question_itself_cannot_explain(off_s: float, verdict: Verdict, said: str) -> None:
    before, after = TUESDAY_MORNING - timedelta(seconds=0.5), TUESDAY_MORNING + timedelta(seconds=0.5)
    theirs = TUESDAY_MORNING + timedelta(seconds=off_s)
    finding = skew_finding("the carrier", theirs, before, after, resolution=timedelta(seconds=1))
    assert finding.verdict is verdict and said in finding.said


# --- the work ----------------------------------------------------------------------------------------------


@pytest.mark.thorough
async def test_a_scheduler_that_is_gone_is_noticed(doctor: Doctor) -> None:
    later = timedelta(hours=2)
    found = await doctor.examine(later)
    assert wrong(found) == {"periodic tasks", "workers"}
    assert found["periodic tasks"][1] == f"no periodic task ran since {TUESDAY_MORNING:%Y-%m-%d %H:%M} UTC"
    doctor.owner("UPDATE periodic_tasks SET next_run_at = next_run_at + interval '3h' WHERE name <> 'invariants'")
    assert (await doctor.examine(later))["periodic tasks"][:2] == ("fail", "tasks are late: invariants")
    doctor.owner("UPDATE periodic_tasks SET leased_until = next_run_at + interval '3h' WHERE name = 'invariants'")
    assert (await doctor.examine(later))["periodic tasks"][0] == "ok", "it is being run"
    doctor.owner("UPDATE periodic_tasks SET last_error = 'OSError' WHERE name = 'stale_sweep'")
    found = await doctor.examine()
    assert found["periodic tasks"][0] == "warn" and "stale_sweep (OSError)" in found["periodic tasks"][1]
    doctor.owner("DELETE FROM periodic_tasks")
    assert (await doctor.examine())["periodic tasks"][1] == "no periodic task ran ever"


async def test_a_worker_that_is_gone_is_noticed(doctor: Doctor) -> None:
    assert (await doctor.examine())["workers"][:2] == ("ok", "workers at work: 1")
    found = await doctor.examine(timedelta(minutes=2))
    since = f"{TUESDAY_MORNING:%Y-%m-%d %H:%M} UTC"
    assert found["workers"][:2] == ("fail", f"no worker has been seen since {since}")
    assert "cartwake worker" in found["workers"][2]
    doctor.owner("DELETE FROM worker_beats")
    assert (await doctor.examine())["workers"][1] == "no worker has been seen at all"
    await a_worker_lives(doctor.deployment)
    await a_worker_lives(doctor.deployment, "0.0.9")
    found = await doctor.examine()
    assert found["workers"][:2] == ("warn", f"workers of another version run: 0.0.9; this is {__version__}")


@pytest.mark.thorough
async def test_a_worker_process_is_seen_until_it_ends(doctor: Doctor) -> None:
    doctor.owner("DELETE FROM worker_beats")
    async with living(doctor.deployment.runtime) as worker_id:
        async with asyncio.timeout(20):
            while not doctor.owner("SELECT worker_id FROM worker_beats"):
                await asyncio.sleep(0.01)
        assert doctor.owner("SELECT worker_id FROM worker_beats") == [(worker_id,)]
    assert doctor.owner("SELECT worker_id FROM worker_beats") == [], "it ended in good order"


@pytest.mark.thorough
async def test_workers_that_live_and_do_nothing_are_noticed(doctor: Doctor) -> None:
    deployment = doctor.deployment
    shop = await deployment.shop(sender="+37061000001")
    await leave_cart(shop)
    await deployment.jump(minutes=30)
    deployment.clock.advance(minutes=20)
    await a_worker_lives(deployment)
    verdict, said, _ = (await doctor.examine(timedelta(minutes=20)))["workers"]
    assert verdict == "fail" and said.startswith("no worker")  # the doctor's clock is its own
    doctor.owner("UPDATE worker_beats SET seen_at = seen_at + interval '1 hour'")
    verdict, said, mend = (await doctor.examine(timedelta(minutes=60)))["workers"]
    assert verdict == "fail" and said.startswith("texts have been due since") and "worker.loop_failed" in mend
    form = {"MessageSid": "SM" + "0" * 32, "From": RUTA, "To": "+37061000001", "Body": "STOP"}
    await deployment.world.carrier_posts(INBOUND_PATH, form)
    verdict, said, mend = (await doctor.examine(timedelta(minutes=60)))["workers"]
    assert verdict == "fail" and said.startswith("receipts and replies have waited since") and "STOP" in mend


@pytest.mark.thorough
async def test_an_event_that_could_not_be_applied_is_told(doctor: Doctor) -> None:
    deployment = doctor.deployment
    async with deployment.runtime.db.transaction(WEB) as conn:
        await store_events(conn, deployment.runtime.moment(), [("status", {"sid": "SM1", "status": "lost"})])
    assert (await doctor.examine())["carrier events"][0] == "ok", "it waits"
    await deployment.settle()
    verdict, said, mend = (await doctor.examine())["carrier events"]
    assert verdict == "fail" and said.startswith("receipts and replies that could not be applied: 1, since 2026-")
    assert "`cartwake events list`" in mend and "`cartwake events retry`" in mend


@pytest.mark.thorough
async def test_a_shop_s_server_that_refuses_for_hours_is_told_with_its_shop(doctor: Doctor) -> None:
    deployment = doctor.deployment
    async with receiving() as receiver:
        shop = await deployment.shop(sender="+37061000001")
        await shop.call("PUT", "/v1/reply-webhook", {"url": receiver.url})
        receiver.answers = [503, 500]
        await deployment.reply(RUTA, "where is my parcel?", "+37061000001")
        await tell_all(deployment)
        assert (await doctor.examine())["reply webhooks"][0] == "ok", "a server that restarts is no news"
        deployment.clock.advance(minutes=61)
        await tell_all(deployment)
        verdict, said, mend = (await doctor.examine(timedelta(minutes=62)))["reply webhooks"]
        since = f"{TUESDAY_MORNING:%Y-%m-%d %H:%M} UTC"
        assert (verdict, said) == ("warn", f"reply webhooks fail: shop {shop.shop_id} since {since} (HTTP 500)")
        assert "/v1/reply-webhook" in mend
        seen = await shop.call("GET", "/v1/reply-webhook")
        assert (seen["failing_since"], seen["failing_with"]) == ("2026-11-24T08:15:00Z", "HTTP 500")
        deployment.clock.advance(hours=3)
        await tell_all(deployment)
        assert receiver.told and (await shop.call("GET", "/v1/reply-webhook"))["failing_since"] is None
        assert (await doctor.examine(timedelta(hours=5)))["reply webhooks"][0] == "ok", "it has heard"


@pytest.mark.thorough
async def test_another_address_is_not_blamed_for_the_one_before(doctor: Doctor) -> None:
    deployment = doctor.deployment
    shop = await deployment.shop(sender="+37061000001")
    nowhere = f"http://127.0.0.1:{free_port()}/hook"
    await shop.call("PUT", "/v1/reply-webhook", {"url": nowhere})
    await deployment.reply(RUTA, "where is my parcel?", "+37061000001")
    await tell_all(deployment)
    assert (await shop.call("GET", "/v1/reply-webhook"))["failing_with"] == "unreachable"
    assert (await doctor.examine(timedelta(hours=2)))["reply webhooks"][0] == "warn"
    await shop.call("PUT", "/v1/reply-webhook", {"url": nowhere + "2"})
    assert (await doctor.examine(timedelta(hours=2)))["reply webhooks"][0] == "ok"


@pytest.mark.thorough
async def test_who_texts_without_credits_is_told(doctor: Doctor) -> None:
    poor = await doctor.deployment.shop("Knygos", credits=0)
    await doctor.deployment.shop("Lino Namai", credits=0, enabled=False)
    verdict, said, mend = (await doctor.examine())["credits"]
    assert verdict == "warn"
    assert said == f"organizations that text and have no credits: {poor.merchant.organization_id}"
    assert "`cartwake credits adjust`" in mend and "within an hour" in mend
    await poor.merchant.add_credits(1)
    assert (await doctor.examine())["credits"][0] == "ok"


@pytest.mark.thorough
async def test_a_reservation_that_nobody_settles_is_noticed(doctor: Doctor) -> None:
    shop = await doctor.deployment.shop()
    await leave_cart(shop)
    await doctor.deployment.faults(error_before_rate=1.0)
    await doctor.deployment.outlast_a_cart()
    assert [each["state"] for each in await doctor.deployment.messages(shop)] == ["unknown"]
    assert (await doctor.examine())["reservations"][0] == "ok"
    found = await doctor.examine(timedelta(hours=26))
    assert found["reservations"][:2] == ("fail", "reservations open for more than 25 hours: 1")


async def test_consent_that_nobody_chains_is_told(doctor: Doctor) -> None:
    shop = await doctor.deployment.shop()
    await shop.put_session(consent=TICKED)
    assert (await doctor.examine())["consent chain"][0] == "ok"
    verdict, said, mend = (await doctor.examine(timedelta(minutes=6)))["consent chain"]
    assert (verdict, said) == (
        "fail",
        f"consent events have waited for their chain since {TUESDAY_MORNING:%Y-%m-%d %H:%M} UTC",
    )
    assert "consent_sealing" in mend
    await doctor.deployment.jump(minutes=1)
    assert (await doctor.examine(timedelta(minutes=6)))["consent chain"][0] == "ok"


@pytest.mark.thorough
async def test_a_thrown_kill_switch_is_told(doctor: Doctor) -> None:
    shop = await doctor.deployment.shop()
    operator = doctor.deployment.world.operator
    await operator.call("PUT", f"/v1/organizations/{shop.merchant.organization_id}/shops/{shop.shop_id}/kill-switch")
    assert (await doctor.examine())["kill switches"][:2] == (
        "warn",
        "sending goes on, but not for all: paused shops: 1",
    )
    await operator.call("PUT", "/v1/kill-switch")
    found = await doctor.examine()
    assert found["kill switches"][1] == f"sending has been paused since {TUESDAY_MORNING:%Y-%m-%d %H:%M} UTC"
    assert doctor.status == 0


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.thorough
async def test_a_disk_that_is_nearly_full_is_noticed(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "data").mkdir(parents=True)
    for free, verdict in ((3 * 2**30, "ok"), (2**30, "warn"), (2**20, "fail")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(2**40, 2**40 - free, free))
        assert (await doctor.examine())["disk"][0] == verdict
