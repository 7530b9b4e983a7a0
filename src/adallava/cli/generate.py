"""`adallava generate`: parse, call, print."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from adallava.errors import InputError, RunFolderError
from adallava.records import RunConfig

from .arguments import (
    add_list_argument,
    options_of_methods,
    options_of_schedulers,
    path_argument,
    whole_number,
)
from .output_paths import check_output_image
from .shared_options import (
    add_engine,
    add_method_option,
    add_model,
    add_pad_to_square,
    add_placement,
    add_quantization,
    add_scheduler_option,
    config_default,
)
from .streams import say

if TYPE_CHECKING:
    from adallava.model import AdaLlava
    from adallava.records.cells import CellPlan
    from adallava.runs.budget_result import BudgetResult
    from adallava.runs.one_question import OneQuestion

_DESCRIPTION = """\
Answer one question about an image at several token budgets, and see which vision tokens each answer uses.
For every budget: the answer, N, K requested and kept, lengths, the range of scores, and an image of the patches.
"""

_EPILOG = """\
examples:
  adallava generate --image street.jpg --question "What color is the car?" --token-budget 0.5 0.25 32
  adallava generate --image a.png --question "..." --method uniform --output-image strip.png
  adallava generate --image a.png --question "..." --no-generate --json

several images after --image go into one prompt and share its budget; separate their names by spaces. An image that
the model reads in tiles is drawn twice: whole, and joined from its tiles, with the tokens that end rows as a column on
the right. An image that the model's processor crops is drawn whole, with a frame around the part that the model sees.

exit codes: 0 answered; 1 an answer is empty (the table says why); 2 a mistake in the call or its input.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "generate",
        help="answer one question at several token budgets, and see the kept patches",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--image", type=path_argument, nargs="+", required=True, metavar="FILE", help="one or several images"
    )
    parser.add_argument("--question", required=True, help="one question about the images")
    _add_budgets(parser)
    _add_model(parser.add_argument_group("the model"))
    _add_output(parser.add_argument_group("what comes out"))


def _add_budgets(parser: Any) -> None:
    add_list_argument(
        parser,
        "--token-budget",
        dest="token_budgets",
        metavar="BUDGET",
        default=["1.0"],
        help="shares (0.25, 25%%) or numbers (64) of vision tokens (default: 1.0)",
    )
    add_list_argument(
        parser,
        "--latency",
        dest="latencies",
        metavar="LATENCY",
        default=[str(latency) for latency in config_default("latencies")],
        help="shares (0.75, 75%%) or numbers (6) of the LLM's layers that run (default: 1.0)",
    )


def _add_model(group: Any) -> None:
    add_model(group)
    group.add_argument("--method", default="question", help="selection method, or full (default: %(default)s)")
    group.add_argument(
        "--adapter",
        type=path_argument,
        metavar="DIR",
        help="adapter of a learned method (default: adapters/METHOD in the model's folder)",
    )
    add_method_option(group, "mmtok.alpha=0.25")
    group.add_argument(
        "--scheduler",
        metavar="NAME",
        help="what chooses the layers at a latency below 1.0: layers, heads, first, … (default: none)",
    )
    group.add_argument(
        "--scheduler-adapter",
        type=path_argument,
        metavar="DIR",
        help="adapter of a learned or searched scheduler (default: adapters/SCHEDULER in the model's folder)",
    )
    add_scheduler_option(group)
    group.add_argument("--max-new-tokens", type=whole_number, default=32, help="of each answer (default: %(default)s)")
    group.add_argument(
        "--seed",
        type=whole_number,
        default=config_default("seed"),
        help="for methods that draw at random (default: %(default)s)",
    )
    group.add_argument(
        "--positions",
        choices=("original", "compact"),
        default="original",
        help="position ids of the kept tokens: as in the full sequence, or without gaps (default: %(default)s)",
    )
    add_pad_to_square(group)
    add_placement(group)
    add_engine(group)
    add_quantization(group)


def _add_output(group: Any) -> None:
    group.add_argument(
        "--output-image",
        type=path_argument,
        default=Path(),
        metavar="PATH",
        help="a folder for one image per budget, IMAGE.METHOD@BUDGET.png; or a .png file with all side by side "
        "(default: the current folder)",
    )
    group.add_argument("--no-image", action="store_true", help="do not write images")
    group.add_argument("--no-generate", action="store_true", help="only select tokens, without an answer")
    group.add_argument("--json", action="store_true", help="print JSON on stdout instead of a table")


def run(args: argparse.Namespace) -> int:
    """Answer, draw, print, and return 1 if an answer is empty, else 0."""
    config = _read_config(args)
    if not args.no_image:
        check_output_image(args.output_image, args.image, args.method)
    from adallava.tasks.images import open_rgb

    opened = [open_rgb(path) for path in args.image]
    # Only now: loading torch takes seconds, which a mistake in the call should not cost.
    from adallava.families.capabilities.of_llms import window_note
    from adallava.runs.one_question import prepare_question

    model = _load_model(config, args)
    note = window_note(model.family)
    if note is not None:
        say(f"note: {note}", error=True)
    taken = {} if args.no_generate else _tell_of_checkpoint(model)
    asked = prepare_question(model, opened, args.question, max_new_tokens=args.max_new_tokens)
    plans = _plans(config, model.selector is not None and model.selector.ignores_budget)
    results = [_answer(model, asked, plan, args, taken) for plan in plans]
    from .generate_table import print_json, print_table

    show = print_json if args.json else print_table
    if not args.no_image:
        try:
            results = _with_pictures(model, asked, results, args)
        except RunFolderError:
            show(model, results, asked.frames, args)  # The answers are there, whatever became of their images.
            raise
    show(model, results, asked.frames, args)
    return int(any(result.empty_cause is not None for result in results))


