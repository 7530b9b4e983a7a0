"""`adallava doctor`: parse, call, print."""

import argparse
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adallava.budget import TokenBudget
from adallava.errors import InputError

from .arguments import (
    add_list_argument,
    options_of_methods,
    parse_method_paths,
    path_argument,
    whole_number,
)
from .shared_options import add_adapter, add_engine, add_method_option, add_placement, add_quantization
from .streams import say, say_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from adallava.doctor import Diagnosis, Outcome
    from adallava.model import AdaLlava

_ALL_METHODS = "all"
_MAX_SAMPLES = 1000
_SHOWN_LINES = 4

_DESCRIPTION = """\
Look for known bugs of evaluations at a token budget: scores over empty answers, cut answers,
budgets that never reached the model, answers that depend on their batch, and so on.

RUN is a run folder of `adallava sweep`, or what lmms-eval wrote with --log_samples: a *_samples_*.jsonl file, or
a folder with one for each budget. What such a file cannot show is reported as not visible, never as healthy.
With --model, check a live model against the stock model: a few bundled images, alone and in a batch.
"""

_EPILOG = """\
examples:
  adallava doctor runs/first
  adallava doctor lmms_eval_output/
  adallava doctor lmms_eval_output/ --task lmms:vqav2_val
  adallava doctor --model tiny --method question,uniform
  adallava doctor runs/first --json | jq .healthy

exit codes: 0 nothing found; 1 something found; 2 the input cannot be read, or a mistake in the call.
docs/how_to/doctor.md says what each check looks at.
"""

_TABLE_WIDTH = 85
"""Columns below which the evidence would be a word or two wide, and each check is a line instead."""

_MARKS = {
    "passed": ("[green]pass[/green]", ""),
    "found": ("[bold red]FOUND[/bold red]", ""),
    "not-visible": ("[dim]not visible[/dim]", "dim"),
}
_BLAME = {
    "harness-bug": "the code around the model",
    "model-finding": "the model itself",
    "cannot-tell": "cannot tell from this",
}


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "doctor",
        help="find known evaluation bugs in a finished run, in lmms-eval's samples, or in a model",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_path", nargs="?", type=path_argument, metavar="RUN", help="a run folder, or lmms-eval's samples"
    )
    parser.add_argument(
        "--task",
        metavar="lmms:NAME",
        help=(
            "for lmms-eval's samples: load the right answers from this task, if the samples name none, as VQAv2's do "
            "not (default: none)"
        ),
    )
    parser.add_argument(
        "--include-path", type=path_argument, metavar="DIR", help="folder with your own lmms-eval tasks (default: none)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout instead of tables")
    _add_live(parser.add_argument_group("a model, live"))


def _add_live(group: Any) -> None:
    group.add_argument("--model", help="bundled name, local folder or hub id (default: none, read RUN)")
    add_list_argument(
        group,
        "--method",
        metavar="NAME",
        default=[_ALL_METHODS],
        help="methods to check (default: full and every installed method, learned ones only with an adapter)",
    )
    add_method_option(group)
    add_list_argument(
        group,
        "--token-budget",
        metavar="BUDGET",
        default=["0.5", "0.25", "0.1"],
        help="budgets to check besides the full one (default: 0.5,0.25,0.1)",
    )
    add_adapter(group)
    group.add_argument("--num-samples", type=whole_number, default=6, help="images to ask about (default: %(default)s)")
    add_placement(group)
    add_engine(group)
    add_quantization(group)


