"""docs/doctor.md shows what `cartwake doctor` says: of a deployment that is well, and of the same one, broken.

Both really run here, with processes, keys and a database of their own. `REWRITE_DOCS=1 pytest` on this file
writes the page's transcripts anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import psycopg
import pytest

from cartwake.cluster import Cluster, engine_processes, port_of, sandbox_process, web_process
from cartwake.kit.embedded import embedded_postgres
from cartwake.kit.listen import open_port
from ports import free_port

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
BLOCK = re.compile(r"```text\n\$ cartwake doctor\n(.*?)```", re.DOTALL)
SID = "AC" + "5" * 32
SENDER = "+37061000001"

BREAK = """
UPDATE periodic_tasks SET next_run_at = next_run_at - interval '3 hours', leased_until = NULL;
ALTER ROLE cartwake_web BYPASSRLS;
ALTER TABLE consent_events NO FORCE ROW LEVEL SECURITY;
"""


async def cartwake(environ: Mapping[str, str], *words: str) -> tuple[int, str]:
    """One command as a process of its own; its status and what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CARTWAKE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cartwake", *words, env={**inherited, **environ}, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def made(environ: Mapping[str, str], *words: str) -> dict[str, str]:
    """What a command that must succeed printed: a name and a value a line."""
    status, out = await cartwake(environ, *words)
    assert status == 0, out
    return dict(line.split(" ", 1) for line in out.splitlines())


def blotted(transcript: str, addresses: Mapping[str, str]) -> str:
    """Without what is different each time. What the version decides (tables, tasks, checks) is shown as it is."""
    for actual, shown in addresses.items():
        transcript = transcript.replace(actual, shown)
    for pattern, shown in (
        (r"\d+\.\d GB", "42.0 GB"),
        (r"PostgreSQL \d+\.\d+", "PostgreSQL 18.6"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "2026-11-24 08:15 UTC"),
    ):
        transcript = re.sub(pattern, shown, transcript)
    return transcript


async def buy_the_sender(environ: Mapping[str, str], token: str) -> None:
    api = f"{environ['CARTWAKE_TWILIO_API_BASE']}/2010-04-01/Accounts/{SID}/IncomingPhoneNumbers.json"
    inbound = f"{environ['CARTWAKE_PUBLIC_URL']}/hooks/twilio/inbound"
    form = {"PhoneNumber": SENDER, "AddressSid": "AD1", "SmsUrl": inbound}
    async with httpx.AsyncClient(auth=(SID, token), verify=False) as http:
        answer = await http.post(api, data=form)
    assert answer.status_code == 201, answer.text


async def all_is_under_way(environ: Mapping[str, str]) -> None:
    async with asyncio.timeout(30):
        while True:
            _, out = await cartwake(environ, "doctor", "--json")
            found = {each["check"]: each["verdict"] for each in json.loads(out)["checks"]}
            if found["periodic tasks"] == found["workers"] == "ok":
                return


async def test_the_page_shows_what_the_doctor_says(tmp_path: Path) -> None:
    home, web_port, listener = tmp_path / "home", free_port(), open_port("127.0.0.1", 0, "")
    sandbox_port = port_of(listener)
    secrets = {"secret_keys": "k" * 40, "twilio_auth_token": "the-token-of-this-deployment", "wrong": "of-another-one"}
    for name, secret in secrets.items():
        (tmp_path / name).write_text(secret + "\n")
    environ = {
        "CARTWAKE_DATA_DIR": str(home),
        "CARTWAKE_SECRET_KEYS_FILE": str(tmp_path / "secret_keys"),
        "CARTWAKE_TWILIO_AUTH_TOKEN_FILE": str(tmp_path / "twilio_auth_token"),
        "CARTWAKE_TWILIO_ACCOUNT_SID": SID,
        "CARTWAKE_TWILIO_API_BASE": f"http://127.0.0.1:{sandbox_port}",
        "CARTWAKE_PORT": str(web_port),
        "CARTWAKE_PUBLIC_URL": f"http://127.0.0.1:{web_port}",
    }
    with embedded_postgres(home) as server:
        status, out = await cartwake(environ, "migrate")
        assert status == 0, out
        database_port = psycopg.conninfo.conninfo_to_dict(server.url)["port"]
        addresses = {
            f"127.0.0.1:{web_port}": "127.0.0.1:8080",
            f"127.0.0.1:{sandbox_port}": "127.0.0.1:8090",
            f"127.0.0.1:{database_port}": "127.0.0.1:5432",
            str(home): "/srv/cartwake",
        }
        worker, scheduler_process = engine_processes()
        always = [sandbox_process(listener), web_process(web_port), worker]
        async with Cluster(tmp_path / "logs", environ) as cluster:
            async with Cluster(tmp_path / "scheduler", environ) as scheduler:
                await cluster.start(always)
                await scheduler.start([scheduler_process])
                await cluster.wait_until_ready()
                organization = (await made(environ, "org", "create", "Lino Namai"))["organization_id"]
                shop = (await made(environ, "shop", "create", organization, "Lino Namai", "--country", "LT"))["shop_id"]
                await made(environ, "number", "add", organization, shop, SENDER)
                await made(environ, "credits", "adjust", organization, "50", "--note", "welcome")
                await buy_the_sender(environ, secrets["twilio_auth_token"])
                await all_is_under_way(environ)
                status, well = await cartwake(environ, "doctor")
            assert status == 0, well
            with psycopg.connect(server.url, autocommit=True) as owner:
                owner.execute(BREAK.encode())
            await cartwake(environ, "pause")
            wrong = {"CARTWAKE_TWILIO_AUTH_TOKEN_FILE": str(tmp_path / "wrong"), "CARTWAKE_REFUNDON": "failed"}
            status, broken = await cartwake({**environ, **wrong}, "doctor")
            assert status == 1, broken
    shown = [blotted(well, addresses), blotted(broken, addresses)]
    if os.environ.get("REWRITE_DOCS"):
        transcripts = iter(shown)
        PAGE.write_text(BLOCK.sub(lambda _: f"```text\n$ cartwake doctor\n{next(transcripts)}```", PAGE.read_text()))
    assert BLOCK.findall(PAGE.read_text()) == shown, "run: REWRITE_DOCS=1 pytest on this file"
