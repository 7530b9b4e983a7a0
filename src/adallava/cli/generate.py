"""`adallava generate`: parse, call, print."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from adallava.budget import Latency, TokenBudget
from adallava.errors import InputError

from .arguments import (
    add_list_argument,
    options_of_methods,
    options_of_schedulers,
    parse_latencies,
    parse_token_budgets,
)

if TYPE_CHECKING:
    from adallava.generation.output import AdaLlavaOutput, SampleSelection
    from adallava.model import AdaLlava

_DESCRIPTION = """\
Answer one question about a picture at several token budgets, and see which vision tokens each answer is made
from. For every budget: the answer, N, K asked and kept, lengths, the scores' range, and a picture of the patches.
"""

_EPILOG = """\
examples:
  adallava generate --image street.jpg --question "What color is the car?" --token-budget 0.5 0.25 32
  adallava generate --image a.png --question "..." --method uniform --output-image strip.png
  adallava generate --image a.png --question "..." --no-generate --json

several images after --image go into one prompt, and a budget is shared among them. a picture that the model reads in
tiles is drawn whole, and joined from its tiles with the tokens that end its rows as a column on the right.

exit codes: 0 answered; 1 an answer is empty (the table says why); 2 a mistake in the call or its input.
"""


@dataclass(frozen=True)
class BudgetResult:
    """What one budget gave. Answer, lengths of it, reason and times are None without generation.

    Attributes:
        budget_asked: as asked for; "none" for a method that ignores it.
        answer: the text.
        num_vision_tokens: N over all images.
        tokens_asked: K the budget resolves to.
        tokens_kept: vision tokens that entered the LLM.
        tokens_kept_by_layer: that each LLM layer read, for a method inside the LLM.
        kept_indices: patches kept, by image.
        prompt_length: tokens that entered the LLM.
        answer_length: new tokens, EOS included.
        finish_reason: `eos` or `length`.
        empty_cause: why the answer is empty, if it is.
        score_range: lowest and highest score of a patch, for methods that score.
        total_ms: wall time of the call.
        part_ms: of which, by part.
        picture: the file with the kept patches.
        latency_asked: as asked for.
        groups_run: for each LLM layer, the groups of heads that ran; None where all did.
        groups_per_layer: groups that a layer is split into.
    """

    budget_asked: str
    answer: str | None
    num_vision_tokens: int
    tokens_asked: int
    tokens_kept: int
    kept_indices: tuple[tuple[int, ...], ...]
    prompt_length: int
    answer_length: int | None
    finish_reason: str | None
    empty_cause: str | None
    score_range: tuple[float, float] | None
    total_ms: float
    part_ms: dict[str, float] | None
    tokens_kept_by_layer: tuple[int, ...] | None = None
    picture: str | None = None
    latency_asked: str = "1.0"
    groups_run: tuple[tuple[int, ...], ...] | None = None
    groups_per_layer: int = 1

    @property
    def tokens_at_end(self) -> int:
        """Vision tokens that the LLM's last layer read."""
        return self.tokens_kept if self.tokens_kept_by_layer is None else self.tokens_kept_by_layer[-1]


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "generate",
        help="answer one question at several token budgets, and see the kept patches",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--image", type=Path, nargs="+", required=True, metavar="FILE", help="one or several pictures")
    parser.add_argument("--question", required=True, help="about the pictures")
    add_list_argument(
        parser,
        "--token-budget",
        metavar="BUDGET",
        default=["1.0"],
        help="shares (0.25, 25%%) or numbers (64) of vision tokens, one or several (default: 1.0)",
    )
    add_list_argument(
        parser,
        "--latency",
        metavar="LATENCY",
        default=["1.0"],
        help="shares (0.75, 75%%) or numbers (6) of the LLM's layers that run, one or several (default: 1.0)",
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--model", default="tiny", help="bundled name, local folder or hub id (default: %(default)s)")
    model.add_argument("--method", default="question", help="selection method, or full (default: %(default)s)")
    model.add_argument("--adapter", type=Path, metavar="DIR", help="of a learned method, if not in the model's folder")
    add_list_argument(
        model,
        "--method-option",
        metavar="METHOD.OPTION=VALUE",
        default=[],
        help="option of a training-free method, such as mmtok.alpha=0.25 (docs/methods.md has all)",
    )
    model.add_argument(
        "--scheduler", metavar="NAME", help="which layers run at a latency below 1.0: layers, heads, first, spaced, …"
    )
    model.add_argument("--scheduler-adapter", type=Path, metavar="DIR", help="of a learned scheduler, likewise")
    add_list_argument(
        model,
        "--scheduler-option",
        metavar="SCHEDULER.OPTION=VALUE",
        default=[],
        help="option of a scheduler that is not learned, such as fixed.plans=4+6",
    )
    model.add_argument("--max-new-tokens", type=int, default=32, help="default: %(default)s")
    model.add_argument("--seed", type=int, default=0, help="of methods that draw (default: %(default)s)")
    model.add_argument(
        "--positions",
        choices=("original", "compact"),
        default="original",
        help="position ids of the kept tokens: as in the full sequence, or without gaps (default: %(default)s)",
    )
    model.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="default: as stored"
    )
    model.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    output = parser.add_argument_group("what comes out")
    output.add_argument(
        "--output-image",
        type=Path,
        default=Path(),
        metavar="PATH",
        help="a folder for one picture a budget, IMAGE.METHOD@BUDGET.png; or a .png file for all side by side "
        "(default: the current folder)",
    )
    output.add_argument("--no-image", action="store_true", help="write no picture")
    output.add_argument("--no-generate", action="store_true", help="select only, without an answer")
    output.add_argument("--json", action="store_true", help="print JSON on stdout instead of a table")


