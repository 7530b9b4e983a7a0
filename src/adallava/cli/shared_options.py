"""Options that several commands have, in the same words."""

import argparse
from typing import Any, get_args

from adallava.analysis.margins import MARGIN
from adallava.records import RunConfig
from adallava.records.names import EngineName, QuantizationName

from .arguments import add_list_argument, parse_title, whole_number

_ROLES = ("image", "question", "answer", "id", "kind")
"""What a column of a local file may hold."""


def config_default(name: str) -> Any:
    """Return what a run is taken to ask for where a field of its configuration is not given."""
    return RunConfig.model_fields[name].get_default(call_default_factory=True)


def add_model(group: Any) -> None:
    """Add `--model`, by default the bundled one."""
    group.add_argument("--model", default="tiny", help="bundled name, local folder or hub id (default: %(default)s)")


def add_title(group: Any, default: str) -> None:
    """Add `--title`."""
    group.add_argument("--title", type=parse_title, default="", help=f"title of the report (default: {default})")


def add_placement(group: Any) -> None:
    """Add `--dtype` and `--device`."""
    group.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default=config_default("dtype"),
        help="type of the weights (default: auto, as stored)",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 (default: the first GPU, else the CPU)")


def add_engine(group: Any) -> None:
    """Add `--engine`."""
    group.add_argument(
        "--engine",
        choices=get_args(EngineName),
        default=config_default("engine"),
        help="what runs the LLM (default: %(default)s, CUDA graphs where they can run, else stock generate; "
        "docs/concepts/engines.md)",
    )


def add_quantization(group: Any) -> None:
    """Add `--quantization`."""
    group.add_argument(
        "--quantization",
        choices=get_args(QuantizationName),
        default=config_default("quantization"),
        help="8-bit weights in the LLM's layers; fp8 also computes in 8 bits, on Hopper GPUs, best with --engine "
        "compiled; needs pip install 'adallava[quantization]' (default: %(default)s)",
    )


def add_pad_to_square(group: Any) -> None:
    """Add `--pad-to-square`, `--least-pixels` and `--most-pixels`."""
    group.add_argument(
        "--pad-to-square",
        action="store_true",
        help=(
            "pad images to squares with the processor's mean color, as LLaVA's image_aspect_ratio=pad does, so that "
            "none is cropped (default: what the model's processor does)"
        ),
    )
    for name, words in (("least", "enlarge images to at least"), ("most", "shrink images to at most")):
        group.add_argument(
            f"--{name}-pixels",
            type=whole_number,
            metavar="N",
            help=f"{words} N pixels, for models with native image sizes (default: the processor's own limit)",
        )


def add_method_option(group: Any, example: str = "") -> None:
    """Add `--method-option`, with one of them in its help."""
    such = f", such as {example}" if example else ""
    add_list_argument(
        group,
        "--method-option",
        metavar="METHOD.OPTION=VALUE",
        default=[],
        help=(
            f"options of training-free methods{such} (docs/reference/methods.md lists all; default: each method's own)"
        ),
    )


def add_scheduler_option(group: Any) -> None:
    """Add `--scheduler-option`."""
    add_list_argument(
        group,
        "--scheduler-option",
        metavar="SCHEDULER.OPTION=VALUE",
        default=[],
        help="options of schedulers, such as fixed.plans=4+6 (default: each scheduler's own)",
    )


def add_equivalence_margin(group: Any) -> None:
    """Add `--equivalence-margin`."""
    group.add_argument(
        "--equivalence-margin",
        type=float,
        default=MARGIN,
        metavar="SHARE",
        help="call two accuracies the same if two one-sided tests show that they differ by less than this "
        "(default: %(default)s, two points)",
    )


def add_columns(group: Any, help_format: str) -> None:
    """Add `--image-column` and so on, for local files with names of their own.

    Args:
        group: to add them to.
        help_format: with a place for what the column holds.
    """
    for role in _ROLES:
        group.add_argument(f"--{role}-column", metavar="NAME", help=help_format.format(role))


def add_allow_outside(group: Any) -> None:
    """Add `--allow-outside`."""
    group.add_argument(
        "--allow-outside",
        action="store_true",
        help="let a local file name images outside its own folder; the report then shows them (default: refuse)",
    )


def named_columns(args: argparse.Namespace) -> dict[str, str]:
    """Return the columns that were named, by what they hold."""
    named = {role: getattr(args, f"{role}_column") for role in _ROLES}
    return {role: column for role, column in named.items() if column is not None}
