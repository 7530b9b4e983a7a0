"""What a budget gives inside vLLM, and what the latency target does under load: the bundled model on a CPU.

    make test-vllm                                                       # sets the environment up
    .venv-vllm/bin/python benchmarks/serving.py --output docs/results/serving.json

The bundled model is made four times as deep by layers that add nothing: it answers as before, and its prompts cost
what they cost in a larger model. Two parts. *Budgets*: prompt tokens, time to first token alone, and requests/s of many
at once, in turns over K; read as ratios, since a small machine's milliseconds are its own. *Target*: the same load
(calm, a step, calm, a spike, calm), without the controller and with it, at rates made of what was measured before;
accuracy over the run goes beside the milliseconds.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from measured import figures, finish, keep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))
from vllm_server import Server, ask, vllm_serve

from adallava.checkpoints.bundled import model_folder
from adallava.tasks.scenes import scene_sample

MIDDLEWARE = "adallava.serving.latency_middleware.BudgetMiddleware"
BUDGETS = (1.0, 0.25, 16)
ALONE = 3
CALM, BUSY, SPIKE = 0.3, 2.5, 4.0
"""Times the requests/s that the server can answer with every vision token."""


def deeper_tiny(folder: Path, times: int = 4) -> Path:
    """Save the bundled model with further layers that add nothing; return the folder."""
    from safetensors.torch import load_file, save_file

    source = model_folder("tiny")
    shutil.copytree(source, folder)
    config = json.loads((source / "config.json").read_text())
    depth = config["text_config"]["num_hidden_layers"]
    config["text_config"]["num_hidden_layers"] = times * depth
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(source / "model.safetensors")
    first = {name: one for name, one in tensors.items() if ".layers.0." in name and name.startswith("language_model")}
    for layer in range(depth, times * depth):
        for name, one in first.items():
            adds = name.endswith(("o_proj.weight", "down_proj.weight"))
            tensors[name.replace(".layers.0.", f".layers.{layer}.")] = one.new_zeros(one.shape) if adds else one.clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@contextmanager
def served(environment: dict[str, str]) -> Iterator[Server]:
    arguments = ("--trust-request-mm-kwargs", "--middleware", MIDDLEWARE, "--limit-mm-per-prompt", '{"image": 1}')
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        settings = {"ADALLAVA_METHOD": "question", "ADALLAVA_ALLOW_OTHER_BASE": "1", **environment}
        with vllm_serve(deeper_tiny(Path(folder) / "model"), log, *arguments, environment=settings) as server:
            yield server


def sample(number: int) -> tuple[dict[str, Any], str]:
    """Return a request about a scene that no other number has, and its answer."""
    scene, question = scene_sample("test", number)
    return ask(question.text, scene.image, stream=True, stream_options={"include_usage": True}), question.answer


async def answer(client: httpx.AsyncClient, number: int, budget: float | None = None) -> dict[str, Any]:
    """Ask once; return what came, and when."""
    body, right = sample(number)
    if budget is not None:
        body["mm_processor_kwargs"] = {"token_budget": budget}
    begun, first, text, tokens = time.monotonic(), None, "", {}
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            tokens = chunk.get("usage") or tokens
            for choice in chunk["choices"]:
                if choice["delta"].get("content"):
                    first = first or time.monotonic()
                    text += choice["delta"]["content"]
        asked = response.headers["x-token-budget"]
    return {
        "at_s": begun,
        "ttft_ms": 1000 * ((first or time.monotonic()) - begun),
        "budget": float(asked),
        "right": text.strip() == right,
        "prompt_tokens": tokens["prompt_tokens"],
        "new_tokens": tokens["completion_tokens"],
    }


async def budgets(server: Server, repeats: int, at_once: int) -> list[dict[str, Any]]:
    """Return a row a budget; every request has a picture of its own, so that no cache answers."""
    rows: dict[float, dict[str, list[Any]]] = {budget: {"alone": [], "rates": [], "answers": []} for budget in BUDGETS}
    number = 1000
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
        for turn in range(repeats + 1):
            for budget, row in rows.items():
                alone = [await answer(client, number + i, budget) for i in range(ALONE)]
                begun = time.monotonic()
                group = [answer(client, number + ALONE + i, budget) for i in range(at_once)]
                together = await asyncio.gather(*group)
                seconds = time.monotonic() - begun
                number += ALONE + at_once
                if turn == 0:
                    continue  # The first of everything.
                row["alone"] += [one["ttft_ms"] for one in alone]
                row["rates"].append(sum(one["prompt_tokens"] + one["new_tokens"] for one in together) / seconds)
                row["rates_of_requests"] = [*row.get("rates_of_requests", []), at_once / seconds]
                row["answers"] += alone + together
    return [_row(budget, row, rows[1.0]) for budget, row in rows.items()]


def _row(budget: float, row: dict[str, list[Any]], full: dict[str, list[Any]]) -> dict[str, Any]:
    ttft, requests = median(row["alone"]), median(row["rates_of_requests"])
    return {
        "token_budget": budget,
        "prompt_tokens": row["answers"][0]["prompt_tokens"],
        "ttft_ms": ttft,
        "ttft_ratio": ttft / median(full["alone"]),
        "requests_per_s": requests,
        "requests_per_s_ratio": requests / median(full["rates_of_requests"]),
        "tokens_per_s": median(row["rates"]),
        "accuracy": sum(one["right"] for one in row["answers"]) / len(row["answers"]),
        "answers": len(row["answers"]),
    }


def arrivals(capacity: float, seconds: int) -> list[float]:
    """Return when requests come: calm, a step, calm, a short spike, calm."""
    calm, busy, spike = (share * capacity for share in (CALM, BUSY, SPIKE))
    parts = [(calm, seconds), (busy, 2 * seconds), (calm, 2 * seconds), (spike, seconds // 3), (calm, 3 * seconds)]
    times, begun = [], 0.0
    for rate, length in parts:
        times += [begun + i / rate for i in range(int(rate * length))]
        begun += length
    return times


async def under_load(
    server: Server, times: Sequence[float], first: int, budget: float | None = None
) -> list[dict[str, Any]]:
    """Ask at the times given, whatever has been answered; return the answers in order."""
    begun = time.monotonic()

    async def later(number: int, at: float, client: httpx.AsyncClient) -> dict[str, Any]:
        await asyncio.sleep(max(0.0, begun + at - time.monotonic()))
        return {**await answer(client, first + number, budget), "at_s": round(at, 2)}

    limits = httpx.Limits(max_connections=256)
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as client:
        return list(await asyncio.gather(*(later(number, at, client) for number, at in enumerate(times))))


def load_row(answers: Sequence[dict[str, Any]], target_ms: float | None) -> dict[str, Any]:
    times = sorted(one["ttft_ms"] for one in answers)
    return {
        "target_ms": target_ms,
        "requests": len(answers),
        "ttft_p50_ms": median(times),
        "ttft_p95_ms": times[int(0.95 * (len(times) - 1))],
        "accuracy": sum(one["right"] for one in answers) / len(answers),
        "mean_budget": sum(one["budget"] for one in answers) / len(answers),
        "last_budget": answers[-1]["budget"],
        "answers": [[one["at_s"], round(one["ttft_ms"]), one["budget"]] for one in answers],
    }


def on_paper(speed: dict[str, Any]) -> dict[str, Any]:
    """Return what K = 64 of 576 gives on the GPU whose parts `speed.json` holds, if vLLM's take as long as ours do.

    A batch of 8 of LLaVA-1.5-7B's shapes, compiled: requests that only wait for their first token, and whole answers.
    """
    cells = {cell["cell"]: cell for cell in speed["cells"] if (cell["engine"], cell["batch_size"]) == ("compiled", 8)}
    full, kept = cells["full@1.0"], cells["visionzip@64"]

    def ratio(part: str) -> float:
        return float(full["ms"][part]["median"] / kept["ms"][part]["median"])

    answer = speed["new_tokens"]
    return {
        "of": "visionzip@64 against full@1.0",
        "first_tokens_per_s_ratio": ratio("time_to_first_token"),
        "answers_per_s_ratio": ratio("total"),
        "requests_in_the_same_cache_ratio": (full["prompt_lengths"][0] + answer) / (kept["prompt_lengths"][0] + answer),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--target-ms", type=float, default=1000.0, help="for the 95th percentile of first tokens")
    parser.add_argument("--seconds", type=int, default=15, help="of a part of the load")
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    speed = json.loads((Path(__file__).parents[1] / "docs/results/speed.json").read_text())
    made = figures(
        model="tiny",
        task="scenes",
        method="question",
        vllm=_vllm_version(),
        budgets=[],
        loads=[],
        on_paper=on_paper(speed),
    )
    with served({"ADALLAVA_TTFT_TARGET_MS": str(args.target_ms)}) as server:
        made["budgets"] = asyncio.run(budgets(server, args.repeats, args.at_once))
        keep(made, args.output)
        full = made["budgets"][0]
        times = arrivals(full["requests_per_s"], args.seconds)
        made["loads"].append(load_row(asyncio.run(under_load(server, times, 20_000, 1.0)), None))
        keep(made, args.output)
        # Whoever names a budget goes past the controller, which has seen that load all the same: quiet lets it go back.
        time.sleep(args.seconds)
        asyncio.run(under_load(server, [0.0, 2.0, 4.0, 6.0], 10_000))
        made["loads"].append(load_row(asyncio.run(under_load(server, times, 40_000)), args.target_ms))
    finish(made, args.output)


def _vllm_version() -> str:
    from importlib.metadata import version

    return version("vllm")


if __name__ == "__main__":
    main()
