"""From names to loaded models with their methods: what a sweep does before it answers anything."""

from collections.abc import Mapping, Sequence

from adallava.costs.shapes import model_shape_from_config
from adallava.errors import InputError
from adallava.model import AdaLlava
from adallava.records import FULL_METHOD
from adallava.registry import load_selector_class, selector_names
from adallava.selection.contract import draws_at_random
from adallava.tasks.task import Scorer

from .answering import Answerer
from .availability import why_left_out
from .observer import SweepObserver
from .request import SweepRequest

ALL_METHODS = "all"
"""Asks for every registered method that the model can run as configured; the others are left out, with a note."""


def resolve_methods(asked: Sequence[str]) -> dict[str, bool]:
    """Return the selection methods to run, without `full`, each with whether it was named rather than `all`.

    Raises:
        UnknownNameError: for a name that is not registered, with the nearest ones.
    """
    methods: dict[str, bool] = {}
    for name in asked:
        if name == ALL_METHODS:
            methods |= {known: methods.get(known, False) for known in selector_names()}
        elif name != FULL_METHOD:
            load_selector_class(name)
            methods[name] = True
    return methods


def load_models(request: SweepRequest, methods: Mapping[str, bool], observer: SweepObserver) -> dict[str, AdaLlava]:
    """Load the base once, and every method upon it; the full-token model comes first.

    Raises:
        CheckpointError: for a model that cannot be loaded, or a named learned method without its adapter.
        UnsupportedModeError: for a named method that needs what the model lacks.
        InputError: for an adapter or an option given for a method that does not run.
    """
    for option, given in (("--adapter", request.adapters), ("--method-option", request.method_options)):
        unused = sorted(set(given) - set(methods))
        if unused:
            raise InputError(f"{option} names {', '.join(unused)}, but --method does not")
    full = AdaLlava.from_pretrained(
        request.model,
        method=FULL_METHOD,
        dtype=request.dtype,
        device=request.device,
        attn_implementation=request.attn_implementation,
    )
    models = {FULL_METHOD: full}
    for method, named in methods.items():
        adapter, options = request.adapters.get(method), request.method_options.get(method, {})
        reason = None if named or adapter is not None else why_left_out(full, method, options)
        if reason is None:
            models[method] = full.with_method(method, adapter=adapter, **options)
        else:
            observer.note(f"method {method} is left out: {reason}")
    return models


def methods_ignoring_budget(methods: Mapping[str, AdaLlava]) -> frozenset[str]:
    """Return those with one result whatever the budget."""
    return frozenset(
        name for name, model in methods.items() if model.selector is not None and model.selector.ignores_budget
    )


def methods_drawing(methods: Mapping[str, AdaLlava]) -> frozenset[str]:
    """Return those whose choice depends on the seed."""
    return frozenset(name for name, model in methods.items() if draws_at_random(model.selector))


def make_answerers(request: SweepRequest, models: Mapping[str, AdaLlava], score: Scorer) -> dict[str, Answerer]:
    """Return what answers for each method.

    Raises:
        InputError: for a model whose FLOPs have no closed form here.
    """
    base_shape = model_shape_from_config(models[FULL_METHOD].base.config.to_dict())
    return {
        method: Answerer(model, base_shape, request.seed, request.max_new_tokens, score)
        for method, model in models.items()
    }
