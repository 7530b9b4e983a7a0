"""`adallava sweep`: parse, call, print."""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adallava.errors import AdallavaError, InputError
from adallava.records import RunConfig

from .arguments import (
    add_list_argument,
    parse_batch_sizes,
    parse_generation_options,
    parse_limit,
    parse_method_options,
    parse_method_paths,
    parse_positions,
    parse_scheduler_options,
    path_argument,
    whole_number,
)
from .shared_options import (
    add_adapter,
    add_allow_outside,
    add_columns,
    add_engine,
    add_equivalence_margin,
    add_method_option,
    add_model,
    add_pad_to_square,
    add_placement,
    add_quantization,
    add_scheduler_option,
    add_title,
    config_default,
    named_columns,
)
from .sweep_launch import add_where, command_of, launch_of, spoken_for

if TYPE_CHECKING:
    from adallava.runs.ranks import Ranks
    from adallava.runs.request import SweepRequest

_DEFAULT_BUDGETS = ["0.5", "0.25", "0.125", "0.0625", "0.03125"]

_DESCRIPTION = """\
Answer the same questions with every method at every token budget, and with the full-token model. The run
folder then holds run.json (what ran, on what), samples.jsonl (every answer), results.json (each cell's summary
and comparisons) and report.html. docs/concepts/protocol.md says how the figures are made.

After a kill, the same command continues where it stopped. A folder never mixes two configurations.
Under torchrun, the processes of one host share the samples (docs/how_to/processes.md). With --executor ray,
workers on a Ray cluster do (docs/how_to/ray.md).
"""

