"""What Prometheus sees beside vLLM's own figures, at the same `/metrics`."""

from prometheus_client import Counter, Gauge, Histogram

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
