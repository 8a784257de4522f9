"""Every metric of Cartwake, in one table: its name, what it counts, and what its labels may be.

A label is a word of the code, a country or a route's template. No tenant, no message and no phone is one, and
none can become one: what is not a word of letters is counted as `other`, and so is the word after too many.

The edges count (worker, scheduler, web), after their transaction has committed; rooms know nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import phonenumbers
import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from cartwake import __version__
from cartwake.kit.db import Database

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()

WORDS_MAX = 200
OTHER = "other"
COUNTRIES = frozenset(phonenumbers.SUPPORTED_REGIONS)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# Seconds. Texts are due to the moment, but a night's backlog takes a while, and a capped shop waits for its cycle.
LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
CALLS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
REQUESTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
TASKS = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)


def _counter(name: str, about: str, *labels: str) -> Counter:
    return Counter(name, about, labels, registry=REGISTRY)


def _gauge(name: str, about: str, *labels: str) -> Gauge:
    return Gauge(name, about, labels, registry=REGISTRY)


def _histogram(name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, about, labels, registry=REGISTRY, buckets=buckets)


# --- every process ----------------------------------------------------------------------------------

BUILD = _gauge("cartwake_build_info", "1; the version that runs, and as what.", "version", "process")
POOL = _gauge("cartwake_db_pool_connections", "Connections to the database that are in use or idle.", "login", "state")
POOL_WAITING = _gauge("cartwake_db_pool_waiting", "Callers that wait for a connection.", "login")
LOG_ERRORS = _counter("cartwake_log_errors_total", "Lines logged as errors, by event.", "event")

# --- web --------------------------------------------------------------------------------------------

HTTP_REQUESTS = _counter("cartwake_http_requests_total", "Requests answered.", "route", "method", "status")
HTTP_SECONDS = _histogram("cartwake_http_request_seconds", "Machine seconds to answer a request.", REQUESTS, "route")

# --- worker -----------------------------------------------------------------------------------------

START_LATENESS = _histogram(
    "cartwake_text_start_lateness_seconds",
    "Seconds, by the deployment's clock, from when a text was due to when it was claimed to be sent.",
    LATENESS,
)
TEXTS = _counter("cartwake_texts_total", "Texts that reached a state, by the phone's country.", "outcome", "country")
DECISIONS = _counter("cartwake_decisions_total", "What the gates decided.", "gate", "outcome", "reason")
CARRIER_SECONDS = _histogram(
    "cartwake_carrier_call_seconds", "Machine seconds of a call to the carrier.", CALLS, "call"
)
CARRIER_ANSWERS = _counter(
    "cartwake_carrier_answers_total", "What the carrier answered, errors by class.", "call", "answer", "error_class"
)
EVENT_LAG = _histogram(
    "cartwake_carrier_event_lag_seconds",
    "Seconds, by the deployment's clock, from a receipt or reply being received to its being applied.",
    LATENESS,
    "kind",
)
EVENTS = _counter("cartwake_carrier_events_total", "Receipts and replies worked off, by result.", "kind", "result")
RETRIES = _counter("cartwake_transactions_retried_total", "Transactions run again, by what they met.", "error")

# --- scheduler --------------------------------------------------------------------------------------

TASK_RUNS = _counter("cartwake_task_runs_total", "Runs of periodic tasks by this process.", "task", "result")
TASK_SECONDS = _histogram("cartwake_task_seconds", "Machine seconds of a periodic task's run.", TASKS, "task")

ProcessCollector(registry=REGISTRY)


@dataclass(frozen=True)
class Reading:
    """A gauge that is read from the database when somebody looks; the scheduler serves it."""

    name: str
    about: str
    labels: tuple[str, ...] = ()


Sample = tuple[Reading, tuple[str, ...], float]

MESSAGES_WAITING = Reading(
    "cartwake_messages_waiting", "Messages that wait: due now, scheduled for later, or held until later.", ("state",)
)
QUEUE_BEHIND = Reading(
    "cartwake_queue_behind_seconds", "For how long the message that is due the longest has been; 0 when none is."
)
TEXTS_IN_FLIGHT = Reading(
    "cartwake_texts_in_flight", "Texts being sent, of unknown fate, or without a final receipt yet.", ("state",)
)
SESSIONS_TO_SCAN = Reading("cartwake_sessions_to_scan", "Idle carts that the abandonment scan has not asked yet.")
INBOX_WAITING = Reading("cartwake_inbox_waiting", "Receipts and replies that nobody has worked off.", ("kind",))
INBOX_BEHIND = Reading("cartwake_inbox_behind_seconds", "How long the oldest of them has waited; 0 when none does.")
EVENTS_SET_ASIDE = Reading(
    "cartwake_events_set_aside", "Receipts and replies that could not be applied and wait for somebody to look."
)
OUTBOX_WAITING = Reading("cartwake_outbox_waiting", "Replies that shops' servers have not taken yet.")
RESERVATIONS_OPEN = Reading("cartwake_reservations_open", "Reservations of credits that are not settled.")
RESERVATIONS_STALE = Reading("cartwake_reservations_stale", "Of them, those open for more than an hour.")
ORGANIZATIONS_LOW = Reading(
    "cartwake_organizations_low_on_credits", "Organizations that text and have no more credits than their warning."
)
SHOPS_PAUSED = Reading("cartwake_shops_paused", "Shops whose kill switch is thrown.")
DEPLOYMENT_PAUSED = Reading("cartwake_deployment_paused", "1 while the deployment's kill switch is thrown.")
TASK_AGE = Reading("cartwake_task_last_run_age_seconds", "Seconds since a periodic task last began.", ("task",))
TASK_OVERDUE = Reading(
    "cartwake_task_overdue_seconds", "How long a periodic task should have begun by now; 0 while it runs.", ("task",)
)
TASK_FAILING = Reading("cartwake_task_failing", "1 when a periodic task's last run failed.", ("task",))
INVARIANT_BROKEN = Reading(
    "cartwake_invariant_broken_rows", "Rows that contradicted an invariant when it was last checked.", ("invariant",)
)
INVARIANT_AGE = Reading("cartwake_invariants_checked_age_seconds", "Seconds since every invariant was last checked.")
GAUGES_READ = Reading(
    "cartwake_gauges_read", "1 when this group of gauges could be read from the database.", ("group",)
)

READINGS: tuple[Reading, ...] = tuple(found for found in list(globals().values()) if isinstance(found, Reading))


class Words:
    """What a label may be: a word of the code, and one of the first so many that were seen."""

    _WORD = re.compile(r"[a-z][a-z_.-]{0,48}")

    def __init__(self, most: int = WORDS_MAX) -> None:
        self._most = most
        self._seen: set[str] = set()

    def __call__(self, text: str) -> str:
        """`text` as a label, or `other`."""
        if text in self._seen:
            return text
        if not self._WORD.fullmatch(text) or len(self._seen) >= self._most:
            return OTHER
        self._seen.add(text)
        return text


reason_label = Words()
event_label = Words()


def country_label(country: str | None) -> str:
    """A phone's country; `other` for what is none."""
    return country if country in COUNTRIES else OTHER