_EPILOG = """\
examples:
  adallava sweep --output runs/first
  adallava sweep --method random,question --token-budget 0.25,64 --limit 500 --output runs/two
  adallava sweep --latency 1.0,0.75,0.5 --scheduler first,spaced --token-budget 0.5,0.25 --output runs/grid
  adallava sweep --positions original,compact --timing-batch-sizes 1,8,32 --output runs/three
  adallava sweep --model llava-hf/llava-1.5-7b-hf --task questions.jsonl --limit all \\
      --question-suffix " Answer with one word." --output runs/mine
  adallava sweep --model llava-hf/llava-1.5-7b-hf --task lmms:vqav2_val --limit 500 --output runs/vqav2
  torchrun --nproc-per-node 4 -m adallava sweep --limit 700 --output runs/shared
  adallava sweep --executor ray --address auto --limit all --output runs/cluster

a local file (.jsonl or .parquet) has one question per row, with images as Hugging Face stores them:
  {"image": "images/1.png", "question": "What is it?", "answer": "a cat"}
a list holds several images of one question, which share the budget.
image paths are relative to the file and stay in its folder, unless you give --allow-outside. Name other columns with
--image-column and so on. docs/reference/data.md says how values are read.

exit codes: 0 done; 1 done, but a sample failed, over 1 % of a cell's answers are empty, or there is an ALARM: hardly
any response is one of the task's answers, or the full-token model is not above `none` or the most frequent answer
(alarms come first; a CAUTION, for too few samples, leaves the code at 0); 2 a mistake in the call or its input.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "sweep",
        help="measure accuracy against cost: methods x token budgets on one task",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(interrupt_hint="; every answer so far is kept, the same command resumes")
    what = parser.add_argument_group("what to sweep")
    _add_task(what)
    _add_methods(what)
    _add_layers(what)
    how = parser.add_argument_group("how to answer")
    _add_how(how)
    _add_running(how)
    add_where(parser.add_argument_group("where to answer"))
    _add_timing(parser.add_argument_group("what to time"))
    local = parser.add_argument_group("a local file")
    add_columns(local, "column with the {}")
    add_allow_outside(local)
    _add_output(parser.add_argument_group("what to write"))


def _add_task(group: Any) -> None:
    add_model(group)
    group.add_argument(
        "--task",
        default="scenes",
        help="bundled name, a .jsonl or .parquet file, or lmms:NAME for a task of lmms-eval (default: %(default)s)",
    )
    group.add_argument(
        "--include-path",
        type=path_argument,
        metavar="DIR",
        help="folder with your own lmms-eval tasks, as in lmms-eval (default: none)",
    )
    group.add_argument(
        "--metric",
        help="for a local file: exact-match, vqa (VQA accuracy as in lmms-eval) or vqa-official (as in the official "
        "script); the last two need ten answers per question (default: exact-match; for lmms:NAME, the task's first "
        "metric that gives each sample a number)",
    )
    group.add_argument("--split", help="for a bundled task: train, validation or test (default: test)")
    group.add_argument(
        "--limit",
        default=str(config_default("limit")),
        help="samples to take, or all; a larger limit extends a finished run (default: %(default)s)",
    )
    group.add_argument(
        "--sample",
        choices=("first", "random"),
        default=config_default("sample"),
        help="which samples the limit takes: the first, or a random sample by --seed, stratified by kind "
        "(default: %(default)s)",
    )


def _add_methods(group: Any) -> None:
    add_list_argument(
        group,
        "--method",
        dest="methods",
        metavar="NAME",
        default=["all"],
        help=(
            "selection methods; the full-token model always runs too (default: all, which means every installed "
            "method that the model can run, learned ones only with an adapter)"
        ),
    )
    add_method_option(group, "cdpruner.relevance=llm-embeddings")
    add_list_argument(
        group,
        "--token-budget",
        dest="token_budgets",
        metavar="BUDGET",
        default=_DEFAULT_BUDGETS,
        help=f"shares (0.25, 25%%) or numbers (64) of vision tokens (default: {','.join(_DEFAULT_BUDGETS)})",
    )
    add_adapter(group, "learned methods, and of learned or searched schedulers")


def _add_layers(group: Any) -> None:
    add_list_argument(
        group,
        "--latency",
        dest="latencies",
        metavar="LATENCY",
        default=[str(latency) for latency in config_default("latencies")],
        help="shares (0.75, 75%%) or numbers (6) of the LLM's layers that run, crossed with the token budgets "
        "(default: 1.0)",
    )
    add_list_argument(
        group,
        "--scheduler",
        dest="schedulers",
        metavar="NAME",
        default=[],
        help="what chooses the layers at a latency below 1.0: layers or heads (learned), first, spaced, random, fixed "
        "(docs/concepts/scheduling.md; default: none)",
    )
    add_scheduler_option(group)


def _add_how(group: Any) -> None:
    group.add_argument(
        "--batch-size",
        type=whole_number,
        default=config_default("batch_size"),
        help="samples per batch (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=whole_number,
        default=config_default("seed"),
        help="seed of everything that is drawn (default: %(default)s)",
    )
    group.add_argument(
        "--max-new-tokens", type=whole_number, help="of an answer (default: what a task of lmms-eval says, else 16)"
    )
    # One each, not a list with commas: a value may be a list itself.
    group.add_argument(
        "--generation-option",
        action="append",
        metavar="NAME=VALUE",
        default=[],
        help=(
            "how to decode, by transformers' names, such as num_beams=4; repeat it for several options (default: "
            "greedy; the checkpoint's generation_config.json gives only token ids, docs/concepts/decoding.md)"
        ),
    )
    group.add_argument(
        "--question-suffix", default="", metavar="TEXT", help="text to append to every question (default: none)"
    )
    add_pad_to_square(group)
    add_list_argument(
        group,
        "--positions",
        metavar="KIND",
        default=list(config_default("positions")),
        help="position ids of kept tokens: original (as in the full sequence), compact (without gaps), or both, "
        "as separate cells (default: original)",
    )
    group.add_argument(
        "--draws",
        type=whole_number,
        default=config_default("draws"),
        help="how often a random method answers each question, with a new seed each time; a sample's score is the "
        "mean (default: %(default)s)",
    )


def _add_running(group: Any) -> None:
    add_placement(group)
    add_engine(group)
    add_quantization(group)
    group.add_argument(
        "--attn-implementation",
        choices=("sdpa", "eager"),
        default=config_default("attn_implementation"),
        help="attention kernel of the stock model (default: %(default)s)",
    )


def _add_timing(group: Any) -> None:
    add_list_argument(
        group,
        "--timing-batch-sizes",
        metavar="B",
        default=[],
        help="after all answers, time every cell on one warm batch of each size, such as 1,8,32: time to first token, "
        "time per decoded token, peak memory (default: none; the times of ordinary answers are always recorded)",
    )


def _add_output(group: Any) -> None:
    group.add_argument(
        "--output",
        type=path_argument,
        required=True,
        metavar="DIR",
        help="the run folder; made if missing, resumed if it holds this sweep",
    )
    group.add_argument(
        "--roofline",
        metavar="HARDWARE",
        help="show the lower bound of time to first token on this hardware, such as h100-sxm, next to the measured "
        "time (default: on the hardware of the run, if its peak speed is known)",
    )
    add_equivalence_margin(group)
    add_title(group, "model and task; you can change it for a finished sweep")
    group.add_argument("--no-report", action="store_true", help="do not write report.html")
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="when resuming, run failed samples again (default: keep them as failed)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the sweep, print its table, and return 1 if a cell is flagged or an alarm is raised, else 0."""
    from adallava.records.alarms import raised
    from adallava.runs.ranks import ranks_of_one_host

    ranks, launch = ranks_of_one_host(), launch_of(args)
    if launch is not None and ranks.world_size > 1:
        raise InputError(
            "--executor ray under torchrun: start the sweep once, without torchrun; Ray starts the workers"
        )
    if ranks.rank > 0:
        from .last_words import end_at_signals

        end_at_signals(lambda _: None)
        from .sweep_ranks import join

        return join(lambda: _request(args, ranks), args.output, ranks)
    with spoken_for(ranks, launch):
        request = _request(args, ranks)
        if launch is None:
            _begin_hashing(args.model)
        # Only now: loading torch takes seconds, which a mistake in the call should not cost.
        from .sweep_ranks import lead
        from .sweep_table import print_outcome

        outcome, page = lead(request, ranks, launch)
        print_outcome(outcome, request.output, page, request.roofline)
    return int(raised(outcome.results.alarms) or any(cell.flagged for cell in outcome.results.cells))


