"""What may be asked of a sweep. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adallava.analysis.margins import MARGIN, check_margin
from adallava.costs.roofline import hardware
from adallava.errors import InputError
from adallava.records import RunConfig
from adallava.runs.decoding_options import check_options


@dataclass(frozen=True)
class SweepRequest:
    """What to sweep, and what of a launch decides no answer. The full-token model is always part of it.

    Attributes:
        config: what is asked for.
        output: the run folder.
        adapters: folder by method or scheduler, for learned ones whose adapter is not next to the model.
        include_path: folder with further tasks of lmms-eval.
        allow_outside: let a local file name images outside of its folder.
        retry_failed: run failed samples of a resumed run again.
        report: write `report.html`.
        roofline: hardware whose bound is next to the report's milliseconds; None for that of the run, if known.
        equivalence_margin: accuracies no further apart than this are called the same.
        command: the command line, for the record.
    """

    config: RunConfig
    output: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)
    include_path: Path | None = None
    allow_outside: bool = False
    retry_failed: bool = False
    report: bool = True
    roofline: str | None = None
    equivalence_margin: float = MARGIN
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to run, or would be read by nothing.

        Raises:
            InputError: naming the option and its value.
        """
        check_options(self.config.generation_options)
        check_margin(self.equivalence_margin)
        if self.roofline is not None:
            hardware(self.roofline)
        self.config.check_scheduler()
        if self.config.schedulers and not self.config.latencies_below:
            raise InputError(
                f"--scheduler {', '.join(self.config.schedulers)} has nothing to leave out: give a --latency below 1.0"
            )