def method_label(method: str) -> str:
    """An HTTP method; callers may send any word as one."""
    return method if method in METHODS else OTHER


def watch_pools(db: Database) -> None:
    """Read how many connections are in use."""
    for login, stats in db.pool_stats().items():
        POOL.labels(login, "in_use").set(stats["pool_size"] - stats["pool_available"])
        POOL.labels(login, "idle").set(stats["pool_available"])
        POOL_WAITING.labels(login).set(stats["requests_waiting"])


def page(process: str, db: Database, accept: str, samples: Iterable[Sample] = ()) -> tuple[bytes, str]:
    """What a scraper gets, in the format that its `Accept` asks for, and that format's media type.

    `process`: web, worker or scheduler; `samples`: what was read from the database.
    """
    BUILD.labels(__version__, process).set(1)
    watch_pools(db)
    encode, media_type = choose_encoder(accept)
    return encode(_Page(samples)), media_type


class _Page:
    """This process's own metrics, and readings of the database."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        yield from families(self._samples)


def families(samples: Iterable[Sample]) -> list[Metric]:
    """Readings in the client library's own form."""
    made: dict[str, GaugeMetricFamily] = {}
    for reading, labels, value in samples:
        if reading.name not in made:
            made[reading.name] = GaugeMetricFamily(reading.name, reading.about, labels=reading.labels)
        made[reading.name].add_metric(labels, value)
    return list(made.values())


def catalogue() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Every metric by name: its kind (counter, gauge, histogram) and labels. For documents and their tests."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for metric in list(globals().values()):
        if isinstance(metric, Counter | Gauge | Histogram):
            (described,) = metric.describe()
            name = described.name + ("_total" if described.type == "counter" else "")
            found[name] = (described.type, tuple(metric._labelnames))
        elif isinstance(metric, Reading):
            found[metric.name] = ("gauge", metric.labels)
    return found