def _begin_hashing(model: str) -> None:
    """Begin to hash a folder's weights, in threads, before torch is imported: the two take as long as each other."""
    from adallava.checkpoints.weights_hash import begin_weights_sha256

    with suppress(AdallavaError, OSError):  # told when the model is loaded
        begin_weights_sha256(Path(model))


def _request(args: argparse.Namespace, ranks: "Ranks") -> "SweepRequest":
    # Read before anything heavy is imported.
    config = RunConfig.from_options(
        vars(args),
        method_options=parse_method_options(args.method_option),
        scheduler_options=parse_scheduler_options(args.scheduler_option),
        limit=parse_limit(args.limit),
        positions=parse_positions(args.positions),
        timing_batch_sizes=parse_batch_sizes(args.timing_batch_sizes),
        decoding={"options": parse_generation_options(args.generation_option)},
        columns=named_columns(args),
    )
    adapters = parse_method_paths(args.adapter)

    from adallava.runs.request import SweepRequest

    return SweepRequest(
        config,
        args.output,
        adapters=adapters,
        include_path=args.include_path,
        allow_outside=args.allow_outside,
        retry_failed=args.retry_failed,
        report=not args.no_report,
        roofline=args.roofline,
        equivalence_margin=args.equivalence_margin,
        command=command_of(ranks),
    )
