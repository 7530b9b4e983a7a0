"""`adallava demo`: parse, load, serve until it is interrupted."""

import argparse
import socket
from importlib.util import find_spec
from threading import Event
from typing import Any

from adallava.errors import InputError

from .arguments import add_list_argument, parse_method_paths, whole_number
from .shared_options import add_engine, add_model, add_pad_to_square, add_placement, add_quantization
from .streams import say

_DESCRIPTION = """\
Serve a web page on this machine: drop an image, ask a question, drag the budget and watch patches fade. Compare answers
at several budgets, or by several methods, with the cost of each. Needs pip install 'adallava[demo]'.
"""

_EPILOG = """\
examples:
  adallava demo
  adallava demo --model llava-hf/llava-1.5-7b-hf
  adallava demo --model my/folder --adapter question=adapters/question --host 0.0.0.0 --port 8000

the page contacts no other host. --share does: it makes a public link through Gradio's servers.

exit codes: 0 ended by Ctrl-C; 2 a mistake in the call or its input.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "demo",
        help="a web page: an image, a question, and what each budget keeps and answers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("the model")
    add_model(group)
    add_list_argument(
        group,
        "--adapter",
        metavar="NAME=DIR",
        default=[],
        help="adapters of learned methods and schedulers (default: adapters/NAME in the model's folder)",
    )
    group.add_argument("--max-new-tokens", type=whole_number, default=32, help="of each answer (default: %(default)s)")
    add_pad_to_square(group)
    add_placement(group)
    add_engine(group)
    add_quantization(group)
    group = parser.add_argument_group("the page")
    group.add_argument(
        "--host",
        default="127.0.0.1",
        help="0.0.0.0 lets others reach the page (default: %(default)s, only this machine)",
    )
    group.add_argument("--port", type=whole_number, default=7860, help="port of the page (default: %(default)s)")
    group.add_argument("--share", action="store_true", help="make a public link through Gradio's servers (default: no)")


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is interrupted, and return 0."""
    if find_spec("gradio") is None:
        raise InputError("the demo needs Gradio, which is not installed: pip install 'adallava[demo]'")
    if not 1 <= args.port <= 65535:
        raise InputError(f"--port {args.port} is not a port: give 1 to 65535")
    if args.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens {args.max_new_tokens} leaves no answer: give at least 1")
    adapters = parse_method_paths(args.adapter)
    _check_free(args.host, args.port)
    say(f"loading {args.model}", error=True)
    # Only now: loading torch takes seconds, which a mistake in the call should not cost.
    from adallava.cli.before_loading import load_full
    from adallava.demo.gradio_page import build_page, serve
    from adallava.demo.served_model import ServedModel

    page = build_page(ServedModel(load_full(args), adapters, max_new_tokens=args.max_new_tokens))
    address = serve(page, host=args.host, port=args.port, share=args.share)
    say(f"{args.model} answers at {address} (Ctrl-C ends it)")
    try:
        Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)
    return 0


def _check_free(host: str, port: int) -> None:
    """Refuse, before a model is loaded, what cannot be listened on.

    Raises:
        InputError: naming host and port.
    """
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        reason = str(error.strerror or error).partition(" (")[0]
        raise InputError(
            f"the demo cannot listen on {host}:{port} ({reason}): give another --host or --port"
        ) from error
