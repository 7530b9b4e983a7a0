"""What lmms-eval's `--model_args` and own options ask of the plug-in, read and checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from adallava.budget import Latency, TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.records import FULL_METHOD

_SCHEDULER_PREFIX = "scheduler_"
"""`scheduler_plans=6` is the option `plans` of the scheduler."""


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
        verbose: log a line for every sample; with `--verbosity DEBUG` they are logged anyway.
        max_empty_share: share of empty answers above which the run fails, see `EmptyWatch`.
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
    positions: Any = "original"
    seed: int = 0
    dtype: str = "auto"
    attn_implementation: str = "sdpa"
    device: str | None = None
    device_map: Any = None
    batch_size: int = 1
    max_batch_size: int | None = None
    verbose: bool = False
    max_empty_share: float = 0.01
    method_options: Mapping[str, Any] = field(default_factory=dict)
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what leaves tokens or layers out without saying which.

        Raises:
            BudgetError: for a budget without a method, or a latency without a scheduler.
            InputError: for options of no scheduler.
        """
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
            InputError: for a batch size that is no number, or options of no scheduler.
        """
        own = {item.name for item in fields(cls)} - {"method_options", "scheduler_options"}
        known = {name: value for name, value in given.items() if name in own}
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
            pretrained,
            **known,
            method_options={name: value for name, value in rest.items() if name not in of_scheduler},
            scheduler_options={name.removeprefix(_SCHEDULER_PREFIX): rest[name] for name in sorted(of_scheduler)},
        )


def _parse_batch_size(value: int | str) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"batch_size={value!r} is not supported: give a whole number of at least 1")
    return int(text)
