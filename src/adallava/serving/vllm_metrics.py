"""What Prometheus sees next to vLLM's own figures, at the same `/metrics`."""

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from adallava.serving.in_flight import InFlight
from adallava.serving.latency_target import Waiting
from adallava.serving.target_keeper import Load

TOKENS_KEPT = Histogram(
    "adallava_tokens_kept",
    "Vision tokens that a request with images keeps.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
)
TOKENS_SEEN = Counter("adallava_tokens_seen", "Vision tokens of requests with images before a choice.")
BUDGET = Gauge(
    "adallava_budget",
    "Share of vision tokens that a request without a budget of its own keeps.",
    multiprocess_mode="mostrecent",
)


def count_kept(kept: int, total: int) -> None:
    """Count one request's vision tokens."""
    TOKENS_KEPT.observe(kept)
    TOKENS_SEEN.inc(total)


def read_load(busy_ms: float) -> Load:
    """Read vLLM's own metrics, in the process of its server.

    Args:
        busy_ms: for how long anything has been under way.
    """
    from vllm.v1.metrics.prometheus import get_prometheus_registry

    counts: dict[float, float] = {}
    sums = dict.fromkeys(("vllm:time_to_first_token_seconds_sum", "vllm:prompt_tokens_total"), 0.0)
    for metric in get_prometheus_registry().collect():
        for sample in metric.samples:
            if sample.name == "vllm:time_to_first_token_seconds_bucket":
                bound = 1000 * float(sample.labels["le"])
                counts[bound] = counts.get(bound, 0.0) + sample.value
            elif sample.name in sums:
                sums[sample.name] += sample.value
    ttft_s, prompt_tokens = sums.values()
    first_tokens = tuple((bound, round(count)) for bound, count in sorted(counts.items()))
    return Load(first_tokens, 1000 * ttft_s, round(prompt_tokens), busy_ms)


def read_waiting(engine: Any, in_flight: InFlight) -> Waiting:
    """Return what has no first token yet.

    Args:
        engine: vLLM's `AsyncLLM`, which knows each request that its tokenizer is done with. With another engine
            answers alone tell: one that does not stream counts until it is whole.
        in_flight: requests that came through our middleware.
    """
    known = getattr(engine, "output_processor", None)
    if known is None:
        return Waiting(in_flight.silent, 0, in_flight.oldest_ms(in_flight.silent))
    states = list(known.request_states.values())
    prompts = [state.prompt_len for state in states if state.is_prefilling]
    early = max(0, len(in_flight) - len(states))
    a_prompt = sum(prompts) / len(prompts) if prompts else 0.0
    # Each process of a server knows its own, and the engine serves them all.
    servers = engine.vllm_config.parallel_config._api_process_count
    waiting = len(prompts) + early
    return Waiting(servers * waiting, round(servers * (sum(prompts) + early * a_prompt)), in_flight.oldest_ms(waiting))
