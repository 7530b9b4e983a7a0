"""What `adallava generate` prints: one row a budget and latency."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adallava.model import AdaLlava

    from .generate import BudgetResult


def print_table(model: "AdaLlava", results: Sequence["BudgetResult"], args: argparse.Namespace) -> None:
    """Print the table, and where the pictures are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from adallava.report.layer_strip import strip_text

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    num_tokens = results[0].num_vision_tokens
    console.print(f"{escape(args.question)}  [dim]{escape(args.model)}, {model.method}, N = {num_tokens}[/dim]")
    with_layers = any(result.groups_run is not None for result in results)
    caption = "prompt and answer in tokens; ms of the first row include warming up"
    table = Table(caption=caption + ("; layers: █ ran, ▄ in part, · not" if with_layers else ""))
    for name in ("budget", "K asked", "K kept", "prompt", *(("latency", "layers") if with_layers else ())):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("answer", ratio=1)
    for name in ("length", "finish", "scores", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        low_high = "" if result.score_range is None else "{:.3g} … {:.3g}".format(*result.score_range)
        table.add_row(
            result.budget_asked,
            str(result.tokens_asked),
            _shown_counts(result),
            str(result.prompt_length),
            *((result.latency_asked, strip_text(layer_shares_of(model, result))) if with_layers else ()),
            _shown_answer(result),
            "" if result.answer_length is None else str(result.answer_length),
            result.finish_reason or "",
            low_high,
            f"{result.total_ms:.0f}",
            style=None if result.empty_cause is None else "red",
        )
    console.print(table)
    for path in dict.fromkeys(result.picture for result in results if result.picture is not None):
        console.print(
            f"{'kept patches and layers' if with_layers else 'kept patches'}: {path}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _shown_counts(result: "BudgetResult") -> str:
    """Return K; for a method inside the LLM, the counts on the way to it."""
    return " → ".join(map(str, dict.fromkeys(result.tokens_kept_by_layer or (result.tokens_kept,))))


def _shown_answer(result: "BudgetResult") -> str:
    from rich.markup import escape

    if result.answer is None:
        return "[dim]not generated[/dim]"
    return escape(result.answer) if result.empty_cause is None else f"empty: {result.empty_cause}"


def layer_shares_of(model: "AdaLlava", result: "BudgetResult") -> list[float]:
    """Return the share of each layer that ran: all of each where none was left out."""
    from adallava.report.layer_strip import layer_shares

    if result.groups_run is None:
        return [1.0] * model.base.config.get_text_config().num_hidden_layers
    return layer_shares(result.groups_run, result.groups_per_layer)
