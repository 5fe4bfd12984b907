"""What Prometheus can scrape from a worker, by ``prometheus_client`` (extra ``cloud``)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from ros_vla_accel.cloud.inference import BatchReport
from ros_vla_accel.cloud.worker import WorkerError, WorkerStats
from ros_vla_accel.contracts import PolicySpec

logger = logging.getLogger(__name__)

_OUTCOMES = ("answered", "superseded", "expired", "refused", "busy", "failed", "unavailable")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Metrics:
    """Serves ``http://HOST:PORT/metrics`` until ``close``.

    Raises WorkerError when the address cannot be had, and ImportError without prometheus_client.
    """

    def __init__(self, address: str, spec: PolicySpec):
        """address: ``PORT`` on loopback, or ``HOST:PORT``."""
        import prometheus_client as prometheus

        self._stats: Callable[[], WorkerStats] | None = None
        self._registry = prometheus.CollectorRegistry()
        prefix = "ros_vla_accel_"
        self._queue = prometheus.Histogram(
            prefix + "queue_seconds",
            "Time that an answered request waited",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._inference = prometheus.Histogram(
            prefix + "inference_seconds",
            "Time of one batch in the policy",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._size = prometheus.Histogram(
            prefix + "batch_size",
            "Requests per inference",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        info = prometheus.Info(prefix + "policy", "What is served", registry=self._registry)
        info.info({"name": spec.name, "hash": spec.identity})
        self._registry.register(self)
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = prometheus.start_http_server(
                int(port), host or "127.0.0.1", self._registry
            )
        except (OSError, OverflowError, ValueError) as error:
            raise WorkerError(
                f"metrics cannot be served at '{address}': {error}; expected PORT or HOST:PORT"
            ) from error
        self.url = f"http://{host or '127.0.0.1'}:{self._server.server_port}/metrics"

    def watch(self, stats: Callable[[], WorkerStats]) -> None:
        """Where the counts come from, whenever someone scrapes."""
        self._stats = stats

    def on_batch(self, report: BatchReport) -> None:
        """For ``Worker``."""
        self._inference.observe(report.inference_s)
        self._size.observe(report.size)
        for waited_s in report.queue_s:
            self._queue.observe(waited_s)

    def collect(self) -> Iterator[Any]:
        """Called by prometheus_client at each scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if self._stats is None:
            return
        stats = self._stats()
        requests = CounterMetricFamily(
            "ros_vla_accel_requests", "Requests by what became of them", labels=["outcome"]
        )
        for outcome in _OUTCOMES:
            requests.add_metric([outcome], getattr(stats, outcome))
        yield requests
        for name, text in (
            ("unauthorized", "Messages under a revoked key"),
            ("garbage", "Messages that are not readable"),
        ):
            yield CounterMetricFamily(f"ros_vla_accel_{name}", text, value=getattr(stats, name))
        for name, text in (
            ("waiting", "Requests in the queue"),
            ("robots", "Robots that asked within the last second"),
        ):
            yield GaugeMetricFamily(f"ros_vla_accel_{name}", text, value=getattr(stats, name))

    def close(self) -> None:
        """Frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)


def serve_metrics(address: str | None, spec: PolicySpec) -> Metrics | None:
    """Metrics, or None when nobody asked or prometheus_client is missing, which is logged."""
    if address is None:
        return None
    try:
        metrics = Metrics(address, spec)
    except ImportError:
        logger.warning(
            "no metrics: prometheus_client is not installed; pip install 'ros_vla_accel[cloud]'"
        )
        return None
    logger.info("metrics at %s", metrics.url)
    return metrics
