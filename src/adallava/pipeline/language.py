"""What a model's text side gives to a method that reads the question's words."""

from typing import Any

from adallava.families.capabilities.of_towers import load_text_tower
from adallava.families.family_contract import Family
from adallava.pipeline.wording import Language, Wording
from adallava.processors.stock_processor import question_frame
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import Need, TextTowerMethod


def make_language(family: Family, selector: AnySelector | None, processor: Any) -> Language | None:
    """Return what the method needs of the tokenizer and a text tower; None if it reads no words.

    Raises:
        CheckpointError: if the method's text tower cannot be loaded.
    """
    needs = frozenset() if selector is None else selector.needs
    if processor is None or not needs & {Need.WORDS, Need.TEXT_TOWER}:
        return None
    prefix, suffix = question_frame(processor)
    text_tower = None
    if Need.TEXT_TOWER in needs and isinstance(selector, TextTowerMethod):
        text_tower = load_text_tower(family, str(selector.text_tower))
    return Language(Wording(processor.tokenizer, prefix, suffix), text_tower)
