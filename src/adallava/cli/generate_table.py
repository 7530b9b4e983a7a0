"""The results of `adallava generate` on stdout: a table, or JSON."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from adallava.records import SeenPictures
from adallava.records.picture_frames import Frame, seen_share
from adallava.report.layer_strip import strip_text
from adallava.report.seen import cut_words

from .arguments import options_of_methods
from .console import make_console, print_fitting
from .streams import say_json

if TYPE_CHECKING:
    from adallava.model import AdaLlava
    from adallava.runs.budget_result import BudgetResult


_LEFT_OUT = ("scores", "finish", "length", "prompt", "K asked")
"""Columns that a narrow terminal goes without, that which is missed least first; --json has all."""


def print_json(
    model: "AdaLlava", results: Sequence["BudgetResult"], frames: Sequence[Frame | None], args: argparse.Namespace
) -> None:
    """Print everything as one JSON document."""
    document = {
        "model": args.model,
        "method": model.method,
        "adapter_sha256": model.adapter_sha256,
        "scheduler": None if model.scheduler is None else model.scheduler.name,
        "scheduler_sha256": model.scheduler_sha256,
        "method_options": options_of_methods(args.method_option, [args.method]).get(args.method, {}),
        "images": [str(path) for path in args.image],
        "pad_to_square": args.pad_to_square,
        "least_pixels": args.least_pixels,
        "most_pixels": args.most_pixels,
        "seen_shares": [None if frame is None else round(seen_share(frame), 4) for frame in frames],
        "question": args.question,
        "positions": args.positions,
        "seed": args.seed,
        "results": [result.to_json() for result in results],
    }
    say_json(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(
    model: "AdaLlava", results: Sequence["BudgetResult"], frames: Sequence[Frame | None], args: argparse.Namespace
) -> None:
    """Print one row a budget, and where the images are."""
    console = make_console()
    num_tokens = results[0].ran.num_vision_tokens
    engines = ", ".join(dict.fromkeys(result.ran.engine for result in results if result.ran.engine is not None))
    facts = f"{escape(args.model)}, {model.method}, N = {num_tokens}{engines and f', engine {engines}'}"
    console.print(f"{escape(args.question)}  [dim]{facts}[/dim]")
    words = cut_words(SeenPictures.of([seen_share(frame) for frame in frames if frame is not None]))
    if words is not None:
        console.print(f"! {words}", style="red", markup=False, highlight=False, soft_wrap=True)
    with_layers = any(result.ran.groups_run is not None for result in results)
    print_fitting(partial(_table_of, model, results, with_layers), console, _LEFT_OUT, elsewhere="or with --json")
    drawn = "kept patches and layers" if with_layers else "kept patches"
    for path in dict.fromkeys(result.picture for result in results if result.picture is not None):
        console.print(f"{drawn}: {path}", markup=False, highlight=False, soft_wrap=True)


def _table_of(
    model: "AdaLlava", results: Sequence["BudgetResult"], with_layers: bool, left_out: frozenset[str]
) -> Table:
    caption = "prompt and answer in tokens; ms of the first row include warming up"
    table = Table(caption=caption + ("; layers: █ ran, ▄ in part, · not" if with_layers else ""))
    rows = [_row(model, result, with_layers) for result in results]
    columns = [name for name in rows[0] if name not in left_out]
    for name in columns:
        if name == "answer":
            # What it is to have; where there is more room, it takes that.
            table.add_column(name, ratio=1, min_width=12, max_width=24, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for result, row in zip(results, rows, strict=True):
        table.add_row(*(row[name] for name in columns), style=None if result.empty_cause is None else "red")
    return table


def _row(model: "AdaLlava", result: "BudgetResult", with_layers: bool) -> dict[str, str]:
    ran = result.ran
    layers = {}
    if with_layers:
        layers = {"latency": ran.latency_asked, "layers": strip_text(layer_shares_of(model, result))}
    return {
        "budget": ran.budget_asked,
        "K asked": str(ran.tokens_asked),
        "K kept": _shown_counts(result),
        "prompt": str(ran.prompt_length),
        **layers,
        "answer": _shown_answer(result),
        "length": "" if result.answer is None else str(ran.answer_length),
        "finish": ran.finish_reason or "",
        "scores": "" if ran.score_range is None else "{:.3g} … {:.3g}".format(*ran.score_range),
        "ms": f"{result.total_ms:.0f}",
    }


def _shown_counts(result: "BudgetResult") -> str:
    """Return K; for a method inside the LLM, the counts on the way to it."""
    return " → ".join(map(str, dict.fromkeys(result.ran.tokens_kept_by_layer or (result.ran.tokens_kept,))))


def layer_shares_of(model: "AdaLlava", result: "BudgetResult") -> list[float]:
    """Return the share of each layer that ran: all of each where none was left out."""
    shares = result.ran.layer_shares
    return [1.0] * model.family.num_llm_layers if shares is None else list(map(float, shares))


def _shown_answer(result: "BudgetResult") -> str:
    if result.answer is None:
        return "[dim]not generated[/dim]"
    return escape(result.answer) if result.empty_cause is None else f"empty: {result.empty_cause}"
