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
from dataclasses import dataclass
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
PAUSE_S = 5
JSON = {"content-type": "application/json"}
CALM, BUSY, SPIKE = 0.3, 1.6, 3.5
"""Times the requests/s that the server can answer with every vision token: some budget can serve the first two."""


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


def samples(first: int, count: int, budget: float | None = None) -> list[tuple[bytes, str]]:
    """Return so many requests as they are sent, with their answers: they are not made while the clock runs."""
    made = []
    for number in range(first, first + count):
        body, right = sample(number)
        if budget is not None:
            body["mm_processor_kwargs"] = {"token_budget": budget}
        made.append((json.dumps(body).encode(), right))
    return made


async def answer(client: httpx.AsyncClient, asked: tuple[bytes, str]) -> dict[str, Any]:
    """Ask once; return what came, and when."""
    body, right = asked
    begun, first, text, tokens = time.monotonic(), None, "", {}
    async with client.stream("POST", "/v1/chat/completions", content=body, headers=JSON) as response:
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
                asked = samples(number, ALONE + at_once, budget)
                alone = [await answer(client, one) for one in asked[:ALONE]]
                begun = time.monotonic()
                together = await asyncio.gather(*(answer(client, one) for one in asked[ALONE:]))
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


@dataclass(frozen=True)
class Part:
    """A while in which requests come evenly.

    Attributes:
        name: of it.
        share: requests/s, of those that the server can answer with every vision token.
        seconds: how long.
    """

    name: str
    share: float
    seconds: float


def parts(seconds: float) -> list[Part]:
    """Return a load: calm, a step, calm, a short spike, calm."""
    return [
        Part("calm", CALM, seconds),
        Part("step", BUSY, 2 * seconds),
        Part("calm", CALM, 2 * seconds),
        Part("spike", SPIKE, seconds / 3),
        Part("calm", CALM, 3 * seconds),
    ]


def arrivals(capacity: float, load: Sequence[Part]) -> list[list[float]]:
    """Return when the requests of each part come."""
    times, begun = [], 0.0
    for part in load:
        rate = part.share * capacity
        times.append([begun + i / rate for i in range(int(rate * part.seconds))])
        begun += part.seconds
    return times


async def under_load(
    server: Server, times: Sequence[float], first: int, budget: float | None = None
) -> list[dict[str, Any]]:
    """Ask at the times given, whatever has been answered; return the answers in order."""
    asked = samples(first, len(times), budget)
    begun = time.monotonic()

    async def later(one: tuple[bytes, str], at: float, client: httpx.AsyncClient) -> dict[str, Any]:
        await asyncio.sleep(max(0.0, begun + at - time.monotonic()))
        return {**await answer(client, one), "at_s": round(at, 2)}

    limits = httpx.Limits(max_connections=256)
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as client:
        return list(await asyncio.gather(*(later(one, at, client) for one, at in zip(asked, times, strict=True))))


def load_row(
    answers: Sequence[dict[str, Any]], load: Sequence[Part], times: Sequence[Sequence[float]], target_ms: float | None
) -> dict[str, Any]:
    """Return what a load came to, in all and part by part."""
    rest = list(answers)
    by_part = []
    for part, its_times in zip(load, times, strict=True):
        its, rest = rest[: len(its_times)], rest[len(its_times) :]
        by_part.append({"part": part.name, "share": part.share, "seconds": part.seconds, **_load_figures(its)})
    return {
        "target_ms": target_ms,
        **_load_figures(answers),
        "last_budget": answers[-1]["budget"],
        "parts": by_part,
        "answers": [[one["at_s"], round(one["ttft_ms"]), one["budget"]] for one in answers],
    }


def _load_figures(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    times = sorted(one["ttft_ms"] for one in answers)
    return {
        "requests": len(answers),
        "ttft_p50_ms": median(times),
        "ttft_p95_ms": times[int(0.95 * (len(times) - 1))],
        "accuracy": sum(one["right"] for one in answers) / len(answers),
        "mean_budget": sum(one["budget"] for one in answers) / len(answers),
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
        load = parts(args.seconds)
        times = arrivals(full["requests_per_s"], load)
        every = [at for its_times in times for at in its_times]
        for first, budget, target_ms in ((20_000, 1.0, None), (40_000, None, args.target_ms)):
            # Whoever names a budget goes past the controller.
            answers = asyncio.run(under_load(server, every, first, budget))
            made["loads"].append(load_row(answers, load, times, target_ms))
            keep(made, args.output)
            time.sleep(PAUSE_S)
    finish(made, args.output)


def _vllm_version() -> str:
    from importlib.metadata import version

    return version("vllm")


if __name__ == "__main__":
    main()
