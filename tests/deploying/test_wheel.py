"""What the Dockerfile does, done in a folder: the wheel from its RUN lines, installed, and run as the image runs it.

Away from the checkout, as an ordinary user who may write nowhere, and (where the kernel can) under the rule of
the systemd units that no memory may become executable.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cartwake import __version__
from cartwake.carriers.webhooks import STATUS_PATH
from cartwake.kit.embedded import embedded_postgres
from deploying.recipe import ROOT, environment, health_command, instructions, last
from ports import free_port

pytestmark = pytest.mark.slow

READY_TIMEOUT_S = 60
# prctl(PR_SET_MDWE), which execve keeps; kernels before 6.3 do not know it. It stands in for MemoryDenyWriteExecute=.
LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Image:
    """The folder that stands for the image's file system, and what runs from it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.venv = top / "opt" / "cartwake"
        self.program = self.venv / "bin" / "cartwake"
        assert last("WORKDIR") == "/tmp"
        self.temporary = top / "tmp"
        self.temporary.mkdir()
        self.temporary.chmod(0o1777)
        self.as_user: list[str] = []
        if os.geteuid() == 0:
            # The image's user, who may write nowhere, and read even where this Python lies behind a closed folder.
            uid, _, gid = last("USER").partition(":")
            capability = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
            self.as_user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *capability]

    def build(self) -> None:
        """The first stage: its COPY and RUN lines, in order."""
        work = self.top / "build"
        work.mkdir()
        for each in instructions():
            if each.stage == 0 and each.word == "COPY":
                self._copy(each.text.split(), work)
            elif each.stage == 0 and each.word == "RUN":
                words = ["sh", "-ec", self.here(each.text)]
                done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def here(self, line: str) -> str:
        """A line with the folder's paths, and this Python for the base image's."""
        line = line.replace("/opt/", f"{self.top}/opt/")
        return re.sub(r"(^|&& )python ", rf"\1{sys.executable} ", line)

    def _copy(self, words: list[str], work: Path) -> None:
        *sources, target = words
        for source in sources:
            place = work / target / Path(source).name if target.endswith("/") else work / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, work / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)

    def environment(self, **more: str) -> dict[str, str]:
        """The image's, and nothing of ours."""
        set_here = {name: self.here(value).replace("$PATH", os.defpath) for name, value in environment().items()}
        return set_here | {"CARTWAKE_HOST": "127.0.0.1"} | more

    def run(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """`cartwake WORDS`, to its end."""
        return subprocess.run(
            [*self.as_user, str(self.program), *words],
            cwd=self.temporary,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextlib.contextmanager
    def running(self, *words: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """`cartwake WORDS`, until the end of the block; it must then end in good order."""
        process = subprocess.Popen(
            [*self.as_user, sys.executable, "-c", LAUNCHER, str(self.program), *words],
            cwd=self.temporary,
            env=self.environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="cartwake-image-") as name:
        top = Path(name)
        top.chmod(0o755)
        made = Image(top)
        made.build()
        yield made


@pytest.fixture
def settings(fresh_database: str) -> dict[str, str]:
    return {
        "CARTWAKE_SECRET_KEYS": "a root secret of more than 32 characters",
        "CARTWAKE_PUBLIC_URL": "https://sms.example.com",
        "CARTWAKE_TWILIO_AUTH_TOKEN": "an auth token that nobody knows",
        "CARTWAKE_DATABASE_URL": fresh_database,
    }


@pytest.fixture
def fresh_database(tmp_path: Path) -> Iterator[str]:
    """An empty database whose owner is no superuser: it may make roles, and nothing else of note.

    On a server of its own, because elsewhere the logins may be somebody else's already.
    """
    with (
        embedded_postgres(tmp_path / "postgres", durable=False) as server,
        psycopg.connect(server.url, autocommit=True) as conn,
    ):
        conn.execute("CREATE ROLE cartwake_owner LOGIN CREATEROLE PASSWORD 'owner'")
        conn.execute("CREATE DATABASE shops OWNER cartwake_owner")
        yield make_conninfo(server.url, dbname="shops", user="cartwake_owner", password="owner")


def test_the_wheel_holds_every_file_of_the_package(image: Image) -> None:
    source = ROOT / "src" / "cartwake"
    (installed,) = image.venv.glob("lib/python*/site-packages/cartwake")
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files - {path.relative_to(installed) for path in installed.rglob("*")} == set()
    assert {".sql", ".toml", ".html", ".css"} <= {path.suffix for path in files}


def test_it_says_its_version_and_which_settings_are_missing(image: Image) -> None:
    assert image.run("version", CARTWAKE_ENVIRONMENT="development").stdout == f"{__version__}\n"
    done = image.run("serve")
    assert done.returncode == 2
    assert "CARTWAKE_SECRET_KEYS" in done.stderr and "Traceback" not in done.stderr


def test_without_a_database_of_its_own_it_says_how_to_name_one(image: Image, settings: dict[str, str]) -> None:
    assert not list(image.venv.glob("lib/python*/site-packages/embedded_postgres*"))
    del settings["CARTWAKE_DATABASE_URL"]
    done = image.run("serve", **settings)
    assert done.returncode == 1
    assert "CARTWAKE_DATABASE_URL" in done.stderr and "Traceback" not in done.stderr


def test_it_migrates_serves_and_ends_in_good_order(image: Image, settings: dict[str, str]) -> None:
    migrated = image.run("migrate", **settings)
    assert migrated.returncode == 0, migrated.stderr
    # The serving processes need nothing of the owner's.
    owner = conninfo_to_dict(settings["CARTWAKE_DATABASE_URL"])
    settings["CARTWAKE_DATABASE_URL"] = f"postgresql://{owner['host']}:{owner['port']}/{owner['dbname']}"
    port = str(free_port())
    with (
        image.running("serve", CARTWAKE_PORT=port, **settings) as web,
        image.running("worker", **settings) as worker,
        image.running("scheduler", **settings) as scheduler,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=False) as http,
    ):
        wait_until_ready(http, web)
        assert http.get("/openapi.json").json()["info"]["version"] == __version__
        assert "<style" in http.get("/o/nonsense").text  # a page, with its template and its style
        assert http.post(STATUS_PATH, data={"MessageSid": "SM1"}).status_code == 403
        words = [*image.as_user, *(word.replace("8080", port) for word in health_command())]
        subprocess.run(words, env=image.environment(), cwd=image.temporary, check=True)
        key = image.run("key", "operator", **settings).stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}
        made = http.post("/v1/organizations", json={"name": "Lino Namai", "plan": "PRO"}, headers=headers)
        assert made.status_code == 201, made.text
        audit = image.run("audit", **settings)
        assert "0 broken" in audit.stdout, audit.stdout + audit.stderr
        assert [each.poll() for each in (web, worker, scheduler)] == [None] * 3


def wait_until_ready(http: httpx.Client, web: subprocess.Popen[str]) -> None:
    """Until the web process answers that it can work."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if http.get("/readyz").status_code == 200:
                return
        assert web.poll() is None and time.monotonic() < deadline, "the web process is not ready"
        time.sleep(0.1)