def run(args: argparse.Namespace) -> int:
    """Answer, draw, print, and return 1 if an answer is empty, else 0."""
    budgets = parse_token_budgets(args.token_budget)
    if args.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens is {args.max_new_tokens}: give at least 1")
    options = options_of_methods(args.method_option, [args.method])
    latencies, scheduler_options = _latencies(args)
    from adallava.tasks.images import open_rgb

    images = [open_rgb(path) for path in args.image]
    # Only now: loading torch takes seconds, which a mistake in the call should not cost.
    from adallava.model import AdaLlava, build_prompt

    from .loading import check_device, quiet_loading

    check_device(args.device)
    quiet_loading(args.model)
    model = AdaLlava.from_pretrained(
        args.model,
        method=args.method,
        adapter=args.adapter,
        dtype=args.dtype,
        device=args.device,
        **options.get(args.method, {}),
    )
    if args.scheduler is not None:
        model = model.with_scheduler(
            args.scheduler, adapter=args.scheduler_adapter, **scheduler_options.get(args.scheduler, {})
        )
    prompt = build_prompt(model.processor, args.question, len(images))
    # Without the format, a picture one or three pixels high is taken for one with its channels first.
    inputs = dict(model.processor(images=images, text=[prompt], return_tensors="pt", input_data_format="channels_last"))
    if model.selector is not None and model.selector.ignores_budget:
        budgets = budgets[:1]
    results = [_at_budget(model, inputs, budget, latency, args) for latency in latencies for budget in budgets]
    if not args.no_image:
        results = _with_pictures(model, inputs, results, args)
    (_print_json if args.json else _print_table)(model, results, args)
    return int(any(result.empty_cause is not None for result in results))


def _latencies(args: argparse.Namespace) -> tuple[tuple[Latency, ...], dict[str, dict[str, Any]]]:
    """Return the latencies and the scheduler's options, as far as they fit the rest of the call."""
    latencies = parse_latencies(args.latency)
    schedulers = [] if args.scheduler is None else [args.scheduler]
    options = options_of_schedulers(args.scheduler_option, schedulers)
    below = [str(latency) for latency in latencies if not latency.is_full]
    if below and args.scheduler is None:
        raise InputError(
            f"--latency {', '.join(below)} leaves layers of the LLM out: name a --scheduler that says which"
        )
    if below and args.no_generate:
        raise InputError(f"--latency {', '.join(below)} says how much of the LLM runs, which --no-generate leaves out")
    return latencies, options


def _at_budget(
    model: "AdaLlava", inputs: dict[str, Any], budget: TokenBudget, latency: Latency, args: argparse.Namespace
) -> BudgetResult:
    start = time.perf_counter()
    if args.no_generate:
        (selection,) = model.select(**inputs, token_budget=budget, seed=args.seed, positions=args.positions)
        return _selected(selection, (time.perf_counter() - start) * 1000.0)
    from adallava.generation.clock import StageClock

    output = model.generate(
        **inputs,
        token_budget=budget,
        latency=latency,
        seed=args.seed,
        positions=args.positions,
        clock=StageClock(model.device),
        max_new_tokens=args.max_new_tokens,
        do_sample=False,
    )
    return _answered(model, output, latency, (time.perf_counter() - start) * 1000.0)


def _selected(selection: "SampleSelection", total_ms: float) -> BudgetResult:
    return BudgetResult(
        budget_asked=selection.budget_asked,
        answer=None,
        num_vision_tokens=selection.num_vision_tokens,
        tokens_asked=selection.tokens_asked,
        tokens_kept=selection.tokens_kept,
        kept_indices=selection.kept_indices,
        prompt_length=selection.llm_sequence_length,
        answer_length=None,
        finish_reason=None,
        empty_cause=None,
        score_range=selection.score_range,
        total_ms=total_ms,
        part_ms=None,
        tokens_kept_by_layer=selection.tokens_kept_by_layer,
    )


