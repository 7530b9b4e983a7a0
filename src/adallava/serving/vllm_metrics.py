"""What Prometheus sees beside vLLM's own figures, at the same `/metrics`."""

from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import Counter, Gauge, Histogram

from adallava.serving.latency_target import Window

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


@dataclass(frozen=True)
class Load:
    """What a server has done since it started.

    Attributes:
        first_tokens: how many requests got their first token within each bound in ms, those of lower bounds with them.
        waiting: requests in the queue now.
    """

    first_tokens: tuple[tuple[float, int], ...] = ()
    waiting: int = 0

    def since(self, before: "Load") -> Window:
        """Return what was done between two readings."""
        earlier = dict(before.first_tokens)
        new = [(bound, count - earlier.get(bound, 0)) for bound, count in self.first_tokens]
        own = [new[0], *((bound, count - lower) for (_, lower), (bound, count) in pairwise(new))] if new else []
        return Window(tuple(own), self.waiting)


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
