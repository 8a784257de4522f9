"""One trace from the call that wrote the cart to the receipt of its text, at a collector that speaks OTLP."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cartwake.carriers.protocol import Carrier
from cartwake.kit.config import ConfigError, Settings, load_settings
from cartwake.kit.runtime import Runtime
from cartwake.kit.tracing import is_on, span, traceparent, tracing
from cartwake.web.app import create_app
from deployment import Deployment, failing, leave_cart, plain_http, serving
from ports import free_port
from world import JONAS, RUTA, TICKED, cart

Span = dict[str, str]


class Collector:
    """What a tracing backend receives."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def spans(self) -> list[Span]:
        """Every span: name, service, trace, id, parent, status and attributes."""
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for each in scope.spans:
                        words = {word.key: word.value.string_value for word in each.attributes}
                        found.append(
                            words
                            | {"name": each.name, "service": service["service.name"], "trace": each.trace_id.hex()}
                            | {"id": each.span_id.hex(), "parent": each.parent_span_id.hex()}
                            | {"status": each.status.message, "events": str(len(each.events))}
                        )
        return found


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    received = Collector()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            assert self.path == "/v1/traces"
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield received, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@contextmanager
def traced_to(address: str) -> Iterator[None]:
    with tracing(Settings(otlp_endpoint=address), "test"):
        yield


async def test_one_trace_leads_from_the_call_to_the_receipt(
    deployment: Deployment, collector: tuple[Collector, str], fresh_url: str
) -> None:
    received, address = collector
    shop = await deployment.shop()
    with traced_to(address):
        url = f"http://127.0.0.1:{free_port()}"
        app = create_app(deployment.runtime, deployment.carrier)
        async with serving(app, url), plain_http(url) as http:
            headers = {"Authorization": f"Bearer {shop.key}", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            for name, phone in (("cart-1", RUTA), ("cart-2", JONAS)):
                path = f"/v1/checkout-sessions/{name}"
                await http.put(path, json=cart(consent=TICKED, phone=phone), headers=headers)
            with failing(fresh_url, "checkout_sessions", RUTA):
                await http.put("/v1/checkout-sessions/cart-3", json=cart(), headers=headers)
            await http.get(f"/r/{RUTA}")
        await deployment.script(JONAS, outcome="rejected", error_code=21211)
        await deployment.outlast_a_cart()
    spans = received.spans()
    (message,) = await deployment.messages(shop)
    calls = [each for each in spans if each["name"] == "PUT /v1/checkout-sessions/{external_id}"]
    assert [each["parent"] for each in calls] == ["", "", ""], "a caller does not decide what is recorded"
    assert message["traceparent"] == f"00-{calls[0]['trace']}-{calls[0]['id']}-01"
    mine = [each for each in spans if each["trace"] == calls[0]["trace"] and each is not calls[0]]
    steps = [each["name"] for each in mine]
    assert set(steps) == {"text.schedule", "text.claim", "carrier.send", "text.record", "text.receipt"}
    for each in mine:
        assert each["parent"] == calls[0]["id"] and each["cartwake.message_id"] == str(message["message_id"])
    states = [each["cartwake.state"] for each in mine if each["name"] in ("text.record", "text.receipt")]
    assert states[0] == "accepted" and states[-1] == "delivered"
    others = [each for each in spans if each["trace"] == calls[1]["trace"]]
    (refused,) = [each for each in others if each["name"] == "carrier.send"]
    assert (refused["cartwake.answer"], refused["cartwake.error_class"]) == ("rejected", "recipient_permanent")
    assert {each["service"] for each in spans} == {"cartwake-test"}
    assert "GET /r/{token}" in {each["name"] for each in spans}
    everything = b"".join(received.bodies)
    for phone in (RUTA, JONAS):
        assert phone[1:].encode() not in everything and phone[4:].encode() not in everything


async def test_an_error_s_words_are_no_part_of_a_span(collector: tuple[Collector, str]) -> None:
    received, address = collector
    with traced_to(address), pytest.raises(ValueError, match="370"), span("test.step"):
        raise ValueError(RUTA)
    (failed,) = received.spans()
    assert (failed["name"], failed["status"], failed["events"]) == ("test.step", "ValueError", "0")
    assert RUTA[1:].encode() not in b"".join(received.bodies)


@pytest.mark.thorough
async def test_off_nothing_is_stored_and_nothing_is_sent(
    deployment: Deployment, collector: tuple[Collector, str]
) -> None:
    shop = await deployment.shop()
    await leave_cart(shop)
    await deployment.outlast_a_cart()
    assert not is_on() and traceparent() is None
    (message,) = await deployment.messages(shop)
    assert message["traceparent"] is None and message["state"] == "delivered"
    assert await deployment.rows("SELECT FROM checkout_sessions WHERE traceparent IS NOT NULL") == []
    assert collector[0].bodies == []


@pytest.mark.thorough
async def test_a_text_of_a_cart_from_before_is_sent_without_a_trace(
    deployment: Deployment, collector: tuple[Collector, str]
) -> None:
    received, address = collector
    await leave_cart(await deployment.shop())
    with traced_to(address):
        await deployment.outlast_a_cart()
    assert len(await deployment.phone_shows(RUTA)) == 1 and received.spans() == []


def test_the_standard_variables_switch_it_on(collector: tuple[Collector, str], monkeypatch: pytest.MonkeyPatch) -> None:
    received, address = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    with tracing(Settings(), "worker"), span("test.step"):
        assert is_on()
    assert [(each["name"], each["service"]) for each in received.spans()] == [("test.step", "cartwake-worker")]


@pytest.mark.thorough
def test_without_it_nothing_is_imported_and_with_it_a_missing_extra_is_said() -> None:
    program = (
        "import sys\n"
        "import cartwake.web.app, cartwake.worker, cartwake.scheduler, cartwake.cli.processes\n"
        "from cartwake.kit.config import Settings, ConfigError\n"
        "from cartwake.kit.tracing import tracing\n"
        "with tracing(Settings(), 'web'): pass\n"
        "there = [each for each in sys.modules if each.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))]\n"
        "assert there == [], there\n"
        "sys.modules['opentelemetry.sdk'] = None\n"
        "try:\n"
        "    with tracing(Settings(otlp_endpoint='http://127.0.0.1:9'), 'web'): pass\n"
        "except ConfigError as error: print(error)\n"
        "import os; os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://127.0.0.1:9'\n"
        "with tracing(Settings(), 'web'): print('runs all the same')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "CARTWAKE_OTLP_ENDPOINT: traces need an extra: pip install 'cartwake[otel]'" in done.stdout
    assert "tracing.not_installed" in done.stdout and "runs all the same" in done.stdout


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="CARTWAKE_OTLP_ENDPOINT: must be an http or https address"):
        load_settings(otlp_endpoint="collector:4317")


async def test_the_framework_s_own_telemetry_is_off(
    runtime: Runtime, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spans would hold addresses, which hold links' tokens, and its logs the words of errors."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(runtime, carrier)), base_url="http://test"
    ) as http:
        await http.get(f"/r/{RUTA}")
    assert kept.get_finished_spans() == ()
