"""Values that several commands read in the same way."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from adallava.budget import MAX_COUNT
from adallava.errors import InputError
from adallava.records import PositionsName

_NO_OPTIONS = frozenset(("self", "method", "scheduler", "adapter", "allow_other_base", "name", "shape"))
"""What loading a method or a scheduler is given besides its options."""

_MAX_DIGITS = 30
_MAX_SHOWN = 40
MAX_TITLE = 300
"""Characters of a report's title."""


def check_argv(argv: Sequence[str]) -> None:
    """Refuse arguments that no record of the run could hold.

    Raises:
        InputError: for one that is not UTF-8, or holds a NUL byte.
    """
    for place, value in enumerate(argv, start=1):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"argument {place}, {value!a}, is not UTF-8: rename the file, or write it again") from None
        if "\0" in value:
            raise InputError(f"argument {place}, {value!a}, holds a NUL byte")


def whole_number(text: str) -> int:
    """Read a whole number, of any sign; its range is up to whoever takes it."""
    digits = text.strip().removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{shorten(text)} is not a whole number")


def path_argument(text: str) -> Path:
    """Read a path; an empty one would be the current folder, which nobody means by it."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a path: give one, such as . for the current folder")
    return Path(text)


def shorten(text: str) -> str:
    """Return what a user wrote, in quotes, cut where it is too long to be read."""
    return repr(text) if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]!r}… ({len(text)} characters)"


class ListAction(argparse.Action):
    """Collects a list given with spaces, with commas, or by repeating the option: all three mean the same."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Append the values to those of earlier uses of the option; the first use replaces the default."""
        given: Sequence[str] = [values] if isinstance(values, str) else values
        earlier = getattr(namespace, self.dest)
        earlier = [] if earlier is self.default else earlier
        setattr(namespace, self.dest, [*earlier, *split_list(given)])


def split_list(values: Sequence[str]) -> list[str]:
    """Return the items of `["a,b", "c"]` as `["a", "b", "c"]`; empty items vanish."""
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def add_list_argument(parser: Any, *flags: str, **options: Any) -> None:
    """Add an option whose value is a list, see `ListAction`."""
    parser.add_argument(*flags, action=ListAction, nargs="+", **options)


SEPARATORS = "separate the values of a list by commas or spaces (A,B or A B)"
"""What `takes_lists` adds to a command's help."""


def takes_lists(parser: argparse.ArgumentParser) -> bool:
    """Return whether a command has an option whose value is a list."""
    return any(isinstance(action, ListAction) for action in parser._actions)


def parse_positions(values: Sequence[str]) -> tuple[PositionsName, ...]:
    """Read kinds of position ids, each once, in the order given.

    Raises:
        InputError: for another kind.
    """
    known = {name: name for name in get_args(PositionsName)}
    for value in values:
        if value not in known:
            raise InputError(f"--positions {value!r} is not one of {', '.join(known)}")
    return tuple(known[value] for value in dict.fromkeys(values))


def parse_batch_sizes(values: Sequence[str], option: str = "--timing-batch-sizes") -> tuple[int, ...]:
    """Read batch sizes, each once, in ascending order.

    Raises:
        InputError: for one that is not a whole number of at least 1.
    """
    for value in values:
        if not _is_count(value):
            raise InputError(f"{option} {shorten(value)} is not a batch size: give whole numbers from 1 to {MAX_COUNT}")
    return tuple(sorted({int(value) for value in values}))


def parse_method_paths(values: Sequence[str]) -> dict[str, Path]:
    """Read `METHOD=PATH` pairs.

    Raises:
        InputError: for a value of another form.
    """
    paths = {}
    for value in values:
        method, equals, path = value.partition("=")
        if not (method and equals and path):
            raise InputError(f"--adapter {value!r} is not METHOD=PATH, such as question=adapters/question")
        paths[method] = Path(path)
    return paths


MethodOptions = dict[str, dict[str, Any]]
"""Options by method and name: `bool`, `int`, `float` or `str`."""


def options_of_methods(values: Sequence[str], methods: Sequence[str]) -> MethodOptions:
    """Read options as `parse_method_options` does, for these methods.

    Raises:
        InputError: for an option of a method that is not among them.
    """
    return _options_of(parse_method_options(values), methods, "method")


def options_of_schedulers(values: Sequence[str], schedulers: Sequence[str]) -> MethodOptions:
    """Read options as `parse_scheduler_options` does, for these schedulers.

    Raises:
        InputError: for an option of a scheduler that is not among them.
    """
    return _options_of(parse_scheduler_options(values), schedulers, "scheduler")


def _options_of(options: MethodOptions, names: Sequence[str], kind: str) -> MethodOptions:
    unused = sorted(set(options) - set(names))
    if unused:
        raise InputError(f"--{kind}-option names {', '.join(unused)}, but --{kind} does not")
    return options


def parse_method_options(values: Sequence[str]) -> MethodOptions:
    """Read `METHOD.OPTION=VALUE`; a value that is written as a whole number, a number or true or false is one.

    Raises:
        InputError: for a value of another form, or an option given twice.
    """
    return _parse_options(values, "method", "cdpruner.relevance=llm-embeddings")


def parse_scheduler_options(values: Sequence[str]) -> MethodOptions:
    """Read `SCHEDULER.OPTION=VALUE` settings, as `parse_method_options` does.

    Raises:
        InputError: for a value of another form, or an option given twice.
    """
    return _parse_options(values, "scheduler", "fixed.plans=4+6")


def _parse_options(values: Sequence[str], kind: str, example: str) -> MethodOptions:
    options: MethodOptions = {}
    for value in values:
        name, equals, text = value.partition("=")
        method, dot, option = name.partition(".")
        option = option.replace("-", "_")
        if not (method and dot and option.isidentifier() and equals and text):
            raise InputError(f"--{kind}-option {value!r} is not {kind.upper()}.OPTION=VALUE, such as {example}")
        if option in _NO_OPTIONS:
            raise InputError(f"--{kind}-option {value!r}: {option} is not an option of a {kind}")
        if option in options.setdefault(method, {}):
            raise InputError(f"--{kind}-option gives {method}.{option} twice")
        options[method][option] = _parse_scalar(text)
    return options


def parse_generation_options(values: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE`, transformers' names; a value that is JSON is what it says, another is text.

    Raises:
        InputError: for a value of another form, or an option given twice.
    """
    options: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        name = name.replace("-", "_")
        if not (name.isidentifier() and equals and text):
            raise InputError(f"--generation-option {value!r} is not NAME=VALUE, such as num_beams=4")
        if name in options:
            raise InputError(f"--generation-option gives {name} twice")
        try:
            options[name] = json.loads(text)
        except (ValueError, RecursionError):
            options[name] = _parse_scalar(text)
    return options


def _parse_scalar(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def parse_title(value: str) -> str:
    """Read a title as one line of text that any file can hold.

    Raises:
        ArgumentTypeError: for one that is too long for a heading.
    """
    title = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    if len(title) > MAX_TITLE:
        raise argparse.ArgumentTypeError(f"{len(title)} characters are too many: give at most {MAX_TITLE}")
    return title


def parse_limit(value: str) -> int | None:
    """Read a number of samples, at least 1, or `all`, which is None.

    Raises:
        InputError: for anything else.
    """
    if value == "all":
        return None
    if not _is_count(value):
        raise InputError(
            f"--limit {shorten(value)} is not a number of samples: give a whole number from 1 to {MAX_COUNT}, or all"
        )
    return int(value)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and 1 <= int(text) <= MAX_COUNT
