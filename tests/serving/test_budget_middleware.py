"""The middleware before an application that answers what it was sent."""

import asyncio
import json
from collections.abc import MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from adallava.serving.in_flight import InFlight
from adallava.serving.latency_middleware import BudgetMiddleware
from adallava.serving.latency_target import Waiting
from adallava.serving.vllm_metrics import read_waiting

pytestmark = pytest.mark.vllm

Message = MutableMapping[str, Any]


class Echo:
    """Answers with the body that it got, or as it is told to."""

    status = 200

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if self.status == 0:
            raise RuntimeError("the application fails")
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def middleware(monkeypatch: pytest.MonkeyPatch) -> BudgetMiddleware:
    monkeypatch.setenv("ADALLAVA_METHOD", "uniform")
    return BudgetMiddleware(Echo())


def _ask(
    middleware: BudgetMiddleware, body: bytes, *headers: str, path: str = "/v1/chat/completions"
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the answer; the request comes in two parts."""
    parts = [body[:5], body[5:]]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    of_request = [(b"x-token-budget", one.encode()) for one in headers] + [(b"content-length", b"1")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": of_request}
    asyncio.run(middleware(scope, receive, send))
    own = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], own, b"".join(message.get("body", b"") for message in sent)


def test_a_header_becomes_a_field_and_is_said_in_the_answer(middleware: BudgetMiddleware) -> None:
    status, headers, body = _ask(middleware, b'{"model": "tiny"}', "25%")
    assert (status, headers["x-token-budget"]) == (200, "0.25")
    assert json.loads(body) == {"model": "tiny", "mm_processor_kwargs": {"token_budget": 0.25}}


def test_a_body_that_names_nothing_goes_on_as_it_came(middleware: BudgetMiddleware) -> None:
    assert _ask(middleware, b'{"model":   "tiny"}')[2] == b'{"model":   "tiny"}'
    assert _ask(middleware, b'{"token_budget": "what"}', path="/v1/other")[2] == b'{"tok'


@pytest.mark.parametrize("headers", [("16", "64"), ("lots",), ("",), ("NaN",), ("9" * 5000,)])
def test_headers_that_mean_nothing_are_a_400(middleware: BudgetMiddleware, headers: tuple[str, ...]) -> None:
    status, answered, body = _ask(middleware, b"{}", *headers)
    assert status == 400
    assert "x-token-budget" not in answered
    assert json.loads(body)["error"]["type"] == "BudgetError"
    assert len(body) < 400


def test_a_refusal_of_the_application_names_no_budget(middleware: BudgetMiddleware) -> None:
    middleware._app.status = 404
    assert _ask(middleware, b"{}") == (404, {}, b"{}")


def test_a_request_that_fails_is_no_longer_in_flight(middleware: BudgetMiddleware) -> None:
    middleware._app.status = 0
    with pytest.raises(RuntimeError, match="the application fails"):
        _ask(middleware, b"{}")
    assert len(middleware._in_flight) == 0


@pytest.mark.parametrize("trusts", [True, False])
def test_a_server_that_would_refuse_its_budgets_does_not_start(middleware: BudgetMiddleware, trusts: bool) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    state = SimpleNamespace(args=SimpleNamespace(trust_request_mm_kwargs=trusts))
    asyncio.run(middleware({"type": "lifespan", "app": SimpleNamespace(state=state)}, receive, send))
    failed = [message for message in sent if message["type"] == "lifespan.startup.failed"]
    assert bool(failed) is not trusts
    assert trusts or "--trust-request-mm-kwargs" in failed[0]["message"]


def test_what_waits_is_what_the_engine_has_not_begun_to_answer_and_what_it_does_not_know_yet() -> None:
    flight = InFlight(lambda: 0.0)
    for _ in range(4):
        flight.begin()
    states = [(True, 100), (True, 300), (False, 50)]
    states_by_id = {str(n): SimpleNamespace(is_prefilling=new, prompt_len=size) for n, (new, size) in enumerate(states)}
    engine = SimpleNamespace(
        output_processor=SimpleNamespace(request_states=states_by_id),
        vllm_config=SimpleNamespace(parallel_config=SimpleNamespace(_api_process_count=2)),
    )
    assert read_waiting(engine, flight) == Waiting(requests=2 * 3, prompt_tokens=2 * 600)
    assert read_waiting(None, flight) == Waiting(requests=4, prompt_tokens=0)
