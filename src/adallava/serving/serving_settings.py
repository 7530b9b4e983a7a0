"""How a server is configured: by the environment, or by a file that it names.

    ADALLAVA_METHOD=question ADALLAVA_TOKEN_BUDGET=64 vllm serve …
    ADALLAVA_SERVING=serving.toml vllm serve …          method = "question", token_budget = 64, …

vLLM starts further processes, each of which reads this again; the environment reaches them all.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from adallava.budget import TokenBudget
from adallava.errors import InputError, UnsupportedModeError

FILE_VARIABLE = "ADALLAVA_SERVING"
"""Names a TOML or JSON file with the fields of `ServingSettings`."""

OTHERS_VARIABLE = "ADALLAVA_ALLOW_OTHER_MM_KWARGS"

_VARIABLES = {
    "method": "ADALLAVA_METHOD",
    "adapter": "ADALLAVA_ADAPTER",
    "allow_other_base": "ADALLAVA_ALLOW_OTHER_BASE",
    "method_options": "ADALLAVA_METHOD_OPTIONS",
    "token_budget": "ADALLAVA_TOKEN_BUDGET",
    "ttft_target_ms": "ADALLAVA_TTFT_TARGET_MS",
    "least_token_budget": "ADALLAVA_LEAST_TOKEN_BUDGET",
    "window_s": "ADALLAVA_WINDOW_S",
    "allow_other_mm_kwargs": OTHERS_VARIABLE,
}
_REFUSED = {
    "scheduler": "ADALLAVA_SCHEDULER",
    "latency": "ADALLAVA_LATENCY",
}


class ServingSettings(BaseModel):
    """What a server does with vision tokens.

    Attributes:
        method: a name of `adallava.registry.selector_names()` that chooses before the LLM; "full" keeps every token.
        adapter: folder of a learned method's weights; None for `<model's folder>/adapters/<method>`.
        allow_other_base: accept an adapter that was trained on other weights of the same shapes.
        method_options: constructor arguments of a method that is not learned.
        token_budget: budget of requests that name none; 1.0 leaves them to stock vLLM. With a target it is a share: the
            most that the controller gives.
        ttft_target_ms: the latency controller keeps the 95th percentile of time to first token below this.
        least_token_budget: the smallest share that the controller goes down to.
        window_s: how long the controller watches before it learns.
        allow_other_mm_kwargs: let clients give other `mm_processor_kwargs` too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(min_length=1)
    adapter: str | None = None
    allow_other_base: bool = False
    method_options: dict[str, Any] = Field(default_factory=dict)
    token_budget: float | int | str = 1.0
    ttft_target_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    least_token_budget: float = Field(default=0.0625, gt=0, le=1)
    window_s: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    allow_other_mm_kwargs: bool = False

    @field_validator("token_budget")
    @classmethod
    def _is_a_budget(cls, value: float | int | str) -> float | int | str:
        TokenBudget.parse(value)
        return value

    @model_validator(mode="after")
    def _leaves_the_controller_room(self) -> Self:
        most = self.default_budget.ratio
        if self.ttft_target_ms is None or (most is not None and self.least_token_budget <= most):
            return self
        raise ValueError(
            f"with a target it goes down from token_budget = {self.token_budget!r} to {self.least_token_budget}: give "
            "token_budget as a share that is no less"
        )

    @property
    def most_token_share(self) -> float:
        """The share of vision tokens that the controller begins with."""
        return self.default_budget.ratio or 1.0

    @property
    def default_budget(self) -> TokenBudget:
        """`token_budget`, read."""
        return TokenBudget.parse(self.token_budget)

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Return what the environment asks for; None if it asks for nothing. A variable wins over the file.

        Raises:
            InputError: for a file that cannot be read, or a value that means nothing, naming it.
            UnsupportedModeError: for what vLLM cannot do.
        """
        given: dict[str, Any] = {}
        if path := environment.get(FILE_VARIABLE):
            given = _read_file(Path(path))
        for name, variable in _VARIABLES.items():
            if value := environment.get(variable):
                given[name] = _json(value, variable) if name == "method_options" else value
        for name, variable in _REFUSED.items():
            if environment.get(variable) or name in given:
                raise UnsupportedModeError(
                    f"{name} is not for vLLM, which runs every layer of the LLM for every request: serve without it, "
                    "or answer with AdaLlava.generate"
                )
        if not given:
            return None
        if "method" not in given:
            raise InputError(
                f"{', '.join(sorted(given))} without a method: set {_VARIABLES['method']}, or `method` in the file "
                f"that {FILE_VARIABLE} names"
            )
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "least_token_budget"
            raise InputError(f"serving: {where} = {given.get(where)!r}: {first['msg']}") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        read = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{FILE_VARIABLE}={str(path)!r} cannot be read as TOML or JSON: {error}") from None
    if not isinstance(read, dict):
        raise InputError(f"{FILE_VARIABLE}={str(path)!r} holds a {type(read).__name__}: give names and values")
    return read


def _json(text: str, variable: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{variable}={text!r} is no JSON: {error}") from None
