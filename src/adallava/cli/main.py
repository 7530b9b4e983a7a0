"""The command line's frame: one module a command, mistakes as one line, exit codes with a meaning.

Each command module has `add_parser(subparsers)` and `run(args) -> int`, and imports nothing heavy at its
top, so that `adallava --help` needs no torch.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import adallava
from adallava.errors import AdallavaError

from .streams import say, steady_streams

COMMANDS = ("sweep", "compare", "report", "generate", "doctor", "train", "convert")
"""Modules of `adallava.cli`, in the order of the help."""

EXIT_OK = 0
EXIT_FLAGGED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_EPILOG = """\
exit codes:
  0    done
  1    done, but what came out is not to be trusted; the output says what and why
  2    a mistake in the call or its input; one line on stderr says which
  130  interrupted

first steps:
  adallava sweep --output runs/first
  adallava COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake of the caller is one line on stderr."""
    with steady_streams():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    try:
        args = build_parser(argv[:1]).parse_args(argv)
    except KeyboardInterrupt:  # nothing has begun
        return EXIT_INTERRUPTED
    try:
        return int(args.run(args))
    except (AdallavaError, OSError) as error:
        say(f"adallava {args.command}: {' '.join(str(error).split())}", error=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        hint = getattr(args, "interrupt_hint", "")
        say(f"adallava {args.command}: interrupted{hint}", error=True)
        return EXIT_INTERRUPTED


def build_parser(wanted: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser with the wanted command alone, or with every command if it is none of them."""
    parser = argparse.ArgumentParser(
        prog="adallava",
        description="One vision-language model, any compute budget: answer with K of N vision tokens, and "
        "measure what that costs and gives.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"adallava {adallava.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [name for name in COMMANDS if name in wanted] or COMMANDS:
        command = import_module(f"adallava.cli.{name}")
        command.add_parser(subparsers)
        subparsers.choices[name].set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
