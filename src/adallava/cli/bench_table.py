"""What `adallava bench` measured, on stdout: a table a batch size."""

import sys
from functools import partial
from typing import Any

from rich.markup import escape
from rich.table import Table

from .console import figures_table, fitting, make_console

_PLAIN_WIDTH = 170
_PARTS = ("vision", "selector", "projector", "prefill")
_COLUMNS = ("K", *_PARTS, "first token", "÷ floor", "a token", "÷ floor", "answer", "÷ floor", "tokens/s", "GiB")

_LEFT_OUT = ("GiB", *_PARTS, "tokens/s", "÷ floor", "K")
"""Columns that a narrow terminal goes without, that which is missed least first; the files have all."""


def print_bench(document: dict[str, Any]) -> None:
    """Print what was measured, how, and what could not be."""
    console = make_console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    of = document["model"] or f"{document['shapes']}, random weights"
    quantized = f" (our engines: {document['quantization']})" if document["quantization"] != "none" else ""
    console.print(
        f"{escape(of)}, {document['dtype']}{quantized}, {document['device']}, N = {document['num_vision_tokens']}, "
        f"{document['text_tokens']} tokens of text, {document['new_tokens']} of answer",
        highlight=False,
    )
    ceilings = document["ceilings"]
    console.print(
        f"[dim]this machine: {ceilings['flops_per_s'] / 1e12:.3g} TFLOP/s, {ceilings['bytes_per_s'] / 1e9:.4g} GB/s "
        f"({escape(ceilings['source'])})[/dim]",
        highlight=False,
    )
    for size in dict.fromkeys(cell["batch_size"] for cell in document["cells"]):
        cells = [cell for cell in document["cells"] if cell["batch_size"] == size]
        console.print(fitting(partial(_table, cells, size), console, *_LEFT_OUT))
    for cell in document["cells"]:
        name = f"batch {cell['batch_size']}, {cell['engine']}, {cell['cell']}"
        if "error" in cell:
            console.print(f"FAILED {name}: {cell['error']}", style="red", markup=False, highlight=False)
        elif cell["passed_over"]:
            why = f"{name}: {cell['engine_ran']} ran, since {cell['passed_over']}"
            console.print(why, style="dim", markup=False, highlight=False)


def _table(cells: list[dict[str, Any]], batch_size: int, left_out: frozenset[str]) -> Table:
    table = figures_table("ms of the whole batch: medians, [10th, 90th percentile]; a floor is the machine's, not ours")
    table.title = f"batch size {batch_size}"
    table.add_column("engine", no_wrap=True)
    table.add_column("cell", no_wrap=True)
    shown = [number for number, name in enumerate(_COLUMNS) if name not in left_out]
    for number in shown:
        table.add_column(_COLUMNS[number], justify="right", no_wrap=True)
    for cell in cells:
        if "error" in cell:
            table.add_row(escape(cell["engine"]), escape(cell["cell"]), "failed", style="red")
        else:
            figures = _figures(cell)
            table.add_row(escape(_engine(cell)), escape(cell["cell"]), *(figures[number] for number in shown))
    return table


def _engine(cell: dict[str, Any]) -> str:
    """Return the engine that was asked for, and the one that ran where it is another."""
    asked, ran = cell["engine"], cell["engine_ran"]
    return asked if asked == ran else f"{asked} ({ran})"


def _figures(cell: dict[str, Any]) -> list[str]:
    kept, ms = cell["tokens_kept"], cell["ms"]
    shown = ["all" if kept is None else "-".join(map(str, sorted({min(kept), max(kept)})))]
    shown += [f"{ms[part]['median']:.2f}" if part in ms else "" for part in _PARTS]
    for name, with_tails in (("time_to_first_token", True), ("decode_per_token", False), ("total", True)):
        spread, over = ms[name], cell["over_floor"].get(name)
        tails = escape(f" [{spread['low']:.1f}, {spread['high']:.1f}]") if with_tails else ""
        # A time made of the difference of two may be none, on a busy machine.
        figure = f"{spread['median']:.2f}{tails}" if spread["median"] > 0 else "-"
        shown += [figure, "" if over is None else f"{over:.1f}"]
    peak = cell["peak_memory_bytes"]
    return [*shown, f"{cell['tokens_per_s']['median']:.0f}", "" if peak is None else f"{peak / 2**30:.2f}"]
