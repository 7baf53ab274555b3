"""What Prometheus is told. The only file that knows its client library."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from chat.events import Usage

REASONS = {
    "rate_limited": "rate",
    "too_many_runs": "cap",
    "too_many_streams": "cap",
    "service_full": "cap",
    "budget_spent": "budget",
    "unauthorized": "auth",
    "forbidden": "auth",
    "foreign_page": "origin",
    "user_mismatch": "auth",
}
"""Why a request is turned away, by code. Few, and fixed: each is a line for as long as the process lives."""

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60)
"""From a model on the same machine to one that thinks for a minute."""

BATCH_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000)
"""From one reader's token to all that may wait for a disk that stood still."""

COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""From a write to memory to the wait for another process's lock."""


class Metrics(Collector):
    """This process's numbers, :class:`chat.meter.Meter`, in a registry of their own.

    ``open_streams`` is asked at each scrape. ``worker`` becomes a label of everything: a scrape that meets now one
    process and now another would else see counters that jump.
    """

    def __init__(self, open_streams: Callable[[], float], worker: str | None = None) -> None:
        self._registry = registry = CollectorRegistry()
        self._labels = {} if worker is None else {"worker": worker}
        self._runs = Counter("parley_runs", "Runs that have ended.", ["outcome"], registry=registry)
        self._tokens = Counter("parley_tokens", "Tokens that ended runs have used.", ["kind"], registry=registry)
        self._first_token = Histogram(
            "parley_time_to_first_token_seconds",
            "From a run's start in this process to its first text or reasoning, stored.",
            buckets=FIRST_TOKEN_SECONDS,
            registry=registry,
        )
        Gauge("parley_open_streams", "Clients that follow a run.", registry=registry).set_function(open_streams)
        self._batch = Histogram(
            "parley_journal_batch_events", "Events in one commit.", buckets=BATCH_EVENTS, registry=registry
        )
        self._commit = Histogram(
            "parley_journal_commit_seconds", "How long a commit took.", buckets=COMMIT_SECONDS, registry=registry
        )
        self._failures = Counter(
            "parley_upstream_errors", "Requests to the model that failed.", ["kind"], registry=registry
        )
        self._refusals = Counter(
            "parley_refusals", "Requests that were turned away, whatever they asked.", ["reason"], registry=registry
        )
        for reason in REASONS.values():
            self._refusals.labels(reason)  # a rate over what is not there yet would miss the first
        ProcessCollector(registry=registry)

    def run_ended(self, outcome: str, usage: Usage | None) -> None:
        self._runs.labels(outcome).inc()
        if usage is not None:
            self._tokens.labels("input").inc(usage.input_tokens)
            self._tokens.labels("output").inc(usage.output_tokens)

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def committed(self, events: int, seconds: float) -> None:
        self._batch.observe(events)
        self._commit.observe(seconds)

    def upstream_failed(self, code: str) -> None:
        self._failures.labels(code).inc()

    def refused(self, code: str) -> None:
        """A request got this error; of those that turn nobody away nothing is counted."""
        if (reason := REASONS.get(code)) is not None:
            self._refusals.labels(reason).inc()

    def collect(self) -> Iterable[Metric]:
        """Without the library's ``_created`` times, which would double the lines and which nobody draws."""
        for metric in self._registry.collect():
            metric.samples = [
                sample._replace(labels=sample.labels | self._labels)
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ]
            yield metric

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self)
