"""What lmms-eval's `--model_args` and own options ask of the plug-in, read and checked before anything is loaded."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from adallava.errors import BudgetError, InputError
from adallava.records import FULL_LATENCY, FULL_METHOD, PositionsName, RunConfig
from adallava.records.cells import CellPlan

_OWN_NAMES = (
    "pretrained", "method", "token_budget", "latency", "scheduler", "scheduler_adapter", "adapter", "positions", "seed",
    "dtype", "attn_implementation", "engine", "quantization", "device", "device_map", "batch_size", "max_batch_size",
    "pad_to_square", "verbose", "max_empty_share",
)  # fmt: skip
"""The arguments; every other one is an option of the method, or with `scheduler_` before its name of the scheduler."""

_TEXTS = (
    "pretrained",
    "method",
    "scheduler",
    "scheduler_adapter",
    "adapter",
    "dtype",
    "attn_implementation",
    "engine",
    "quantization",
    "device",
)
"""Arguments that are text, also where lmms-eval reads a number: a folder may be called 2026."""

_CHECKED: Mapping[str, Any] = {
    "positions": PositionsName,
    "seed": int,
    "verbose": bool,
    "max_empty_share": Annotated[float, Field(ge=0, le=1)],
    "pad_to_square": bool,
}
"""Arguments held to a type: what is wrong with them would come to light in the middle of a run, or never."""

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
            f"--model_args, and give only --{name}"
        )
    return {**given, **said}


@dataclass(frozen=True)
class Settings:
    """The plug-in's arguments.

    Attributes:
        config: what is asked for: one method at one budget, and at most one scheduler at one latency. lmms-eval itself
            brings the task, its limit and how to generate.
        adapter: folder of a learned method's weights, if it is not next to the model.
        scheduler_adapter: folder of a learned scheduler's weights, likewise.
        device_map: see `choose_device`.
        verbose: log a line for every sample; with `--verbosity DEBUG` they are logged anyway.
        max_empty_share: share of a task's answers that may be empty, else the run fails, see `check_empties`.
    """

    config: RunConfig
    adapter: str | None = None
    scheduler_adapter: str | None = None
    device_map: Any = None
    verbose: bool = False
    max_empty_share: float = 0.01

    @property
    def cell(self) -> CellPlan:
        """The cell of a sweep that the run is."""
        config = self.config
        scheduler = config.schedulers[0] if config.schedulers else None
        return CellPlan(
            config.methods[0],
            config.token_budgets[0],
            config.positions[0],
            scheduler=scheduler,
            latency=config.latencies[0],
        )

    @classmethod
    def read(cls, pretrained: str, **given: Any) -> Self:
        """Read arguments as lmms-eval passes them: its command line gives some numbers as text.

        Raises:
            BudgetError: for a budget or latency that means nothing, or that nothing chosen can give.
            InputError: for a value of the wrong type, or options of no method or no scheduler.
        """
        named = {"pretrained": pretrained} | {name: value for name, value in given.items() if name in _OWN_NAMES}
        named |= {name: str(named[name]) for name in _TEXTS if named.get(name) is not None}
        _check_types({name: named[name] for name in _CHECKED if name in named})
        rest = {name: value for name, value in given.items() if name not in _OWN_NAMES}
        of_scheduler = {name for name in rest if name.startswith(_SCHEDULER_PREFIX)}
        method, scheduler = named.get("method", FULL_METHOD), named.get("scheduler")
        method_options = {name: value for name, value in rest.items() if name not in of_scheduler}
        options = {name.removeprefix(_SCHEDULER_PREFIX): rest[name] for name in sorted(of_scheduler)}
        _check_options(method, method_options, scheduler, options, named.get("scheduler_adapter"))
        same = ("seed", "dtype", "attn_implementation", "engine", "quantization", "device", "pad_to_square")
        settings = cls(
            config=RunConfig.asked(
                model=named["pretrained"],
                methods=(method,),
                token_budgets=(named.get("token_budget", 1.0),),
                latencies=(named.get("latency", 1.0),),
                schedulers=() if scheduler is None else (scheduler,),
                positions=(named.get("positions", "original"),),
                method_options={method: method_options} if method_options else {},
                scheduler_options={scheduler: options} if options else {},
                batch_size=_parse_batch_size(named.get("batch_size", 1)),
                **{name: named[name] for name in same if named.get(name) is not None},
            ),
            **{name: named[name] for name in _OF_SETTINGS if name in named},
        )
        _check_cell(settings.cell)
        return settings


_OF_SETTINGS = ("adapter", "scheduler_adapter", "device_map", "verbose", "max_empty_share")


def _check_options(
    method: str,
    method_options: Mapping[str, Any],
    scheduler: str | None,
    scheduler_options: Mapping[str, Any],
    scheduler_adapter: str | None,
) -> None:
    """Refuse options of nothing.

    Raises:
        InputError: naming them.
    """
    if method == FULL_METHOD and method_options:
        raise InputError(
            f"{_with_hints(method_options)} is not an argument here, and method={FULL_METHOD} has no options: the "
            f"arguments are {', '.join(_OWN_NAMES)}"
        )
    idle = {"adapter": scheduler_adapter} if scheduler_adapter else {}
    if scheduler is None and (idle or scheduler_options):
        names = ", ".join(_SCHEDULER_PREFIX + name for name in {**idle, **scheduler_options})
        raise InputError(f"{names} without a scheduler: give scheduler=…, or leave it out")


def _check_cell(cell: CellPlan) -> None:
    """Refuse what leaves tokens or layers out without saying which.

    Raises:
        BudgetError: for a budget without a method, or a latency without a scheduler.
    """
    if cell.method == FULL_METHOD and cell.budget_asked != "1.0":
        raise BudgetError(
            f"token_budget={cell.budget_asked} with method={FULL_METHOD}, which keeps every token: give a method"
        )
    if cell.scheduler is None and cell.latency_asked != FULL_LATENCY:
        raise BudgetError(
            f"latency={cell.latency_asked} leaves layers of the LLM out: give a scheduler that says which, or "
            f"latency={FULL_LATENCY}"
        )


def _with_hints(names: Mapping[str, Any]) -> str:
    """Return names, each with the argument that it may be a misspelling of."""
    close = {name: difflib.get_close_matches(name, _OWN_NAMES, n=1, cutoff=0.7) for name in names}
    return ", ".join(name + (f" (did you mean {close[name][0]}?)" if close[name] else "") for name in names)


def _check_types(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        try:
            TypeAdapter(_CHECKED[name], config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise InputError(f"{name}={value!r} is refused: {error.errors()[0]['msg']}") from error


def _parse_batch_size(value: int | str) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"batch_size={value!r} is not supported: give a whole number of at least 1")
    return int(text)
