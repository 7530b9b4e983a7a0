"""How a prepared batch is run and answered: one engine a file. Stock `generate` is one of them."""

from adallava.engines.contract import Engine, Generated
from adallava.engines.pick import ENGINES, pick_engine

__all__ = ["ENGINES", "Engine", "Generated", "pick_engine"]
