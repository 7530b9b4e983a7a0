"""One vision-language model, any compute budget.

Names are loaded on first use, so that `adallava --help` and the report never wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AdaLlava": "adallava.model",
    "AdaLlavaProcessor": "adallava.model",
    "AdaLlavaOutput": "adallava.pipeline.result",
    "TokenBudget": "adallava.budget",
    "Selection": "adallava.selection.selector_contract",
    "SelectionInput": "adallava.selection.selector_contract",
    "Selector": "adallava.selection.selector_contract",
    "TowerShape": "adallava.selection.selector_contract",
    "top_k_in_order": "adallava.selection.selector_contract",
    "Drop": "adallava.selection.layer_contract",
    "DropInput": "adallava.selection.layer_contract",
    "LayerSelector": "adallava.selection.layer_contract",
    "PromptInput": "adallava.selection.layer_contract",
    "Raters": "adallava.selection.layer_contract",
}

__all__ = [
    "AdaLlava",
    "AdaLlavaOutput",
    "AdaLlavaProcessor",
    "Drop",
    "DropInput",
    "LayerSelector",
    "PromptInput",
    "Raters",
    "Selection",
    "SelectionInput",
    "Selector",
    "TokenBudget",
    "TowerShape",
    "__version__",
    "top_k_in_order",
]

if TYPE_CHECKING:
    from adallava.budget import TokenBudget
    from adallava.model import AdaLlava, AdaLlavaProcessor
    from adallava.pipeline.result import AdaLlavaOutput
    from adallava.selection.layer_contract import Drop, DropInput, LayerSelector, PromptInput, Raters
    from adallava.selection.selector_contract import Selection, SelectionInput, Selector, TowerShape, top_k_in_order


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'adallava' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
