"""`adallava train`: parse, call, print."""

import argparse
import json
from pathlib import Path
from typing import Any

from .arguments import path_argument, whole_number
from .shared_options import add_columns, named_columns
from .streams import say

_DESCRIPTION = """\
Run one stage of training from a recipe: adapt a base to missing vision tokens or layers, or train a controller or a
scheduler for a frozen base. A controller needs only forward passes (question) or gradients through a frozen model
(budget-token). Stage fixed-plan learns nothing: it searches for the best layers to run, for each number of them.
Stage codebook picks up to 8 of the plans that a learned scheduler chooses; the scheduler can be limited to them.

The output folder then holds recipe.json, curve.json (the logged losses; of a search plans.json, with every plan's
scores), checkpoints, and the result: model/ (a stock checkpoint) or adapter/. It appears once every check has passed.
After a kill, the same command continues from the newest checkpoint; a search starts again. Another recipe, base,
data, device type or version of a library is refused by name. Training is one process on one device.
"""

_EPILOG = """\
examples:
  adallava train tiny/align --output runs/align
  adallava train tiny/question --model runs/base/model --output runs/question
  adallava train tiny/fixed-plan --model tiny --output runs/fixed
  adallava train question --model llava-hf/llava-1.5-7b-hf --data mine.jsonl --output runs/mine

bundled recipes, their steps, and what each trains (a line each; * takes your own data with --data):
  question              2,000 * scorer of method question, for any frozen model
  tiny/question           600 * the same, for the bundled scenes
  tiny/budget-token       300 * adapter of method budget-token, for a frozen base
  tiny/layers             150 * scheduler layers by policy gradient, for a frozen base that went through tiny/joint
  tiny/layers-gumbel      150 * the same by straight-through Gumbel, for comparison
  tiny/layers-again       300 * scheduler layers, from the base's own on
  tiny/layers-lora        400 * scheduler layers, and low-rank weights next to the base; needs peft
  tiny/layers-joint       250   scheduler layers, and the base with it
  tiny/heads              150 * scheduler heads, for a frozen base that went through tiny/joint
  tiny/fixed-plan           - * a search: the best layers for scheduler fixed
  tiny/codebook             - * a search: up to 8 plans to limit scheduler layers to
  tiny/align            2,500   the first step of a model from nothing: patches learn to name what they show
  tiny/base             4,400   the second: the LLM learns to answer, also with tokens missing
  tiny/joint            1,500   after tiny/question: scorer and base together, also with layers missing
  tiny/joint-again        220   scorer and base once more, on few tokens
align, base and question (1,500, 2,400 and 900 *) are also there for two small models from nothing: tiny-qwen2.5-vl/…
and tiny-siglip-qwen2/… (a LLaVA with SigLIP and Qwen2).

your own data is a .jsonl or .parquet file, as for `adallava sweep`: one question per row, with image, question and
answer. It is shuffled each epoch by the recipe's seed. Unreadable rows are left out, counted and listed at the end.
Recipes without * learn from labels that only the scenes have. No bundled recipe adapts the base itself to your data: a
.toml of your own does, with stage = "base", trained = ["multi_modal_projector", "language_model", "lm_head"],
[optimisation], and a [keep] without evidence.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "train",
        help="train a base or a controller from a recipe",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(interrupt_hint="; the same command continues from the newest checkpoint")
    parser.add_argument("recipe", help="a bundled recipe (listed below) or a .toml file")
    parser.add_argument("--output", type=path_argument, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--model",
        help="model to start from: bundled name, folder or hub id (default: none, for a recipe that makes one)",
    )
    parser.add_argument(
        "--data", type=path_argument, metavar="FILE", help="a file with your own questions (default: generated scenes)"
    )
    add_columns(parser, "column of --data with the {}")
    parser.add_argument("--steps", type=whole_number, help="number of steps (default: the recipe's)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: the first GPU, else the CPU)")


def run(args: argparse.Namespace) -> int:
    """Train the stage and print where its result is."""
    from adallava.training.recipe import SEARCHES, load_recipe, with_steps

    recipe = load_recipe(args.recipe)
    if args.steps is not None:
        recipe = with_steps(recipe, args.steps)

    import torch

    from adallava.cli.before_loading import check_device, quiet_loading
    from adallava.training.claim import read_claim
    from adallava.training.fixed_plan import PLANS_FILE
    from adallava.training.own_data import TaskExamples, told_left_out
    from adallava.training.stages import train_stage

    check_device(args.device)
    if args.model is not None:
        quiet_loading(args.model)
    data = None if args.data is None else TaskExamples.from_file(args.data, named_columns(args))
    folder = train_stage(
        recipe,
        args.output,
        start_from=args.model,
        data=data,
        device=torch.device(args.device) if args.device else None,
    )
    if recipe.stage == "fixed-plan":
        _print_plans(args.output / PLANS_FILE)
    written = PLANS_FILE if recipe.stage in SEARCHES else "curve.json"
    trained_on = (read_claim(args.output) or {}).get("data")
    if isinstance(trained_on, dict) and trained_on["left_out"]:
        say(f"left out {told_left_out(trained_on['left_out'], trained_on['rows'])}")
    say(f"wrote {folder} and {args.output / written}")
    asked = {"question": "--method question", "budget-token": "--method budget-token"}.get(recipe.stage)
    if asked is not None:
        say(f"try it: adallava sweep --model {args.model} {asked} --adapter {recipe.stage}={folder} --output DIR")
    return 0


def _print_plans(path: Path) -> None:
    """Print the plan found for each number of layers, and what the whole LLM does on the same questions."""
    written = json.loads(path.read_text())
    for plan in [*written["found"], written["every_layer"]]:
        low, high = plan["accuracy_interval"]
        say(
            f"{plan['layers_run']} of {written['num_layers']} layers: 0 … {written['prefix_layers'] - 1} and "
            f"{'+'.join(map(str, plan['layers']))}: {plan['right']} of {plan['questions']} right, "
            f"{plan['accuracy']:.1%} [{low:.1%}, {high:.1%}], log-probability {plan['log_probability']:.3f} "
            f"± {plan['standard_error']:.3f}"
        )
