"""`vllm serve` with the plug-in, asked over loopback by OpenAI's client."""

import asyncio
import base64
import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest
import torch

openai = pytest.importorskip("openai")
if find_spec("vllm") is None:
    pytest.skip("needs vLLM", allow_module_level=True)

import httpx  # noqa: E402
from vllm_server import ROOT, Server, ask, readme_lines, vllm_serve  # noqa: E402

from adallava import AdaLlava  # noqa: E402
from adallava.model import build_prompt  # noqa: E402
from adallava.tasks.scenes import scene_sample  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

SCENES = [scene_sample("test", number) for number in range(6, 12)]
BUDGETS = (8, 16, 0.25, 1.0)


@dataclass(frozen=True)
class Case:
    """A question that is asked of both, with our own answer."""

    pictures: list[Any]
    question: str
    budget: float
    answer: str


@pytest.fixture(scope="module")
def asked() -> dict[str, list[Case]]:
    """Filled while the server starts."""
    return {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, asked: dict[str, list[Case]]) -> Iterator[Server]:
    """As the README starts it, with what a small machine needs beside, the middleware, and a target that it holds."""
    environment, words, _ = readme_lines()
    log = tmp_path_factory.mktemp("served") / "log.txt"
    middleware = "adallava.serving.latency_middleware.BudgetMiddleware"
    arguments = (*words[1:], "--middleware", middleware, "--limit-mm-per-prompt", '{"image": 2}', "--enable-mm-embeds")
    environment |= {"ADALLAVA_TTFT_TARGET_MS": "600000"}
    with vllm_serve(
        words[0], log, *arguments, environment=environment, meanwhile=lambda: asked.update(_our_answers())
    ) as running:
        yield running


def _our_answers() -> dict[str, list[Case]]:
    ours = AdaLlava.from_pretrained("tiny", method="question")
    pictures, question = [SCENES[0][0].image, SCENES[1][0].image], SCENES[0][1].text
    cases = {
        "mixed": [([scene.image], question.text, budget) for scene, question in SCENES for budget in BUDGETS],
        "another question": [([pictures[0]], other, 16) for other in sorted({one.text for _, one in SCENES[:4]})],
        "two pictures": [(pictures, question, 33)],
    }
    return {name: [Case(*one, _own_answer(ours, *one)) for one in group] for name, group in cases.items()}


def _own_answer(model: AdaLlava, pictures: list[Any], question: str, budget: float) -> str:
    prompt = build_prompt(model.processor, question, num_images=len(pictures))
    inputs = model.processor(images=pictures, text=[prompt], return_tensors="pt")
    output = model.generate(**inputs, token_budget=[budget], positions="compact", max_new_tokens=6)
    return output.text[0].strip()


def _with(budget: float) -> dict[str, Any]:
    return {"extra_body": {"mm_processor_kwargs": {"token_budget": budget}}}


async def _all_at_once(server: Server, requests: list[dict[str, Any]]) -> list[Any]:
    async with server.async_client as client:
        return await asyncio.gather(*(client.chat.completions.create(**request) for request in requests))


def test_answers_at_mixed_budgets_at_once_are_our_own(server: Server, asked: dict[str, list[Case]]) -> None:
    """Twenty-four requests, as many of them together as the server takes; a second time from its caches."""
    requests = [ask(case.question, *case.pictures, **_with(case.budget)) for case in asked["mixed"]]
    expected = [case.answer for case in asked["mixed"]]
    for _ in range(2):
        answers = asyncio.run(_all_at_once(server, requests))
        assert [answer.choices[0].message.content.strip() for answer in answers] == expected
    kept = {budget: 256 if budget == 1.0 else 64 if budget == 0.25 else budget for budget in BUDGETS}
    stock = answers[BUDGETS.index(1.0)].usage.prompt_tokens
    assert [stock - answer.usage.prompt_tokens for answer in answers[:4]] == [256 - kept[budget] for budget in BUDGETS]
    assert server.metric("vllm:prefix_cache_hits_total") > 0


def test_a_request_without_a_budget_is_stock(server: Server) -> None:
    scene, question = SCENES[0]
    plain = server.client.chat.completions.create(**ask(question.text, scene.image, logprobs=True))
    whole = server.client.chat.completions.create(**ask(question.text, scene.image, logprobs=True, **_with(1.0)))
    assert plain.usage == whole.usage
    assert plain.choices[0].logprobs == whole.choices[0].logprobs


