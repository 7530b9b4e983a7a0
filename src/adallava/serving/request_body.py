"""A request's body, with the budget that counts for it. No server, no clock."""

import json
from collections.abc import Mapping
from typing import Any

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.serving.choice import BUDGET_KEY, SEED_KEY, refuse_others
from adallava.serving.serving_settings import OTHERS_VARIABLE, ServingSettings


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
        InputError: for other `mm_processor_kwargs`, or ours in the wrong place.
    """
    try:
        asked = json.loads(body)
    except ValueError:
        return body, default
    except RecursionError:
        raise InputError("the request's JSON is nested too deeply: send lists and objects of a few levels") from None
    if not isinstance(asked, dict):
        return body, default
    options = asked.get("mm_processor_kwargs") or {}
    if not isinstance(options, dict):
        return body, default
    refuse_others(options, settings)
    _refuse_beside(asked, settings)
    if BUDGET_KEY in options:
        return body, TokenBudget.parse(options[BUDGET_KEY])
    budget = default if header is None else TokenBudget.parse(header)
    if header is None and budget == settings.default_budget:
        return body, budget  # The server's own business.
    value = budget.ratio if budget.ratio is not None else budget.count
    changed = {**asked, "mm_processor_kwargs": {**options, BUDGET_KEY: value}}
    return json.dumps(changed).encode(), budget


def _refuse_beside(asked: Mapping[str, Any], settings: ServingSettings) -> None:
    if asked.get("media_io_kwargs") and not settings.allow_other_mm_kwargs:
        raise InputError(
            f"this server takes no media_io_kwargs: leave them out, or let its owner set {OTHERS_VARIABLE}"
        )
    for key in (BUDGET_KEY, SEED_KEY):
        if key in asked:
            raise InputError(f"{key} is next to mm_processor_kwargs, where vLLM does not look: put it inside")