def run(args: argparse.Namespace) -> int:
    """Diagnose, print, and return 1 if something was found, else 0."""
    if (args.run_path is None) == (args.model is None):
        raise InputError("give either RUN, a finished run, or --model, a model to drive")
    if args.model is not None and args.task is not None:
        raise InputError(f"--task {args.task} is for a finished run, not for --model")
    diagnoses = [_diagnose_run(args)] if args.model is None else list(_diagnose_live(args))
    healthy = all(diagnosis.healthy for diagnosis in diagnoses)
    if args.json:
        document = {"healthy": healthy, "diagnoses": [diagnosis.to_json() for diagnosis in diagnoses]}
        say_json(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _print(diagnoses)
    return int(not healthy)


def _diagnose_run(args: argparse.Namespace) -> "Diagnosis":
    from adallava.doctor import diagnose_answers, diagnose_run, load_answers, with_targets

    if args.task is None:
        return diagnose_run(args.run_path)
    file = load_answers(args.run_path)
    if file.form != "lmms-eval":
        raise InputError(f"--task {args.task} is for lmms-eval's samples: {args.run_path} names its right answers")
    from adallava.tasks import load_task

    task = load_task(args.task, limit=None, include_path=args.include_path)
    targets = {sample.id: sample.answers for sample in task.samples}
    return diagnose_answers(with_targets(file, args.task.partition(":")[2], targets))


def _diagnose_live(args: argparse.Namespace) -> Iterator["Diagnosis"]:
    budgets, adapters = TokenBudget.parse_all(args.token_budget), parse_method_paths(args.adapter)
    if args.num_samples < 2:
        raise InputError(f"--num-samples is {args.num_samples}: give at least 2, or there is no batch to compare")
    if args.num_samples > _MAX_SAMPLES:
        raise InputError(f"--num-samples is {args.num_samples}: give at most {_MAX_SAMPLES}, which are one batch")
    # Only now: loading torch takes seconds, which a mistake in the call should not cost.
    from adallava.cli.before_loading import load_full
    from adallava.doctor.live.checks import diagnose_method
    from adallava.records import FULL_METHOD
    from adallava.registry import load_selector_class, selector_names

    for name in args.method:
        if name not in (_ALL_METHODS, FULL_METHOD):
            load_selector_class(name)  # A misspelled method is reported before a model is loaded.
    named = selector_names() if _ALL_METHODS in args.method else args.method
    options = options_of_methods(args.method_option, named)
    full = load_full(args)
    for method in _checkable(full, args.method, adapters, options):
        say(f"checking {method} …", error=True)
        yield diagnose_method(
            full,
            method,
            adapters.get(method),
            budgets,
            num_samples=args.num_samples,
            options=options.get(method, {}),
        )


def _checkable(
    full: "AdaLlava", asked: Sequence[str], adapters: Collection[str], options: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return the methods to check, each once; of `all`, those that this model can run, and say why not the others."""
    from adallava.records import FULL_METHOD
    from adallava.registry import selector_names
    from adallava.runs.availability import why_left_out

    methods: dict[str, None] = {}
    for name in asked:
        if name != _ALL_METHODS:
            methods[name] = None
            continue
        methods[FULL_METHOD] = None
        for known in selector_names():
            reason = None if known in adapters else why_left_out(full, known, options.get(known, {}))
            if reason is None:
                methods[known] = None
            else:
                say(f"method {known} is left out: {reason}", error=True)
    return list(methods)


def _print(diagnoses: Sequence["Diagnosis"]) -> None:
    from .console import make_console

    console = make_console()
    for diagnosis in diagnoses:
        _print_diagnosis(console, diagnosis)


def _print_diagnosis(console: "Console", diagnosis: "Diagnosis") -> None:
    from rich.markup import escape

    console.print(f"[bold]{escape(diagnosis.source)}[/bold]: {escape(diagnosis.summary)}", highlight=False)
    if console.width < _TABLE_WIDTH:
        for outcome in diagnosis.outcomes:
            mark, style = _MARKS[outcome.status]
            number = f" ({outcome.failure})" if outcome.failure else ""
            line = f"{mark}: {outcome.check}{number}: {escape(_shown_evidence(outcome))}"
            console.print(line, style=style, highlight=False)
    else:
        console.print(_outcomes_table(diagnosis))
    for outcome in diagnosis.findings:
        _print_finding(console, outcome)
    console.print(_verdict(diagnosis), style="green" if diagnosis.healthy else "red", highlight=False)
    console.print()


def _outcomes_table(diagnosis: "Diagnosis") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("evidence", ratio=1)
    for outcome in diagnosis.outcomes:
        mark, style = _MARKS[outcome.status]
        number = str(outcome.failure or "")
        table.add_row(number, outcome.check, mark, escape(_shown_evidence(outcome)), style=style)
    return table


def _shown_evidence(outcome: "Outcome") -> str:
    lines = list(outcome.evidence[:_SHOWN_LINES])
    if len(outcome.evidence) > _SHOWN_LINES:
        lines.append(f"… and {len(outcome.evidence) - _SHOWN_LINES} more (--json has all)")
    return "\n".join(lines)


def _print_finding(console: "Console", outcome: "Outcome") -> None:
    from rich.markup import escape

    blame = _BLAME[outcome.severity or "cannot-tell"]
    console.print(f"[bold red]{outcome.check}[/bold red]: {escape(outcome.title)} (cause: {blame})")
    if outcome.examples:
        console.print(f"  for instance: {escape(', '.join(outcome.examples))}", highlight=False)
    console.print(f"  remedy: {escape(outcome.remedy or '')}", highlight=False)


def _verdict(diagnosis: "Diagnosis") -> str:
    passed = sum(outcome.status == "passed" for outcome in diagnosis.outcomes)
    unseen = [outcome.check for outcome in diagnosis.outcomes if outcome.status == "not-visible"]
    hidden = f"; not visible here: {', '.join(unseen)}" if unseen else ""
    if diagnosis.healthy:
        return f"healthy: {passed} checks passed{hidden}"
    return f"{len(diagnosis.findings)} found, {passed} checks passed{hidden}"
