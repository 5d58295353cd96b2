"""The Prometheus registry of one process. docs/observing.md has a table of it, which a test compares.

Labels are bounded: routes, statuses, names of models that the routing table leads to; never an id or what a client
wrote. Where something is counted often its labels are bound once, because looking them up costs more than counting.
"""

from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from adlatus import __version__

_REQUESTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RUNS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

METHODS = frozenset(("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"))
OTHER = "other"
"""The label of what would have no bounds otherwise."""


disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of all lines, and nobody asks


class Metrics:
    """What is measured in one process; every server has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[tuple[str, str, str]] = []
        self._http()
        self._runs()
        self._models()
        self._ingestion()
        self._search()
        self._sandboxes()
        self._process()
        # Bound once, by the values that they are looked up with
        self.request = lru_cache(maxsize=4096)(self._request)
        self.run_ended = lru_cache(maxsize=64)(self._run_ended)
        self.tokens_of = lru_cache(maxsize=1024)(self._tokens_of)

    def render(self) -> bytes:
        """The registry in Prometheus' text format."""
        return generate_latest(self.registry)

    # --- Bound labels

    def _request(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """The counter and the histogram of requests of a kind."""
        shown = method if method in METHODS else OTHER
        return self.requests.labels(shown, route, str(status)), self.request_seconds.labels(route)

    def _run_ended(self, status: str) -> tuple[Counter, Histogram]:
        """The counter and the histogram of runs that end with a status."""
        return self.runs_ended.labels(status), self.run_seconds.labels(status)

    def _tokens_of(self, model: str) -> tuple[Counter, Counter]:
        """The counters of prompt and completion tokens of a model."""
        return self.tokens.labels("prompt", model), self.tokens.labels("completion", model)

    # --- What there is

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", meaning, labels)
        return Counter(f"adlatus_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", meaning, labels)
        return Gauge(f"adlatus_{name}", meaning, labels, registry=self.registry)

    def _seconds(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = _RUNS) -> Histogram:
        self._describe(f"{name}_seconds", "histogram", meaning, labels)
        return Histogram(f"adlatus_{name}_seconds", meaning, labels, buckets=buckets, registry=self.registry)

    def _describe(self, name: str, kind: str, meaning: str, labels: tuple[str, ...]) -> None:
        self.described.append((f"adlatus_{name}" + (f"{{{', '.join(labels)}}}" if labels else ""), kind, meaning))

    def _http(self) -> None:
        self.requests = self._counter("http_requests", "HTTP requests answered", "method", "route", "status")
        self.request_seconds = self._seconds(
            "http_request", "Seconds from a request to the first byte of its answer", "route", buckets=_REQUESTS
        )

    def _runs(self) -> None:
        self.runs_ended = self._counter("runs", "Runs ended by this process, by final status", "status")
        self.run_seconds = self._seconds(
            "run", "Seconds from the creation of a run to its end, its client's calls included", "status"
        )
        self.run_first_token_seconds = self._seconds(
            "run_first_token", "Seconds from the creation of a run to the first that its client hears of the answer"
        )
        self.run_wait_seconds = self._seconds("run_wait", "Seconds that a run has waited in the queue")
        self.runs_executing = self._gauge("runs_executing", "Runs executing in this process")
        self.runs_waiting = self._gauge("runs_waiting", "Runs of the whole database that wait for an executor")
        self.runs_oldest_waiting = self._gauge(
            "runs_oldest_waiting_seconds", "Seconds for which the oldest of them has waited"
        )

    def _models(self) -> None:
        self.model_first_token_seconds = self._seconds(
            "model_first_token", "Seconds from the request to a model to its first token", "model"
        )
        self.model_seconds = self._seconds("model", "Seconds that answers of a model take", "model", "outcome")
        self.tokens = self._counter("tokens", "Tokens used, as models report them", "kind", "model")

    def _ingestion(self) -> None:
        self.files_indexed = self._counter(
            "vector_store_files",
            "Files of vector stores that this process has brought to their end, by final status",
            "status",
        )
        self.files_indexing = self._gauge("vector_store_files_indexing", "Files that this process is indexing")
        self.file_seconds = self._seconds("vector_store_file", "Seconds that making a file searchable takes")
        self.chunks_indexed = self._counter("vector_store_chunks", "Chunks that this process has indexed")
        self.file_retries = self._counter(
            "vector_store_file_retries", "Files handed back because of an outage, to be tried again"
        )
        self.files_waiting = self._gauge(
            "vector_store_files_waiting", "Files of the whole database that wait for being indexed"
        )
        self.files_oldest_waiting = self._gauge(
            "vector_store_files_oldest_waiting_seconds", "Seconds for which the oldest of them has waited"
        )

    def _search(self) -> None:
        self.search_seconds = self._seconds(
            "search", "Seconds that searches in vector stores take", "outcome", buckets=_REQUESTS
        )
        self.embeddings_available = self._gauge(
            "embeddings_available",
            "1 if files are found by what they mean, 0 if by their words only (degraded)",
        )
        self.reranks = self._counter(
            "reranks",
            "Queries whose passages a reranker was to judge; after a failed one the search's own order stands",
            "outcome",
        )

    def _sandboxes(self) -> None:
        self.sandboxes = self._gauge(
            "sandboxes", "Sandboxes of this process: warm, busy with code, idle between two calls of a thread", "state"
        )
        self.sandbox_seconds = self._seconds("sandbox", "Seconds that a call waits for the sandbox of its thread")
        self.sandbox_failures = self._counter(
            "sandbox_failures", "Sandboxes that could not be had (unavailable) or were gone (lost)", "reason"
        )

    def _process(self) -> None:
        ProcessCollector(registry=self.registry)  # CPU, memory, open files
        self._gauge("build_info", "1, with the version that runs", "version").labels(__version__).set(1)
        self.event_loop_lag_seconds = self._seconds(
            "event_loop_lag", "Seconds by which the event loop comes late, sampled four times a second", buckets=_LAG
        )
        self.database_connections = self._gauge(
            "database_connections", "Connections to the database in use, and statements that wait for one", "state"
        )
        self.database_connections_max = self._gauge(
            "database_connections_max", "Connections to the database that this process opens at most"
        )


def table() -> str:
    """All that this project measures, as docs/observing.md has it."""
    rows = [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in Metrics().described]
    return "\n".join(["| Metric | Type | Meaning |", "|---|---|---|", *rows])
