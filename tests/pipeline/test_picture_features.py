"""The tower runs once for several choices from the same pictures, and no choice changes by it."""

from typing import Any

import pytest
import torch
from models import tiny_image

from adallava import AdaLlava
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.picture_inputs import PictureInputs
from adallava.model import build_prompt
from adallava.pipeline.picture_features import PictureFeatures

BUDGETS = (1, 3, 0.5, 1.0)


@pytest.mark.parametrize("method", ["uniform", "question", "visionzip", "fastv", "full"])
def test_choices_from_kept_features_are_those_of_whole_calls(
    full: AdaLlava, inputs: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        model = full.with_method(method)
    except UnsupportedModeError as error:
        pytest.skip(str(error))
    budgets = (1.0,) if method == "full" else BUDGETS
    expected = [model.select(**inputs, token_budget=budget, seed=3) for budget in budgets]
    features = model.encode_pictures(**inputs)
    assert features.num_bytes > 0

    def no_tower(*_: object, **__: object) -> None:
        raise AssertionError("the tower runs again")

    monkeypatch.setattr(type(model.family), "encode", no_tower)
    assert [model.select(**inputs, token_budget=budget, seed=3, features=features) for budget in budgets] == expected


def test_a_tower_that_sees_the_budget_runs_in_every_call(full: AdaLlava, inputs: dict[str, Any]) -> None:
    try:
        model = full.with_method("downsample")
    except UnsupportedModeError as error:
        pytest.skip(str(error))
    features = model.encode_pictures(**inputs)
    assert features.vision is None
    assert features.num_bytes == 0
    assert model.select(**inputs, token_budget=4, features=features) == model.select(**inputs, token_budget=4)


def test_features_of_other_pictures_are_refused(llava: AdaLlava, llava_inputs: dict[str, Any]) -> None:
    model = llava.with_method("uniform")
    features = model.encode_pictures(**llava_inputs)
    other = {**llava_inputs, "pixel_values": torch.zeros_like(llava_inputs["pixel_values"])}
    with pytest.raises(InputError, match="features belong to other images"):
        model.select(**other, token_budget=4, features=features)
    with pytest.raises(InputError, match="reads something else of the tower"):
        llava.with_method("visionzip").select(**llava_inputs, token_budget=4, features=features)


def test_another_question_about_the_same_picture_may_use_them(llava: AdaLlava) -> None:
    model = llava.with_method("question")

    def asked(question: str) -> dict[str, Any]:
        text = build_prompt(model.processor, question)
        return dict(model.processor(images=tiny_image(), text=text, return_tensors="pt"))

    features = model.encode_pictures(**asked("what is it?"))
    other = asked("is the colour red or blue?")
    assert model.select(**other, token_budget=3, features=features) == model.select(**other, token_budget=3)


def test_there_is_nothing_to_encode_without_pictures(llava: AdaLlava, llava_inputs: dict[str, Any]) -> None:
    text = {**llava_inputs, "pixel_values": None}
    with pytest.raises(InputError, match="without images"):
        llava.encode_pictures(**text)


def test_blank_images_of_another_shape_are_other_images():
    """By patches alone they are the same: two grids of sixteen, all of one value."""
    patches = torch.ones(16, 8)
    wide, square = (PictureInputs(patches, {"image_grid_thw": torch.tensor([[1, *grid]])}) for grid in ((2, 8), (4, 4)))
    kept = PictureFeatures(wide, (), None)
    assert kept.of(None, PictureInputs(patches.clone(), {"image_grid_thw": torch.tensor([[1, 2, 8]])})) is None
    with pytest.raises(InputError, match="other images"):
        kept.of(None, square)
