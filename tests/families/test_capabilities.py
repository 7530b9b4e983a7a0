"""What each family can do beside the core, and how one that cannot is refused: by the function that asks, in words."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import tiny_base

from adallava.errors import UnsupportedModeError
from adallava.families import family_from_nothing, wrap_model
from adallava.families.capabilities import of_llms, of_pictures, of_tokens, of_towers
from adallava.families.capabilities.of_classes import MadeFromNothing, NamesCostedParts
from adallava.families.capabilities.of_llms import DrivesDecoder, SplitsHeads
from adallava.families.capabilities.of_pictures import ShowsPatches, ShowsTiles
from adallava.families.capabilities.of_tokens import GivesCompanions, MayLackGrid
from adallava.families.capabilities.of_towers import AlignsPatches, HasTextTower, ReadsBudgetToken, ResizesPictures
from adallava.families.family_contract import Family
from adallava.families.llava import LlavaFamily
from adallava.families.llava_next import LlavaNextFamily
from adallava.families.needs import check_needs, met_needs
from adallava.families.picture_inputs import PictureInputs
from adallava.registry import selector_names
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

OF_BOTH = {DrivesDecoder, MayLackGrid, NamesCostedParts, ShowsPatches}
OF_LLAVA = {HasTextTower, ReadsBudgetToken, ResizesPictures, AlignsPatches, MadeFromNothing}
OF_NEXT = {ShowsTiles}
OF_NONE = {GivesCompanions}

PICTURES = PictureInputs(torch.zeros(2, 3, 28, 28))


class Core:
    """A family with the core alone: what it is given is LLaVA's."""

    name, transformers_class = "core", "LlavaForConditionalGeneration"

    def __init__(self) -> None:
        self._whole = wrap_model(tiny_base())

    def __getattr__(self, name: str) -> Any:
        if name not in vars(Family):
            raise AttributeError(name)
        return getattr(self._whole, name)


@pytest.fixture(scope="module")
def core() -> Any:
    return Core()


@pytest.mark.parametrize(("cls", "own"), [(LlavaFamily, OF_LLAVA), (LlavaNextFamily, OF_NEXT)])
def test_a_family_has_what_its_methods_say(cls: type[Any], own: set[type[Any]]) -> None:
    asked = OF_BOTH | OF_LLAVA | OF_NEXT | OF_NONE
    methods = {each: {name for name in vars(each) if not name.startswith("_")} for each in asked}
    assert {each for each in asked if all(hasattr(cls, name) for name in methods[each])} == OF_BOTH | own


def test_a_loaded_model_is_asked_by_type() -> None:
    family = wrap_model(tiny_base())
    assert all(isinstance(family, each) for each in (OF_BOTH | OF_LLAVA) - {MadeFromNothing, NamesCostedParts})
    assert not isinstance(family, ShowsTiles)
    assert isinstance(of_llms.decoder_of(family), SplitsHeads)
    assert family_from_nothing() is LlavaFamily


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (of_llms.decoder_of, "cannot see the layers"),
        (lambda family: of_towers.load_text_tower(family, "clip"), "no text tower"),
        (lambda family: of_towers.with_budget_token(family, PICTURES, torch.zeros(2, 32)), "no budget token"),
        (lambda family: of_towers.resized(family, PICTURES, (2, 2)), "no resized image"),
        (lambda family: of_pictures.shown_patches(family, PICTURES), "cannot be drawn"),
        (of_towers.aligning, "stage 'align'"),
    ],
)
def test_the_core_alone_is_refused_by_name(core: Any, ask: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(UnsupportedModeError, match=rf"'core'.*{words}|{words}.*'core'"):
        ask(core)


def test_the_core_alone_has_one_tower_run_an_image_and_a_grid(core: Any) -> None:
    assert of_pictures.tower_runs(core, PICTURES) == (1, 1)
    assert of_tokens.why_no_grid(core) is None


def test_methods_before_the_llm_that_need_no_more_take_the_core(core: Any) -> None:
    whole = wrap_model(tiny_base())
    beyond = {Need.ATTENTION_RECEIVED, Need.BUDGET_TOKEN, Need.RESIZED_PICTURE, Need.TEXT_TOWER}
    assert met_needs(whole) - met_needs(core) == beyond
    taken = {name for name in selector_names() if _is_taken(core, name)}
    assert {"uniform", "cls-attention", "divprune", "none"} <= taken
    assert taken.isdisjoint({"downsample", "budget-token", "fastv", "pyramiddrop"})


def _is_taken(family: Any, method: str) -> bool:
    try:
        check_needs(family, build_selector(method, family.shape))
    except UnsupportedModeError:
        return False
    return True
