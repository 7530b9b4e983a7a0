"""The command line's frame: one module a command, mistakes as one line, exit codes with a meaning.

Each command module has `add_parser(subparsers)` and `run(args) -> int`, and imports nothing heavy at its
top, so that `adallava --help` needs no torch.
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import adallava
from adallava.errors import AdallavaError, InputError

from .arguments import SEPARATORS, check_argv, takes_lists
from .streams import say, steady_streams

COMMANDS = ("sweep", "compare", "report", "generate", "bench", "doctor", "train", "convert", "families", "demo")
"""Modules of `adallava.cli`, in the order of the help."""

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_MAX_LINE = 2000

_NOISY_LOGGERS = ("torchao", "torch.utils._pytree")
"""Where torchao is installed, transformers imports it, and it warns of CUDA libraries if torch has no CUDA."""

_EPILOG = """\
exit codes:
  0    done
  1    done, but the result cannot be trusted; the output says what and why
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
        check_argv(argv)
        args = build_parser(argv[:1]).parse_args(argv)
    except InputError as error:
        where = "" if isinstance(error, _UsageError) else "adallava: "
        say(f"{where}{_one_line(error)}", error=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:  # nothing has begun
        return EXIT_INTERRUPTED
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return int(args.run(args))
    except (AdallavaError, OSError) as error:
        say(f"adallava {args.command}: {_one_line(error)}", error=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        hint = getattr(args, "interrupt_hint", "")
        say(f"adallava {args.command}: interrupted{hint}", error=True)
        return EXIT_INTERRUPTED


def _one_line(error: Exception) -> str:
    """Return what an error says; a name of thousands of characters in it is cut, and the end stays: it says the fix."""
    text = " ".join(str(error).split())
    return text if len(text) <= _MAX_LINE else f"{text[: _MAX_LINE // 2]} … {text[-_MAX_LINE // 2 :]}"


_ELSEWHERE = {"serve": "vllm serve does, with adallava's plug-in (docs/how_to/serving.md);"}
"""Commands that a user may look for and that are another program's."""


class _UsageError(InputError):
    """A call that cannot be parsed; the message names the command."""


class _Parser(argparse.ArgumentParser):
    """Raises on a mistake, which is one line like every other."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the call, in place of printing it and exiting."""
        unknown = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if unknown:
            near = get_close_matches(unknown[1], COMMANDS, n=1)
            hint = _ELSEWHERE.get(unknown[1]) or (f"did you mean {near[0]}?" if near else "")
            message = f"no command {unknown[1]!r}: {hint} the commands are {', '.join(COMMANDS)}".replace("  ", " ")
        raise _UsageError(f"{self.prog}: {message} ({self.prog} --help says more)")


class _CommandParser(_Parser):
    """Of one command: it names itself and the nearest option where it does not know one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all that is given, or raise: what a command does not know, nobody else does."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed, unknown


def build_parser(wanted: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser with the wanted command alone, or with every command if it is none of them."""
    parser = _Parser(
        prog="adallava",
        description="One vision-language model, any compute budget: answer with K of N vision tokens, and "
        "measure what that costs and gives.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"adallava {adallava.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for name in [name for name in COMMANDS if name in wanted] or COMMANDS:
        command = import_module(f"adallava.cli.{name}")
        command.add_parser(subparsers)
        added = subparsers.choices[name]
        added.set_defaults(run=command.run)
        if takes_lists(added):
            added.epilog = f"{SEPARATORS}\n\n{added.epilog}"
    return parser


if __name__ == "__main__":
    sys.exit(main())