def _read_config(args: argparse.Namespace) -> RunConfig:
    """Return what is asked for, as far as it fits the rest of the call.

    Raises:
        InputError: for options that nothing would read.
    """
    schedulers = () if args.scheduler is None else (args.scheduler,)
    config = RunConfig.from_options(
        vars(args),
        methods=(args.method,),
        method_options=options_of_methods(args.method_option, (args.method,)),
        schedulers=schedulers,
        scheduler_options=options_of_schedulers(args.scheduler_option, schedulers),
        positions=(args.positions,),
    )
    if args.scheduler is None and args.scheduler_adapter is not None:
        raise InputError(f"--scheduler-adapter {args.scheduler_adapter}: name the --scheduler that it holds")
    config.check_scheduler()
    if config.latencies_below and args.no_generate:
        raise InputError(
            f"--latency {config.latencies_below} says how much of the LLM runs, which --no-generate leaves out"
        )
    return config


def _plans(config: RunConfig, ignores_budget: bool) -> list["CellPlan"]:
    """Return a cell for each latency and budget; of a method that ignores the budget, for each latency."""
    from adallava.records.cells import CellPlan

    budgets = config.token_budgets[:1] if ignores_budget else config.token_budgets
    return [
        CellPlan(config.methods[0], budget, config.positions[0], latency=latency)
        for latency in config.latencies
        for budget in budgets
    ]


def _load_model(config: RunConfig, args: argparse.Namespace) -> "AdaLlava":
    from adallava.cli.before_loading import load_full
    from adallava.records import FULL_METHOD
    from adallava.registry import load_scheduler_class, load_selector_class

    # A misspelled one is reported before gigabytes are read.
    if args.scheduler is not None:
        load_scheduler_class(args.scheduler)
    if args.method != FULL_METHOD:
        load_selector_class(args.method)
    options: dict[str, Any] = dict(config.method_options.get(args.method, {}))
    model = load_full(args).with_method(args.method, args.adapter, **options)
    if args.scheduler is None:
        return model
    options = dict(config.scheduler_options.get(args.scheduler, {}))
    return model.with_scheduler(args.scheduler, adapter=args.scheduler_adapter, **options)


def _tell_of_checkpoint(model: "AdaLlava") -> dict[str, Any]:
    """Say on stderr what counts of the checkpoint's configuration of generation; return what replaces it."""
    from adallava.pipeline.decoding import SAMPLING, in_words, values_of_checkpoint
    from adallava.runs.one_question import plain_decoding

    own = values_of_checkpoint(model.base.generation_config)
    set_here = plain_decoding(model)
    idle = {*set_here, *SAMPLING, "max_new_tokens", "max_length"}
    for values, what in (
        ({name: value for name, value in own.items() if name not in idle}, "counts here"),
        ({name: value for name, value in own.items() if name in idle}, "does not count here"),
    ):
        if values:
            say(f"note: the checkpoint's generation_config has {in_words(values)}, which {what}", error=True)
    return set_here


def _answer(
    model: "AdaLlava", asked: "OneQuestion", plan: "CellPlan", args: argparse.Namespace, decoding: dict[str, Any]
) -> "BudgetResult":
    if args.no_generate:
        return _choose(model, asked, plan, args.seed)
    from adallava.runs.one_question import answer_question

    return answer_question(model, asked, plan, seed=args.seed, max_new_tokens=args.max_new_tokens, decoding=decoding)


def _choose(model: "AdaLlava", asked: "OneQuestion", plan: "CellPlan", seed: int) -> "BudgetResult":
    from adallava.runs.budget_result import BudgetResult

    start = time.perf_counter()
    call = plan.call()
    del call["latency"]
    (selection,) = model.select(**asked.inputs, **call, seed=seed)
    return BudgetResult(selection, None, None, (time.perf_counter() - start) * 1000.0, None)


def _with_pictures(
    model: "AdaLlava", asked: "OneQuestion", results: Sequence["BudgetResult"], args: argparse.Namespace
) -> list["BudgetResult"]:
    from adallava.report.drawn_choice import draw_choice, seen_pictures
    from adallava.runs.one_question import drawn_pixels

    from .generate_pictures import PictureRow, save_pictures, with_layers
    from .generate_table import layer_shares_of

    pictures = seen_pictures(drawn_pixels(model, asked), model.processor.image_processor)
    with_layers_run = any(result.ran.groups_run is not None for result in results)
    rows = []
    for result in results:
        drawings = draw_choice(pictures, result.ran, asked.whole)
        if with_layers_run:
            drawings[0] = with_layers(drawings[0], layer_shares_of(model, result))
        label = f"{model.method}@{result.ran.budget_asked}{_schedule_suffix(model, result)}"
        rows.append(PictureRow(label, _caption(label, result), drawings))
    paths = save_pictures(rows, args.output_image, args.image[0].stem)
    return [replace(result, picture=str(path)) for result, path in zip(results, paths, strict=True)]


def _schedule_suffix(model: "AdaLlava", result: "BudgetResult") -> str:
    if result.ran.groups_run is None or model.scheduler is None:
        return ""
    return f"+{model.scheduler.name}@{result.ran.latency_asked}"


def _caption(label: str, result: "BudgetResult") -> str:
    kept = f"{label}, {result.ran.tokens_at_end} of {result.ran.num_vision_tokens}"
    return shorten(f"{kept}: {result.answer}" if result.answer else kept, width=44, placeholder=" …")
