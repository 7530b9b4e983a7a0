"""What lmms-eval's `--model_args` and own options ask of the plug-in, read and checked before anything is loaded."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Self, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from adallava.budget import Latency, TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.records import FULL_METHOD, PositionsName

_NAMES = ("pretrained", "method", "scheduler", "scheduler_adapter", "adapter", "dtype", "attn_implementation", "device")
"""Arguments that are text, also where lmms-eval reads a number: a folder may be called 2026."""

_CHECKED = ("positions", "seed", "verbose", "max_empty_share", "pad_to_square")
"""Arguments held to their annotation: what is wrong with them would come to light in the middle of a run, or never."""

_SCHEDULER_PREFIX = "scheduler_"
"""`scheduler_plans=6` is the option `plans` of the scheduler."""


def join_arguments(given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `--model_args` and the options that lmms-eval's command line adds to them.

    Args:
        given: by `--model_args`.
        options: of the command line, `batch_size` always among them; None is nothing said.

    Raises:
        InputError: if no model is named, or one argument comes from both.
    """
    if "pretrained" not in given:
        raise InputError("--model_args names no model: add pretrained=…, a bundled name, a folder or a hub id")
    said = {name: value for name, value in options.items() if value is not None}
    for name in sorted(given.keys() & said.keys()):
        raise InputError(
            f"{name}={given[name]!r} is one of --model_args, and --{name} says {said[name]!r}: take it out of "
            f"--model_args, and give --{name} alone"
        )
    return {**given, **said}


@dataclass(frozen=True)
class Settings:
    """The plug-in's arguments.

    Attributes:
        pretrained: bundled name, folder or hub id.
        method: selection method; `full` keeps every token.
        token_budget: a share (0.25) or a count (64) of the vision tokens.
        latency: a share (0.75) or a count (24) of the LLM's layers.
        scheduler: which layers run at a latency below 1.0.
        scheduler_adapter: folder of a learned scheduler's weights, if it is not beside the model.
        adapter: folder of a learned method's weights, if it is not beside the model.
        positions: of the kept tokens, "original" or "compact".
        seed: of methods that draw at random; the same sample has the same seed as in `adallava sweep`.
        dtype: of the weights; "auto" is what they are stored in.
        attn_implementation: as in transformers.
        device: see `choose_device`.
        device_map: see `choose_device`.
        batch_size: requests answered together.
        max_batch_size: of lmms-eval's `batch_size=auto`, which is refused; not used.
        pad_to_square: pad pictures to squares, see `AdaLlavaProcessor.from_pretrained`.
        verbose: log a line for every sample; with `--verbosity DEBUG` they are logged anyway.
        max_empty_share: share of a task's answers that may be empty, else the run fails, see `check_empties`.
        method_options: constructor arguments of a training-free method: every other argument.
        scheduler_options: constructor arguments of a scheduler that is not learned: those with `scheduler_` before
            their names.
    """

    pretrained: str
    method: str = FULL_METHOD
    token_budget: TokenBudget = field(default_factory=lambda: TokenBudget(ratio=1.0))
    latency: Latency = field(default_factory=lambda: Latency(ratio=1.0))
    scheduler: str | None = None
    scheduler_adapter: str | None = None
    adapter: str | None = None
    positions: PositionsName = "original"
    seed: int = 0
    dtype: str = "auto"
    attn_implementation: str = "sdpa"
    device: str | None = None
    device_map: Any = None
    batch_size: int = 1
    max_batch_size: int | None = None
    pad_to_square: bool = False
    verbose: bool = False
    max_empty_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    method_options: Mapping[str, Any] = field(default_factory=dict)
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what leaves tokens or layers out without saying which, and options of nothing.

        Raises:
            BudgetError: for a budget without a method, or a latency without a scheduler.
            InputError: for options of no method or no scheduler.
        """
        if self.method == FULL_METHOD and self.method_options:
            raise InputError(
                f"{_with_hints(self.method_options)} is no argument here, and method={FULL_METHOD} has no options: the "
                f"arguments are {', '.join(_own_names())}"
            )
        if self.method == FULL_METHOD and self.token_budget != TokenBudget(ratio=1.0):
            raise BudgetError(
                f"token_budget={self.token_budget} with method={FULL_METHOD}, which keeps every token: give a method"
            )
        if self.scheduler is None and not self.latency.is_full:
            raise BudgetError(
                f"latency={self.latency} leaves layers of the LLM out: give a scheduler that says which, or latency=1.0"
            )
        idle = {"adapter": self.scheduler_adapter} if self.scheduler_adapter else {}
        if self.scheduler is None and (idle or self.scheduler_options):
            names = ", ".join(_SCHEDULER_PREFIX + name for name in {**idle, **self.scheduler_options})
            raise InputError(f"{names} without a scheduler: give scheduler=…, or leave it out")

    @classmethod
    def read(cls, pretrained: str, **given: Any) -> Self:
        """Read arguments as lmms-eval passes them: its command line gives some numbers as text.

        Raises:
            BudgetError: for a budget or latency that means nothing, or that nothing chosen can give.
            InputError: for a value of the wrong type, or options of no method or no scheduler.
        """
        own = _own_names()
        known = {"pretrained": pretrained} | {name: value for name, value in given.items() if name in own}
        known |= {name: str(known[name]) for name in _NAMES if known.get(name) is not None}
        _check_types({name: known[name] for name in _CHECKED if name in known})
        known |= {
            name: parse(known[name])
            for name, parse in (
                ("token_budget", TokenBudget.parse),
                ("latency", Latency.parse),
                ("batch_size", _parse_batch_size),
            )
            if name in known
        }
        rest = {name: value for name, value in given.items() if name not in own}
        of_scheduler = {name for name in rest if name.startswith(_SCHEDULER_PREFIX)}
        return cls(
            **known,
            method_options={name: value for name, value in rest.items() if name not in of_scheduler},
            scheduler_options={name.removeprefix(_SCHEDULER_PREFIX): rest[name] for name in sorted(of_scheduler)},
        )


def _own_names() -> tuple[str, ...]:
    return tuple(item.name for item in fields(Settings) if item.name not in ("method_options", "scheduler_options"))


def _with_hints(names: Mapping[str, Any]) -> str:
    """Return names, each with the argument that it may be a misspelling of."""
    close = {name: difflib.get_close_matches(name, _own_names(), n=1, cutoff=0.7) for name in names}
    return ", ".join(name + (f" (did you mean {close[name][0]}?)" if close[name] else "") for name in names)


def _check_types(given: Mapping[str, Any]) -> None:
    hints = get_type_hints(Settings, include_extras=True)
    for name, value in given.items():
        try:
            TypeAdapter(hints[name], config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise InputError(f"{name}={value!r} is refused: {error.errors()[0]['msg']}") from error


def _parse_batch_size(value: int | str) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"batch_size={value!r} is not supported: give a whole number of at least 1")
    return int(text)
