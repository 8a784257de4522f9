"""Traces, for whoever has somewhere to send them (extra `cartwake[otel]`): one for each cart that becomes a text.

It begins with the API call that wrote the session, whose context is stored with the session and copied to the
message; what scheduler and worker do about that message joins it. Off, which is the default, nothing is
imported, nothing is stored and nothing is done. Spans hold ids and words of the code, as log lines do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import structlog

from cartwake import __version__
from cartwake.kit.config import ConfigError, Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = structlog.get_logger()

STANDARD_NAMES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

Words = dict[str, str | int | float]
Kind = Literal["INTERNAL", "SERVER", "CLIENT"]

_tracer: Tracer | None = None


@contextmanager
def tracing(settings: Settings, process: str) -> Iterator[None]:
    """Trace while the block lasts, where `CARTWAKE_OTLP_ENDPOINT` or a standard variable says whereto.

    Raises `ConfigError` when ours does and the extra is not installed.
    """
    global _tracer  # noqa: PLW0603 - a process traces or it does not
    if settings.otlp_endpoint is None and not any(os.environ.get(name) for name in STANDARD_NAMES):
        yield
        return
    try:
        provider = _provider(settings, process)
    except ImportError:
        if settings.otlp_endpoint is not None:
            raise ConfigError("CARTWAKE_OTLP_ENDPOINT: traces need an extra: pip install 'cartwake[otel]'") from None
        log.warning("tracing.not_installed")  # the standard variables may be meant for others
        yield
        return
    _tracer = provider.get_tracer("cartwake", __version__)
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def is_on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def traceparent() -> str | None:
    """The context of the span that is open here, to be stored (W3C Trace Context); None where nothing is traced."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


@contextmanager
def span(name: str, parent: str | None = None, kind: Kind = "INTERNAL") -> Iterator[Note]:
    """A span around the block; `parent`: a stored `traceparent`, or None for a trace of its own."""
    if _tracer is None:
        yield Note(None)
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode, use_span

    began = _tracer.start_span(name, _context(parent), SpanKind[kind])
    # Recording the exception would write its message down.
    with use_span(began, end_on_exit=True, record_exception=False, set_status_on_exception=False) as opened:
        try:
            yield Note(opened)
        except BaseException as error:
            opened.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def note(name: str, began_ns: int, about: Iterable[tuple[str | None, Words]]) -> None:
    """Spans for what has been done to a batch since `began_ns`: each with its stored `traceparent`, None: untraced."""
    if _tracer is None:
        return
    ended_ns = now_ns()
    for parent, words in about:
        if parent is not None:
            _tracer.start_span(name, _context(parent), attributes=words, start_time=began_ns).end(ended_ns)


def now_ns() -> int:
    """The machine's time, whatever the deployment's clock says: a collector compares that of many machines."""
    return time.time_ns()


class Note:
    """An open span, or none."""

    def __init__(self, opened: Span | None) -> None:
        self._span = opened

    def rename(self, name: str) -> None:
        """What the span turned out to be."""
        if self._span is not None:
            self._span.update_name(name)

    def say(self, **words: str | int | float) -> None:
        """Add attributes; a double underscore in a name stands for a dot."""
        if self._span is not None:
            self._span.set_attributes({name.replace("__", "."): value for name, value in words.items()})


def _context(parent: str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}, Context())


def _provider(settings: Settings, process: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.otlp_endpoint + "/v1/traces" if settings.otlp_endpoint else None  # None: its own variables
    resource = Resource.create({"service.name": f"cartwake-{process}", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider
