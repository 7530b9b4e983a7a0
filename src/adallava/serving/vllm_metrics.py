"""What Prometheus sees beside vLLM's own figures, at the same `/metrics`."""

from prometheus_client import Counter, Gauge, Histogram

from adallava.serving.target_keeper import Load

TOKENS_KEPT = Histogram(
    "adallava_tokens_kept",
    "Vision tokens that a request with pictures keeps.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
)
TOKENS_SEEN = Counter("adallava_tokens_seen", "Vision tokens of requests with pictures before a choice.")
BUDGET = Gauge(
    "adallava_budget",
    "Share of vision tokens that a request without a budget of its own keeps.",
    multiprocess_mode="mostrecent",
)


def count_kept(kept: int, total: int) -> None:
    """Count one request's vision tokens."""
    TOKENS_KEPT.observe(kept)
    TOKENS_SEEN.inc(total)


def read_load() -> Load:
    """Read vLLM's own metrics, in the process of its server."""
    from vllm.v1.metrics.prometheus import get_prometheus_registry

    counts: dict[float, float] = {}
    waiting = 0.0
    for metric in get_prometheus_registry().collect():
        for sample in metric.samples:
            if sample.name == "vllm:time_to_first_token_seconds_bucket":
                bound = 1000 * float(sample.labels["le"])
                counts[bound] = counts.get(bound, 0.0) + sample.value
            elif sample.name == "vllm:num_requests_waiting":
                waiting += sample.value
    return Load(tuple((bound, round(count)) for bound, count in sorted(counts.items())), round(waiting))
