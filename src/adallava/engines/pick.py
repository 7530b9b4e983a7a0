"""Which engine runs a call."""

from collections.abc import Sequence

from adallava.engines.contract import Engine
from adallava.engines.stock import StockEngine
from adallava.errors import UnsupportedModeError
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.program import LLMRun

ENGINES: tuple[Engine, ...] = (StockEngine(),)
"""In the order of preference; the last one can do everything."""


def pick_engine(run: LLMRun, plan: GenerationPlan, engines: Sequence[Engine] = ENGINES) -> Engine:
    """Return the first engine that can do a call.

    Raises:
        UnsupportedModeError: if none can, with what each of them says.
    """
    reasons = []
    for engine in engines:
        reason = engine.refusal(run, plan)
        if reason is None:
            return engine
        reasons.append(f"{engine.name}: {reason}")
    raise UnsupportedModeError(f"no engine can run this call ({'; '.join(reasons)})")
