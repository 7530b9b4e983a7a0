"""A view of a stock model whose `generate` takes embeddings, where its class does not forward them.

transformers' `generate` looks for `inputs_embeds` among the arguments of `prepare_inputs_for_generation`. Classes that
override it and hand everything on by `**kwargs` (Gemma's) are refused by name of that argument alone; what they call
takes it. The view is a shallow copy of the model, of a subclass that names it: nothing is set on the user's model.
"""

import copy
from functools import cache
from typing import Any

from torch import Tensor, nn


def taking_embeds(model: nn.Module) -> Any:
    """Return a view of a model, for one call, whose `generate` takes `inputs_embeds` besides `input_ids`."""
    view = copy.copy(model)
    cls: Any = type(model)
    view.__class__ = _naming_embeds(cls)
    return view


@cache
def _naming_embeds(cls: Any) -> type[Any]:
    """Return a subclass that differs in the names of one method's arguments."""

    def prepare_inputs_for_generation(
        self: Any, input_ids: Tensor, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Call the stock method, which names `inputs_embeds` only among its further arguments."""
        made: dict[str, Any] = cls.prepare_inputs_for_generation(self, input_ids, inputs_embeds=inputs_embeds, **kwargs)
        return made

    own = {"prepare_inputs_for_generation": prepare_inputs_for_generation, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), own)
