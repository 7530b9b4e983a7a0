"""Whether a method, or a scheduler, and a model go together: asked when they meet, before anything runs."""

from collections.abc import Iterable

from adallava.errors import UnsupportedModeError
from adallava.families.capabilities.of_llms import decoder_of, head_groups_of, reads_ahead
from adallava.families.capabilities.of_tokens import GivesCompanions, HasPositionRows, why_no_grid
from adallava.families.capabilities.of_towers import HasTextTower, ReadsAttention, ReadsBudgetToken, ResizesPictures
from adallava.families.family_contract import Family
from adallava.scheduling.scheduler_contract import Scheduler
from adallava.selection.layer_contract import AnySelector, LayerSelector
from adallava.selection.selector_contract import Need, TextTowerMethod

_TOWER_NEEDS = (Need.ATTENTION_RECEIVED, Need.CLS_TOKEN, Need.FEATURE_LAYER, Need.LAST_LAYER)
"""Read off the stock tower's states."""

_IN_WORDS = {
    Need.ATTENTION_RECEIVED: "the attention that patches receive in the vision tower",
    Need.BUDGET_TOKEN: "a vision tower that takes a budget token",
    Need.CLS_TOKEN: "a class token in the vision tower",
    Need.FEATURE_LAYER: "the keys of the vision tower's feature layer",
    Need.LAST_LAYER: "the keys of the vision tower's last layer",
    Need.PROJECTED: "the projector's output for every token",
    Need.RESIZED_PICTURE: "a vision tower that takes smaller images",
    Need.TEXT_TOWER: "the text tower of a CLIP",
    Need.WORDS: "the LLM's embeddings of the question",
}


def met_needs(family: Family) -> frozenset[Need]:
    """Return what a model can give to a method: of what its tower provides, that which its family can carry out."""
    lacking = {
        Need.ATTENTION_RECEIVED: not isinstance(family, ReadsAttention),
        Need.BUDGET_TOKEN: not isinstance(family, ReadsBudgetToken),
        Need.RESIZED_PICTURE: not isinstance(family, ResizesPictures),
        Need.TEXT_TOWER: not isinstance(family, HasTextTower),
    }
    return frozenset(need for need in family.provides if not lacking.get(need, False))


def _in_words(needs: Iterable[Need]) -> str:
    return " and ".join(_IN_WORDS[need] for need in sorted(needs))


def check_needs(family: Family, selector: AnySelector, model_name: str = "") -> None:
    """Refuse a method that needs what the model lacks, before anything runs.

    Raises:
        UnsupportedModeError: naming the method, what it needs, and what to do; of a method inside the LLM, also for an
            LLM whose layers are not known, or are too few.
    """
    no_grid = why_no_grid(family)
    if no_grid is not None:
        raise UnsupportedModeError(
            f"method {selector.name!r} chooses among patches, and {no_grid}: only method 'full' runs this model"
        )
    if not isinstance(selector.needs, frozenset | set) or not all(isinstance(need, Need) for need in selector.needs):
        raise UnsupportedModeError(
            f"method {selector.name!r} has needs={selector.needs!r}: give a frozenset of "
            "selection.selector_contract.Need"
        )
    missing = sorted(selector.needs - met_needs(family))
    where = f"the model {model_name!r}" if model_name else "this model"
    if missing:
        raise UnsupportedModeError(
            f"method {selector.name!r} needs {_in_words(missing)}, which {where} does not have "
            f"(its tower is of type {_tower_type(family)!r}): choose another method, such as 'uniform'"
        )
    if Need.BUDGET_TOKEN in selector.needs and selector.needs & {*_TOWER_NEEDS, Need.RESIZED_PICTURE}:
        raise UnsupportedModeError(
            f"method {selector.name!r} needs {_in_words(selector.needs)}: "
            "a tower with a budget token gives nothing but its features"
        )
    if isinstance(selector, TextTowerMethod) and Need.TEXT_TOWER in selector.needs and selector.text_tower is None:
        raise UnsupportedModeError(
            f"method {selector.name!r} compares patches with the question through a CLIP text tower, which {where} "
            "does not have: give the folder or hub id of the CLIP checkpoint that its vision tower came from "
            f"(text_tower=…, or --method-option {selector.name}.text_tower=…), or choose another relevance "
            "(see docs/reference/methods.md)"
        )
    if isinstance(selector, LayerSelector):
        _check_layers(family, selector)


def check_scheduler(family: Family, scheduler: Scheduler) -> None:
    """Refuse a scheduler that cannot split the model's LLM, before anything runs.

    Raises:
        UnsupportedModeError: naming what prevents it.
    """
    decoder = decoder_of(family)
    if scheduler.units(decoder.shape).groups > 1:
        head_groups_of(decoder).check_splittable()


def _check_layers(family: Family, selector: LayerSelector) -> None:
    """Refuse an LLM with too few layers, or masks that drops cannot make, now, not at the first answer."""
    known = isinstance(family, HasPositionRows) or reads_ahead(family)
    if isinstance(family, GivesCompanions) and not known:
        raise UnsupportedModeError(
            f"method {selector.name!r} drops tokens between layers, whose masks depend on "
            f"{', '.join(family.token_inputs)} in models of type {family.name!r}: choose a method that selects "
            "before the LLM"
        )
    num_tokens = family.shape.num_vision_tokens
    selector.schedule(decoder_of(family).num_layers, num_tokens, num_tokens)


def _tower_type(family: Family) -> str:
    config = getattr(family.model.config, "vision_config", None)
    return str(getattr(config, "model_type", "unknown"))