def _answered(model: "AdaLlava", output: "AdaLlavaOutput", latency: Latency, total_ms: float) -> BudgetResult:
    from adallava.evaluation.empties import classify_empty

    record, eos = output.records[0], model.base.generation_config.eos_token_id
    return BudgetResult(
        budget_asked=record.budget_asked,
        answer=output.text[0],
        num_vision_tokens=record.num_vision_tokens,
        tokens_asked=record.tokens_asked,
        tokens_kept=record.tokens_kept,
        kept_indices=record.kept_indices,
        prompt_length=output.prompt_lengths[0],
        answer_length=output.answer_lengths[0],
        finish_reason=output.finish_reasons[0],
        empty_cause=classify_empty(
            output.text[0],
            output.answer_ids[0],
            eos if isinstance(eos, list) else [eos],
            model.processor.tokenizer.all_special_ids,
        ),
        score_range=record.score_range,
        total_ms=total_ms,
        part_ms=output.part_ms,
        tokens_kept_by_layer=record.tokens_kept_by_layer,
        latency_asked=str(latency),
        groups_run=None if record.layers is None else record.layers.groups_run,
        groups_per_layer=1 if record.layers is None else record.layers.groups,
    )


def _with_pictures(
    model: "AdaLlava", inputs: dict[str, Any], results: Sequence[BudgetResult], args: argparse.Namespace
) -> list[BudgetResult]:
    from dataclasses import replace

    from adallava.report.patches import draw_kept_patches

    from .generate_pictures import PictureRow, save_pictures, seen_pictures

    family = model.family.for_sizes(inputs.get("image_sizes"))
    grids = family.grids(inputs["pixel_values"])
    pictures = seen_pictures(family.pictures(inputs["pixel_values"]), model.processor.image_processor)
    merges = model.selector is not None and model.selector.merges
    rows = []
    for result in results:
        kept = result.kept_indices or [()] * len(pictures)
        drawings = [
            draw_kept_patches(picture, indices, grid, merged=merges)
            for picture, indices, grid in zip(pictures, kept, grids, strict=True)
        ]
        label = f"{model.method}@{result.budget_asked}{_schedule_suffix(model, result)}"
        rows.append(PictureRow(label, _caption(label, result), drawings))
    paths = save_pictures(rows, args.output_image, args.image[0].stem)
    return [replace(result, picture=str(path)) for result, path in zip(results, paths, strict=True)]


def _schedule_suffix(model: "AdaLlava", result: BudgetResult) -> str:
    if result.groups_run is None or model.scheduler is None:
        return ""
    return f"+{model.scheduler.name}@{result.latency_asked}"


def _caption(label: str, result: BudgetResult) -> str:
    kept = f"{label}, {result.tokens_at_end} of {result.num_vision_tokens}"
    return shorten(f"{kept}: {result.answer}" if result.answer else kept, width=44, placeholder=" …")


def _print_json(model: "AdaLlava", results: Sequence[BudgetResult], args: argparse.Namespace) -> None:
    document = {
        "model": args.model,
        "method": model.method,
        "adapter_sha256": model.adapter_sha256,
        "scheduler": None if model.scheduler is None else model.scheduler.name,
        "scheduler_sha256": model.scheduler_sha256,
        "method_options": options_of_methods(args.method_option, [args.method]).get(args.method, {}),
        "images": [str(path) for path in args.image],
        "question": args.question,
        "positions": args.positions,
        "seed": args.seed,
        "results": [asdict(result) for result in results],
    }
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _print_table(model: "AdaLlava", results: Sequence[BudgetResult], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

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
            *((result.latency_asked, _shown_layers(model, result)) if with_layers else ()),
            _shown_answer(result),
            "" if result.answer_length is None else str(result.answer_length),
            result.finish_reason or "",
            low_high,
            f"{result.total_ms:.0f}",
            style=None if result.empty_cause is None else "red",
        )
    console.print(table)
    for path in dict.fromkeys(result.picture for result in results if result.picture is not None):
        console.print(f"kept patches: {path}", markup=False, highlight=False, soft_wrap=True)


def _shown_counts(result: BudgetResult) -> str:
    """Return K; for a method inside the LLM, the counts on the way to it."""
    return " → ".join(map(str, dict.fromkeys(result.tokens_kept_by_layer or (result.tokens_kept,))))


def _shown_layers(model: "AdaLlava", result: BudgetResult) -> str:
    """Return one sign a layer: full, half or dot for all, some or none of its groups."""
    groups = result.groups_per_layer
    num_layers = model.base.config.get_text_config().num_hidden_layers
    run = [groups] * num_layers if result.groups_run is None else list(map(len, result.groups_run))
    return "".join("·" if count == 0 else "█" if count == groups else "▄" for count in run)


def _shown_answer(result: BudgetResult) -> str:
    from rich.markup import escape

    if result.answer is None:
        return "[dim]not generated[/dim]"
    return escape(result.answer) if result.empty_cause is None else f"empty: {result.empty_cause}"
