"""The proxy's example configuration: read by nginx itself, and then run, with the application behind it."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twilio.request_validator import RequestValidator

from cartwake.carriers.open import open_carrier
from cartwake.carriers.webhooks import STATUS_PATH
from cartwake.kit.config import Settings
from cartwake.kit.runtime import Runtime
from cartwake.web.app import create_app
from deploying.recipe import DEPLOY, ROOT
from deployment import serving
from ports import free_port

NGINX = shutil.which("nginx", path=f"/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:{ROOT}/.tools/usr/sbin")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed; `make slow` fetches it"),
]

HOST = "sms.example.com"
TOKEN = "an auth token that nobody knows"


class Proxy:
    """nginx with the example, on ports of its own."""

    def __init__(self, folder: Path, backend_port: int) -> None:
        self.folder = folder
        self.http_port, self.https_port = free_port(), free_port()
        certificate(folder)
        site = (DEPLOY / "nginx.conf").read_text()
        for old, new in {
            "listen 80;": f"listen 127.0.0.1:{self.http_port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.https_port} ssl;",
            "server 127.0.0.1:8080;": f"server 127.0.0.1:{backend_port};",
            "/etc/ssl/cartwake/": f"{folder}/",
            "/var/log/nginx/": f"{folder}/",
        }.items():
            assert old in site, old
            site = site.replace(old, new)
        site = re.sub(r" *listen \[::\]:.*\n", "", site)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        site = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds) + site
        main = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        if os.geteuid() == 0:
            main = "user root; " + main
        (folder / "nginx.conf").write_text(f"{main}\nhttp {{\n{site}}}\n")
        self.words = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]

    def log(self) -> str:
        return (self.folder / "cartwake.log").read_text()


def certificate(folder: Path) -> None:
    """A certificate for the example's host, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture
def backend_port() -> int:
    return free_port()


@pytest.fixture
def proxy(tmp_path: Path, backend_port: int) -> Iterator[Proxy]:
    made = Proxy(tmp_path, backend_port)
    process = subprocess.Popen(made.words, stderr=subprocess.PIPE, text=True)
    try:
        wait_until_it_listens(made, process)
        yield made
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(20)


def wait_until_it_listens(proxy: Proxy, process: subprocess.Popen[str]) -> None:
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{proxy.http_port}/")
        except httpx.TransportError:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
        else:
            return


@pytest.fixture
async def outside(proxy: Proxy, runtime: Runtime, backend_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody out in the world, who knows the public address and trusts its certificate."""
    settings = Settings(public_url=f"https://{HOST}", twilio_auth_token=TOKEN, metrics_port=9464, metrics_token=TOKEN)
    carrier = open_carrier(settings)
    app = create_app(Runtime(settings, runtime.clock, runtime.ids, runtime.vault, runtime.db), carrier)
    trust = ssl.create_default_context(cafile=str(proxy.folder / "fullchain.pem"))
    async with (
        serving(app, f"http://127.0.0.1:{backend_port}"),
        httpx.AsyncClient(base_url=f"https://127.0.0.1:{proxy.https_port}", verify=trust) as http,
    ):
        http.headers["Host"] = HOST
        yield http
    await carrier.close()


def test_nginx_has_nothing_to_say_about_the_example(tmp_path: Path) -> None:
    made = Proxy(tmp_path, free_port())
    done = subprocess.run([*made.words, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


async def test_a_signature_over_the_public_address_holds_behind_the_proxy(
    proxy: Proxy, outside: httpx.AsyncClient
) -> None:
    form = {"MessageSid": "SM" + "0" * 32, "MessageStatus": "delivered", "AccountSid": "AC" + "0" * 32}
    path = f"{STATUS_PATH}?attempt={'0' * 32}&also=%2Fa%20b"
    signature = RequestValidator(TOKEN).compute_signature(f"https://{HOST}{path}", form)  # type: ignore[no-untyped-call]
    answer = await post(outside, path, form, signature)
    assert answer.status_code == 204, answer.text
    forged = await post(outside, path + "x", form, signature)
    assert forged.status_code == 403
    assert "attempt" not in proxy.log()


async def post(http: httpx.AsyncClient, path: str, form: dict[str, str], signature: str) -> httpx.Response:
    """To the address as it is written, for an address that is written otherwise has another signature."""
    url = httpx.URL(str(http.base_url)).copy_with(raw_path=path.encode())
    return await http.post(url, data=form, headers={"X-Twilio-Signature": signature}, extensions={"sni_hostname": HOST})


async def test_tokens_stay_out_of_the_log_and_what_is_inside_stays_inside(
    proxy: Proxy, outside: httpx.AsyncClient
) -> None:
    options = {"extensions": {"sni_hostname": HOST}}
    assert (await outside.get("/r/secret-token", **options)).status_code == 404  # type: ignore[arg-type]
    assert (await outside.get("/o/secret-token?x=secret-token", **options)).status_code == 404  # type: ignore[arg-type]
    assert "/r/- 404" in proxy.log() and "secret-token" not in proxy.log()
    inside = await outside.get("/readyz", **options)  # type: ignore[arg-type]
    assert inside.status_code == 404 and "nginx" in inside.text
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (await outside.get("/metrics", headers=bearer, **options)).status_code == 404  # type: ignore[arg-type]
    assert (await outside.get("/healthz", **options)).json()["status"] == "ok"  # type: ignore[arg-type]


async def test_a_body_that_is_too_large_is_refused_as_a_problem_document(outside: httpx.AsyncClient) -> None:
    answer = await outside.put("/v1/checkout-sessions/x", content=b"x" * 70_000, extensions={"sni_hostname": HOST})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


async def test_plain_http_is_refused(proxy: Proxy) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{proxy.http_port}/healthz")).status_code == 403