def test_another_question_about_a_cached_picture_is_chosen_for_anew(
    server: Server, asked: dict[str, list[Case]]
) -> None:
    for case in asked["another question"]:
        answer = server.client.chat.completions.create(**ask(case.question, *case.pictures, **_with(case.budget)))
        assert answer.choices[0].message.content.strip() == case.answer


def test_a_budget_is_shared_over_two_pictures(server: Server, asked: dict[str, list[Case]]) -> None:
    (case,) = asked["two pictures"]
    answer = server.client.chat.completions.create(**ask(case.question, *case.pictures, **_with(33)))
    one = server.client.chat.completions.create(**ask(case.question, case.pictures[0], **_with(33)))
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert answer.choices[0].message.content.strip() == case.answer


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token_budget": 0}, "token budget 0 is out of range"),
        ({"token_budget": "many"}, "is not a number"),
        ({"token_budget": [8]}, "has type list"),
        ({"token_budget": 8, "selection_seed": "x"}, "is not a seed"),
        ({"max_pixels": 9}, "and not 'max_pixels'"),
        ({"token_budget": 8, "adapter": "../../etc"}, "and not 'adapter'"),
    ],
)
def test_what_means_nothing_is_a_clear_400(server: Server, options: dict[str, Any], said: str) -> None:
    scene, question = SCENES[0]
    with pytest.raises(openai.BadRequestError, match=said):
        server.client.chat.completions.create(
            **ask(question.text, scene.image, extra_body={"mm_processor_kwargs": options})
        )


def test_a_header_names_a_budget_and_a_field_wins_over_it(server: Server) -> None:
    scene, question = SCENES[0]
    create = server.client.chat.completions.with_raw_response.create
    by_header = create(**ask(question.text, scene.image, extra_headers={"x-token-budget": "25%"}))
    by_field = create(**ask(question.text, scene.image, extra_headers={"x-token-budget": "25%"}, **_with(16)))
    assert (by_header.headers["x-token-budget"], by_field.headers["x-token-budget"]) == ("0.25", "16")
    assert by_header.parse().usage.prompt_tokens - by_field.parse().usage.prompt_tokens == 64 - 16


def test_prometheus_sees_what_was_kept(server: Server) -> None:
    scene, question = SCENES[0]
    before = server.metric("adallava_tokens_kept_sum"), server.metric("adallava_tokens_seen_total")
    server.client.chat.completions.create(**ask(question.text, scene.image, **_with(16)))
    after = server.metric("adallava_tokens_kept_sum"), server.metric("adallava_tokens_seen_total")
    assert (after[0] - before[0], after[1] - before[1]) == (16, 256)
    assert server.metric("adallava_budget") == 1.0


def test_the_readmes_question_is_answered_as_written(server: Server) -> None:
    _, _, asks = readme_lines()
    command = asks.replace("localhost:8000", server.url.removeprefix("http://"))
    assert command != asks
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["prompt_tokens"] < 64 + 20


def test_other_ways_in_are_no_way_past_what_is_refused(server: Server) -> None:
    """Pixels that do not fit the tower would end the engine."""
    body = ask("where is the red square?", SCENES[0][0].image) | {"mm_processor_kwargs": {"crop_size": 8}}
    for path in ("/tokenize", "/v1/chat/completions"):
        refused = httpx.post(f"{server.url}{path}", json=body, timeout=60)
        assert (refused.status_code, "crop_size" in refused.text) == (400, True)
        assert "x-token-budget" not in refused.headers
    assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200


def test_rows_from_elsewhere_take_no_budget(server: Server) -> None:
    file = io.BytesIO()
    torch.save(torch.zeros(1, 4, 192), file)
    rows = {"type": "image_embeds", "image_embeds": base64.b64encode(file.getvalue()).decode()}
    body = ask("where is the red square?") | {"mm_processor_kwargs": {"token_budget": 8}}
    body["messages"][0]["content"].insert(0, rows)
    refused = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert (refused.status_code, "rows that were encoded elsewhere" in refused.text) == (400, True)


def test_text_alone_is_answered(server: Server) -> None:
    assert server.client.chat.completions.create(**ask("where is the red square?")).usage.prompt_tokens < 20
