"""How a prepared batch is run and answered: one engine a file. Stock `generate` is one of them."""

from adallava.engines.engine_contract import Engine
from adallava.engines.pick import Engines, check_engine, pick_engine
from adallava.engines.warming import WarmUp, warm_up

__all__ = ["Engine", "Engines", "WarmUp", "check_engine", "pick_engine", "warm_up"]
