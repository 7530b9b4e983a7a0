"""`adallava convert`: parse, call, print."""

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Write a checkpoint of the original LLaVA code (liuhaotian/llava-v1.5-*), or of AdaLLaVA (zhuoyanxu/ada-llava-*), as a
stock Hugging Face folder that every other command takes. All folders are local; pickled weights are read as tensors
or refused, never run. AdaLLaVA's scheduler is kept beside the model under its original names.
"""

_EPILOG = """\
examples:
  adallava convert llava-v1.5-7b --vision-tower clip-vit-large-patch14-336 --output llava-v1.5-7b-stock
  adallava sweep --model llava-v1.5-7b-stock --method visionzip --output runs/converted
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "convert",
        help="write an original LLaVA or AdaLLaVA checkpoint as a stock folder",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder in the layout of the original code")
    parser.add_argument(
        "--vision-tower", type=Path, required=True, metavar="DIR", help="folder of the CLIP that mm_vision_tower names"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="folder of the tokenizer (default: the source)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint and print what was written."""
    from adallava.conversion import convert_llava

    done = convert_llava(args.source, args.vision_tower, args.output, tokenizer=args.tokenizer)
    print(f"wrote {done.folder}: {done.num_weights} weights; the vision tower's are from {done.vision_tower_from}")
    if done.scheduler is not None:
        print(f"wrote {done.scheduler}: AdaLLaVA's scheduler under its original names; the model runs without it")
    return 0
