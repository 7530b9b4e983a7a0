"""`adallava bench`: parse, call, print."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adallava.budget import Latency, TokenBudget
from adallava.errors import InputError

from .arguments import (
    add_list_argument,
    parse_batch_sizes,
    parse_method_options,
    parse_method_paths,
    parse_scheduler_options,
    path_argument,
    whole_number,
)
from .shared_options import add_adapter, add_method_option, add_placement, add_quantization, add_scheduler_option
from .streams import say

if TYPE_CHECKING:
    from adallava.bench.bench_request import BenchRequest
    from adallava.records.cells import CellPlan

_DESCRIPTION = """\
Measure the time of an answer by part, to the first token, per token and in all, and its memory, for every
method, budget, latency, batch size and engine, next to stock transformers and this machine's own limit.
"""

_EPILOG = """\
examples:
  adallava bench
  adallava bench --shapes llava-1.5-7b --method uniform,visionzip --token-budget 64 --batch-size 1,8 --output runs/bench
  adallava bench --model llava-hf/llava-1.5-7b-hf --engine stock,graphs,compiled --latency 1.0,0.5 --scheduler spaced
  adallava bench --shapes llava-1.5-7b --cell uniform@64 uniform@64/spaced@0.5 --output speed.json

all cells of a batch size take turns, stock transformers included. What each figure measures: docs/how_to/bench.md.

exit codes: 0 measured; 1 a cell failed (the table says why, the others are measured); 2 a mistake in the call or its
input.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "bench",
        help="time and memory of an answer, next to stock transformers and the machine's own limit",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(parser.add_argument_group("the model"))
    measured = parser.add_argument_group("what is measured")
    _add_cells(measured)
    _add_calls(measured)
    _add_rounds(parser.add_argument_group("how long"))
    parser.add_argument(
        "--output",
        type=path_argument,
        metavar="PATH",
        help="a folder for bench.json and its plot, bench.html; or a .json file, without a plot (default: neither)",
    )
    parser.set_defaults(interrupt_hint="; with --output, batch sizes that were finished are kept")


_CROSSED: dict[str, list[str]] = {
    "--method": ["uniform"],
    "--token-budget": ["0.25"],
    "--scheduler": [],
    "--latency": ["1.0"],
}
"""Options that are crossed into cells, and their defaults."""


def _add_model(group: Any) -> None:
    group.add_argument("--model", help="bundled name, local folder or hub id (default: tiny)")
    group.add_argument(
        "--shapes",
        metavar="NAME",
        help="random weights in published shapes instead: llava-1.5-7b, llava-1.5-13b, qwen2.5-vl-7b, qwen3-vl-8b, "
        "smolvlm2-2.2b, toy (default: none)",
    )
    add_adapter(group, "learned methods and schedulers")
    add_placement(group)
    add_quantization(group)


def _add_cells(group: Any) -> None:
    add_list_argument(
        group, "--method", metavar="NAME", default=["uniform"], help="selection methods (default: uniform)"
    )
    add_method_option(group)
    add_list_argument(
        group,
        "--token-budget",
        metavar="BUDGET",
        default=["0.25"],
        help="shares (0.25, 25%%) or numbers (64) of vision tokens; all of them are always measured (default: 0.25)",
    )
    add_list_argument(
        group,
        "--scheduler",
        metavar="NAME",
        default=[],
        help="schedulers for latencies below 1.0: layers, spaced, … (default: none)",
    )
    add_scheduler_option(group)
    add_list_argument(
        group,
        "--latency",
        metavar="LATENCY",
        default=["1.0"],
        help="shares (0.5) or numbers (24) of layers (default: 1.0)",
    )
    add_list_argument(
        group,
        "--cell",
        metavar="METHOD@BUDGET[/SCHEDULER@LATENCY]",
        default=[],
        help="exactly these cells (default: all combinations of methods, budgets, schedulers and latencies)",
    )


def _add_calls(group: Any) -> None:
    add_list_argument(
        group,
        "--engine",
        metavar="NAME",
        default=["auto"],
        help="auto, stock, graphs, compiled, eager: each runs every cell (default: auto)",
    )
    add_list_argument(group, "--batch-size", metavar="N", default=["1"], help="prompts per batch (default: 1)")
    group.add_argument(
        "--image",
        type=path_argument,
        metavar="FILE",
        help=(
            "image of every prompt, sized by the model's processor (default: noise, 0.3 megapixels where any size "
            "works)"
        ),
    )
    group.add_argument(
        "--text-tokens",
        type=whole_number,
        default=70,
        metavar="N",
        help="text tokens per prompt (default: %(default)s)",
    )
    group.add_argument(
        "--new-tokens", type=whole_number, default=33, metavar="N", help="tokens per answer (default: %(default)s)"
    )


