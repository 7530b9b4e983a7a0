"""ASGI middleware of vLLM's own server: a budget for requests that name none, so that a latency target holds.

    vllm serve … --trust-request-mm-kwargs --middleware adallava.serving.latency_middleware.BudgetMiddleware

What counts, in this order: the field `mm_processor_kwargs.token_budget`, the header `x-token-budget`, the controller
(with ADALLAVA_TTFT_TARGET_MS), the server's default. The answer's header `x-token-budget` says which it was. Other
`mm_processor_kwargs`, which vLLM's flag lets in as well, are kept out: they decide how much memory a picture takes.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from adallava.budget import TokenBudget
from adallava.errors import AdallavaError, BudgetError, InputError
from adallava.serving.choice import BUDGET_KEY, SEED_KEY
from adallava.serving.latency_target import Control, LatencyTarget, Window, next_control
from adallava.serving.settings import ServingSettings
from adallava.serving.vllm_metrics import BUDGET, Load, read_load

BUDGET_HEADER = "x-token-budget"

_PATHS = ("/v1/chat/completions", "/v1/completions")
_MOST_WINDOWS = 64
"""Windows without a request that are made up for at once: enough for every step back to full tokens."""

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TargetKeeper:
    """Reads the server's metrics window by window, whenever a request comes, and holds the budget of the moment."""

    def __init__(
        self,
        target: LatencyTarget,
        *,
        window_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        load: Callable[[], Load] = read_load,
    ) -> None:
        """Begin with every token.

        Args:
            target: what is to hold.
            window_s: how long a window is.
            clock: in seconds.
            load: reads what the server has done since it started.
        """
        self._target, self._window_s, self._clock, self._load = target, window_s, clock, load
        self._control, self._before, self._since = Control(), load(), clock()

    def budget(self) -> float:
        """Return the share of vision tokens of a request that comes now."""
        windows = int((self._clock() - self._since) / self._window_s)
        if windows > 0:
            after = self._load()
            self._step(after.since(self._before))
            for _ in range(min(windows - 1, _MOST_WINDOWS)):
                self._step(Window(waiting=after.waiting))
            self._before, self._since = after, self._clock()
        return self._target.budgets[self._control.level]

    def _step(self, window: Window) -> None:
        self._control = next_control(self._target, self._control, window)


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
        self._keeper: TargetKeeper | None = None
        if settings.ttft_target_ms is not None:
            target = LatencyTarget(settings.ttft_target_ms, settings.least_token_budget)
            self._keeper = TargetKeeper(target, window_s=settings.window_s)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        default = self._default()
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(_PATHS):
            await self._app(scope, receive, send)
            return
        body = await _whole_body(receive)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            changed, budget = with_budget(body, headers.get(BUDGET_HEADER), default, self._settings)
        except AdallavaError as error:
            await _refuse(send, error)
            return
        own = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
        scope = {**scope, "headers": [*own, (b"content-length", str(len(changed)).encode())]}
        await self._app(scope, _replayed(changed, receive), _saying(budget, send))

    def _default(self) -> TokenBudget:
        """Return the budget of a request that names none, and show it."""
        own = self._settings.default_budget
        if self._keeper is not None:
            share = self._keeper.budget()
            own = own if share == 1.0 else TokenBudget(ratio=share)
        if own.ratio is not None:
            BUDGET.set(own.ratio)
        return own


def with_budget(
    body: bytes, header: str | None, default: TokenBudget, settings: ServingSettings
) -> tuple[bytes, TokenBudget]:
    """Return a request's body with a budget, and that budget.

    Args:
        body: JSON; anything else is left to the server, which says what is wrong with it.
        header: of the request, if there is one.
        default: of a request that names none.
        settings: of the server.

    Raises:
        BudgetError: for a budget that means nothing.
        InputError: for other `mm_processor_kwargs`.
    """
    try:
        asked = json.loads(body)
    except ValueError:
        return body, default
    if not isinstance(asked, dict):
        return body, default
    options = asked.get("mm_processor_kwargs") or {}
    if not isinstance(options, dict):
        return body, default
    _check_options(asked, options, settings)
    if BUDGET_KEY in options:
        return body, TokenBudget.parse(options[BUDGET_KEY])
    budget = default if header is None else TokenBudget.parse(header)
    if header is None and budget == settings.default_budget:
        return body, budget  # The server's own business.
    value = budget.ratio if budget.ratio is not None else budget.count
    changed = {**asked, "mm_processor_kwargs": {**options, BUDGET_KEY: value}}
    return json.dumps(changed).encode(), budget


def _check_options(asked: Mapping[str, Any], options: Mapping[str, Any], settings: ServingSettings) -> None:
    if settings.allow_other_mm_kwargs:
        return
    others = sorted(set(options) - {BUDGET_KEY, SEED_KEY}) + (
        ["media_io_kwargs"] if asked.get("media_io_kwargs") else []
    )
    if others:
        raise InputError(
            f"this server takes {BUDGET_KEY} and {SEED_KEY} in mm_processor_kwargs, and not {', '.join(others)}"
        )


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
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _saying(budget: TokenBudget, send: _Send) -> _Send:
    async def say(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"x-token-budget", str(budget).encode())]}
        await send(message)

    return say


async def _refuse(send: _Send, error: AdallavaError) -> None:
    kind = "BudgetError" if isinstance(error, BudgetError) else "BadRequestError"
    said = {"error": {"message": str(error), "type": kind, "param": "mm_processor_kwargs", "code": 400}}
    body = json.dumps(said).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
