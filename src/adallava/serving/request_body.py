"""A request's body, with the budget that counts for it. No server, no clock."""

import json
from collections.abc import Mapping
from typing import Any

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.serving.choice import BUDGET_KEY, SEED_KEY
from adallava.serving.serving_settings import ServingSettings


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