def _add_rounds(group: Any) -> None:
    group.add_argument(
        "--repeats", type=whole_number, default=10, metavar="N", help="rounds to measure (default: %(default)s)"
    )
    group.add_argument(
        "--warm-ups", type=whole_number, metavar="N", help="rounds before those (default: 6 on CUDA, 3 on a CPU)"
    )
    group.add_argument(
        "--seconds",
        type=float,
        default=600.0,
        metavar="S",
        help="start no new round after this many seconds in all (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, write, print, and return 1 if a cell failed, else 0."""
    request = _request(args)
    from adallava.bench.bench_files import output_file, write_figures
    from adallava.bench.run_bench import run_bench
    from adallava.cli.before_loading import check_device, quiet_loading

    from .bench_table import print_bench

    check_device(args.device)
    file = None if args.output is None else output_file(args.output)
    if request.model is not None:
        quiet_loading(request.model)

    paths: list[Path] = []

    def keep(made: dict[str, Any]) -> None:
        """Write what is measured so far, if there is a file to write it to."""
        if file is not None:
            paths[:] = write_figures(file, made)

    document = run_bench(request, say=lambda line: say(line, error=True), keep=keep)
    print_bench(document)
    if paths:
        say(*paths)
    return int(any("error" in cell for cell in document["cells"]))


def _request(args: argparse.Namespace) -> "BenchRequest":
    """Read what was asked.

    Raises:
        InputError: for a value that means nothing.
    """
    budgets, latencies = TokenBudget.parse_all(args.token_budget), Latency.parse_all(args.latency)
    batch_sizes = parse_batch_sizes(args.batch_size, "--batch-size")
    adapters = parse_method_paths(args.adapter)
    method_options = parse_method_options(args.method_option)
    scheduler_options = parse_scheduler_options(args.scheduler_option)
    cells = tuple(dict.fromkeys(map(parse_cell, args.cell)))
    if cells:
        _refuse_crossed(args)
    from adallava.bench.bench_request import BenchRequest

    return BenchRequest(
        model="tiny" if args.model is None and args.shapes is None else args.model,
        shapes=args.shapes,
        methods=tuple(args.method),
        budgets=budgets,
        schedulers=tuple(args.scheduler),
        latencies=latencies,
        cells=cells,
        engines=tuple(args.engine),
        batch_sizes=batch_sizes,
        text_tokens=args.text_tokens,
        new_tokens=args.new_tokens,
        image=args.image,
        dtype=args.dtype,
        device=args.device,
        quantization=args.quantization,
        repeats=args.repeats,
        warm_ups=args.warm_ups,
        seconds=args.seconds,
        adapters=adapters,
        method_options=method_options,
        scheduler_options=scheduler_options,
        command=_command(sys.argv[1:]),
    )


def parse_cell(text: str) -> "CellPlan":
    """Read `METHOD@BUDGET[/SCHEDULER@LATENCY]`, as cells are called in every table.

    Raises:
        InputError: for another form.
        BudgetError: for a budget or a latency that means nothing.
    """
    from adallava.records.cells import NO_BUDGET, CellPlan

    tokens, slash, layers = text.partition("/")
    method, at, budget = tokens.partition("@")
    scheduler, at_latency, latency = layers.partition("@")
    if not (method and at and budget) or (slash and not (scheduler and at_latency and latency)):
        raise InputError(f"--cell {text!r} is not METHOD@BUDGET[/SCHEDULER@LATENCY], such as uniform@64/spaced@0.5")
    return CellPlan(
        method,
        None if budget == NO_BUDGET else TokenBudget.parse(budget),
        scheduler=scheduler or None,
        latency=Latency.parse(latency) if latency else None,
    )


def _command(words: Sequence[str]) -> str:
    return shlex.join(["adallava", *words])


def _refuse_crossed(args: argparse.Namespace) -> None:
    """Refuse what would be crossed in addition to named cells: they would not run, and nobody would say so."""
    for option, default in _CROSSED.items():
        given = getattr(args, option.removeprefix("--").replace("-", "_"))
        if given != default:
            raise InputError(f"{option} {','.join(given)} with --cell, which says exactly what runs: leave one out")
