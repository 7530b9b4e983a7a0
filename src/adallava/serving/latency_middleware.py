"""ASGI middleware of vLLM's own server: a budget for requests that name none, so that a latency target holds.

    vllm serve … --trust-request-mm-kwargs --middleware adallava.serving.latency_middleware.BudgetMiddleware

What counts, in this order: the field `mm_processor_kwargs.token_budget`, the header `x-token-budget`, the controller
(with ADALLAVA_TTFT_TARGET_MS), the server's default. The answer's header `x-token-budget` says which it was. Other
`mm_processor_kwargs`, which vLLM's flag lets in as well, are kept out: they decide how much memory an image takes.
"""

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from adallava.budget import TokenBudget
from adallava.errors import AdallavaError, BudgetError, InputError
from adallava.serving.in_flight import InFlight
from adallava.serving.latency_target import LatencyTarget
from adallava.serving.request_body import with_budget
from adallava.serving.serving_settings import ServingSettings
from adallava.serving.target_keeper import TargetKeeper
from adallava.serving.vllm_metrics import BUDGET, read_load, read_waiting

BUDGET_HEADER = "x-token-budget"

_FIRST_ERROR = 400
_PATHS = ("/v1/chat/completions", "/v1/completions")

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BudgetMiddleware:
    """See the module."""

    def __init__(self, app: Any) -> None:
        """Stand before an application.

        Raises:
            InputError: without a configured method.
        """
        self._app = app
        settings = ServingSettings.read()
        if settings is None:
            raise InputError("the budget middleware needs a method: set ADALLAVA_METHOD")
        self._settings = settings
        self._in_flight = in_flight = InFlight(_now_ms)
        self._keeper: TargetKeeper | None = None
        if settings.ttft_target_ms is not None:
            target = LatencyTarget(settings.ttft_target_ms, settings.least_token_budget, settings.most_token_share)
            self._keeper = TargetKeeper(
                target, lambda: read_load(in_flight.busy_ms), clock_ms=_now_ms, window_ms=1000 * settings.window_s
            )

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan" and not _lets_budgets_in(scope):
            await _fail_to_start(receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        default = self._default(scope)
        if scope["method"] != "POST" or not scope["path"].endswith(_PATHS):
            await self._app(scope, receive, send)
            return
        body = await _whole_body(receive)
        try:
            changed, budget = with_budget(body, _budget_header(scope), default, self._settings)
        except AdallavaError as error:
            await _refuse(send, error)
            return
        own = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
        scope = {**scope, "headers": [*own, (b"content-length", str(len(changed)).encode())]}
        number = self._in_flight.begin()
        try:
            saying = _saying(budget, send, lambda: self._in_flight.speaks(number))
            await self._app(scope, _replayed(changed, receive), saying)
        finally:
            self._in_flight.end(number)

    def _default(self, scope: _Scope) -> TokenBudget:
        """Return the budget of a request that names none, and show it."""
        own = self._settings.default_budget
        if self._keeper is not None:
            engine = getattr(scope["app"].state, "engine_client", None)
            own = TokenBudget(ratio=self._keeper.budget(read_waiting(engine, self._in_flight)))
        if own.ratio is not None:
            BUDGET.set(own.ratio)
        return own


def _lets_budgets_in(scope: _Scope) -> bool:
    """Return whether vLLM takes what the middleware writes into a request."""
    arguments = getattr(scope["app"].state, "args", None)
    return bool(getattr(arguments, "trust_request_mm_kwargs", True))


async def _fail_to_start(receive: _Receive, send: _Send) -> None:
    """Refuse at start what would be a 400 for every request as soon as the load rises."""
    await receive()
    said = "the budget middleware needs --trust-request-mm-kwargs: without it vLLM refuses the budgets that it sets"
    await send({"type": "lifespan.startup.failed", "message": f"adallava: {said}"})


def _now_ms() -> float:
    return 1000 * time.monotonic()


def _budget_header(scope: _Scope) -> str | None:
    """Return what the header says, of several all that they say."""
    name = BUDGET_HEADER.encode()
    values = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]
    return ", ".join(values) if values else None


async def _whole_body(receive: _Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: _Receive) -> _Receive:
    given = False

    async def replay() -> MutableMapping[str, Any]:
        """Return the body once, and then whatever the client sends."""
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _saying(budget: TokenBudget, send: _Send, speaks: Callable[[], None]) -> _Send:
    async def say(message: MutableMapping[str, Any]) -> None:
        """Pass a message on, with the budget among the headers of an answer."""
        if message["type"] == "http.response.start" and message["status"] < _FIRST_ERROR:
            own = (BUDGET_HEADER.encode(), str(budget).encode())
            message = {**message, "headers": [*message.get("headers", ()), own]}
        elif message.get("body"):
            speaks()
        await send(message)

    return say


async def _refuse(send: _Send, error: AdallavaError) -> None:
    kind = "BudgetError" if isinstance(error, BudgetError) else "BadRequestError"
    said = {"error": {"message": str(error), "type": kind, "param": "mm_processor_kwargs", "code": 400}}
    body = json.dumps(said).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
