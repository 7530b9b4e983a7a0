"""`adallava convert`: parse, call, print."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .arguments import path_argument
from .streams import say

_DESCRIPTION = """\
Write a checkpoint of the original LLaVA code (liuhaotian/llava-v1.5-*), or of AdaLLaVA (zhuoyanxu/ada-llava-*), as a
stock Hugging Face folder that every other command takes. All folders are local; pickled weights are read as tensors
or refused, never run. AdaLLaVA's scheduler becomes an adapter next to the model, for --scheduler adallava-layers or
adallava-heads.
"""

_EPILOG = """\
examples:
  adallava convert llava-v1.5-7b --vision-tower clip-vit-large-patch14-336 --output llava-v1.5-7b-stock
  adallava sweep --model llava-v1.5-7b-stock --method visionzip --output runs/converted
  adallava convert ada-llava-L-v1.5-7b --vision-tower clip-vit-large-patch14-336 --output ada-llava
  adallava generate --model ada-llava --method full --scheduler adallava-layers --latency 1.0 0.85 --image a.jpg \\
    --question "..."
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
    parser.add_argument("source", type=path_argument, help="folder in the layout of the original code")
    parser.add_argument(
        "--vision-tower",
        type=path_argument,
        required=True,
        metavar="DIR",
        help="folder of the CLIP that mm_vision_tower names",
    )
    parser.add_argument(
        "--tokenizer",
        type=path_argument,
        metavar="DIR",
        help="folder with a tokenizer.json of the same words, such as that of llava-hf/llava-1.5-7b-hf (default: the "
        "source, whose tokenizer.model needs pip install 'adallava[tokenizer-model]')",
    )
    parser.add_argument(
        "--output", type=path_argument, required=True, metavar="DIR", help="folder to write, new or empty"
    )


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint and print what was written."""
    from adallava.cli.before_loading import quiet_loading
    from adallava.conversion import convert_llava

    quiet_loading(str(args.source))
    with _unwound_at_sigterm():
        done = convert_llava(args.source, args.vision_tower, args.output, tokenizer=args.tokenizer)
    cast = f", cast from {_name(done.vision_tower_dtype)}" if done.vision_tower_dtype != done.dtype else ""
    say(
        f"wrote {done.folder}: {done.num_weights} weights in {_name(done.dtype)}; the vision tower's are from "
        f"{done.vision_tower_from}{cast}"
    )
    if done.scheduler is not None:
        say(f"wrote {done.scheduler}: AdaLLaVA's scheduler; run it with --scheduler {done.scheduler.name}")
    if done.method is not None:
        say(f"AdaLLaVA tuned this model with fewer vision tokens: run it with --method {done.method}")
    return 0


@contextmanager
def _unwound_at_sigterm() -> Iterator[None]:
    """End at SIGTERM, which `scancel` and `docker stop` send, as at Ctrl-C: nothing half written is left."""

    def end(number: int, frame: FrameType | None) -> None:
        """Exit as a shell says that a signal ended a process."""
        # A second one would meet the cleaning up of the first.
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit:
        say("adallava convert: ended by SIGTERM; no partial output is left", error=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
