"""How a prepared batch is run and answered: one engine a file. Stock `generate` is one of them."""

from adallava.engines.contract import Engine, Generated
from adallava.engines.pick import EngineName, Engines, check_engine, pick_engine

__all__ = ["Engine", "EngineName", "Engines", "Generated", "check_engine", "pick_engine"]
