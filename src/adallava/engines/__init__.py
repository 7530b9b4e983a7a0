"""How a prepared batch is run and answered: one engine a file. Stock `generate` is one of them."""

from adallava.engines.contract import Engine, Generated
from adallava.engines.pick import EngineName, Engines, pick_engine
from adallava.engines.warming import WarmUp, warm_up

__all__ = ["Engine", "EngineName", "Engines", "Generated", "WarmUp", "pick_engine", "warm_up"]
