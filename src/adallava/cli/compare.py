"""`adallava compare`: parse, call, print."""

import argparse
from typing import TYPE_CHECKING, Any

from .arguments import path_argument
from .shared_options import add_equivalence_margin
from .streams import say, say_json

_SHOWN_IDS = 5

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from adallava.records import Interval
    from adallava.records.run_changes import RunComparison

_DESCRIPTION = """\
Compare two runs over their common samples: for every common cell, the difference in accuracy with its paired
interval, whether it is significant (a paired permutation test, corrected for the number of cells), and how many
samples became wrong or right. Below the table: how the two runs differ.
"""

_MARKS = {"ahead": "*", "differs": "*", "same": "=", "open": ""}

_EPILOG = """\
examples:
  adallava compare runs/before runs/after
  adallava compare runs/before runs/after --list
  adallava compare runs/before runs/after --json | jq '.cells[] | select(.significant) | .cell'

exit codes: 0 compared; 2 a run cannot be read or is not finished, or the two have no sample in common, or another
question or answer under the same id.
docs/concepts/protocol.md says how differences are tested.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "compare",
        help="compare two runs over their common samples",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_a", type=path_argument, metavar="RUN_A", help="the run folder of a finished sweep")
    parser.add_argument("run_b", type=path_argument, metavar="RUN_B", help="another run folder")
    add_equivalence_margin(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--list", action="store_true", help="name the samples that only one run has, or has right")
    shown.add_argument("--json", action="store_true", help="print JSON on stdout instead of a table")


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from adallava.analysis.compare_runs import compare_runs, gather_answers
    from adallava.analysis.margins import check_margin
    from adallava.report.alarm_lines import alarm_lines

    from .finished_run import open_run

    check_margin(args.equivalence_margin)
    opened = [open_run(folder) for folder in (args.run_a, args.run_b)]
    a, b = (gather_answers(str(run.folder), run.run, run.results, run.samples()) for run in opened)
    comparison = compare_runs(a, b, args.equivalence_margin)
    for run in opened:
        for severity, message in alarm_lines(run.results):
            say(f"{run.folder}: {severity.upper()}: {message}", error=True)
    if args.json:
        say_json(comparison.model_dump_json(indent=2))
    else:
        _print(comparison, list_samples=args.list)
    return 0


def _print(comparison: "RunComparison", *, list_samples: bool) -> None:
    from .console import make_console

    console = make_console()
    _print_cells(comparison, console)
    _print_runs(comparison, console, list_samples=list_samples)
    for title, cells in (
        ("in A only", comparison.cells_in_a_only),
        ("in B only", comparison.cells_in_b_only),
        ("without a sample that both answered", comparison.cells_not_answered),
    ):
        if cells:
            console.print(f"{title}: {', '.join(cells)}", markup=False, highlight=False)
    if list_samples:
        for change in comparison.cells:
            for run_name, ids in (("A", change.right_in_a_only), ("B", change.right_in_b_only)):
                if ids:
                    line = f"{change.cell}, right in {run_name} only: {', '.join(ids)}"
                    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_runs(comparison: "RunComparison", console: "Console", *, list_samples: bool) -> None:
    """Say which samples are left out, and in what the runs differ."""
    from adallava.records.setting_words import shortened

    for title, ids in (("A", comparison.samples_in_a_only), ("B", comparison.samples_in_b_only)):
        if ids:
            shown = ids if list_samples else ids[:_SHOWN_IDS]
            more = f" and {len(ids) - len(shown)} more (--list has all)" if len(shown) < len(ids) else ""
            line = f"left out, {len(ids)} samples in {title} only: {', '.join(shown)}{more}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for difference in comparison.differences:
        line = f"differs: {difference.name} is {shortened(difference.a)} in A and {shortened(difference.b)} in B"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not comparison.differences:
        console.print("both runs have the same settings, weights and versions", highlight=False)


def _print_cells(comparison: "RunComparison", console: "Console") -> None:
    from .console import print_fitting

    def make(left_out: frozenset[str]) -> "Table":
        """Return the table without some of its columns."""
        return _cells_table(comparison, left_out)

    print_fitting(make, console, ("found", "in B only", "right in A only", "p"), elsewhere="and by --json")


def _cells_table(comparison: "RunComparison", left_out: frozenset[str]) -> "Table":
    from rich.markup import escape

    from adallava.report.pair_words import least_points, outcome_of

    from .console import figures_table, signed_interval

    table = figures_table(
        f"accuracy in %, A - B with 95 % intervals, {comparison.num_samples} samples; p: corrected for "
        f"{len(comparison.cells)} cells; *: told apart (below 0.05); =: the same within the margin; others: not told "
        'apart, where four of five such runs would find a true difference of "found" points'
    )
    table.add_column("cell", no_wrap=True)
    every = ("A", "B", "A - B", "p", "", "found", "right in A only", "in B only")
    titles = [title for title in every if title not in left_out]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for change in comparison.cells:
        shown = {
            "A": _mean(change.accuracy_a),
            "B": _mean(change.accuracy_b),
            "A - B": escape(signed_interval(change.difference)),
            "p": f"{change.p_adjusted:.3g}",
            "": _MARKS[outcome_of(change)],
            "found": least_points(change),
            "right in A only": str(len(change.right_in_a_only)),
            "in B only": str(len(change.right_in_b_only)),
        }
        table.add_row(escape(change.cell), *(shown[title] for title in titles))
    return table


def _mean(accuracy: "Interval") -> str:
    return f"{100 * accuracy.mean:.1f}"
