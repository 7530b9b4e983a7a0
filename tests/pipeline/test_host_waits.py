"""Before the LLM nothing is read back from the device: the host would wait there, and no graph could be captured.

Tensors without values, on `meta`, stand for those of a device: to read one back raises.
"""

import copy
from typing import Any

import pytest
import torch

from adallava import AdaLlava
from adallava.families.capabilities.of_pictures import take_pictures


@torch.no_grad()
def test_towers_and_projectors_read_nothing_back(full: AdaLlava, inputs: dict[str, Any]) -> None:
    if full.family.name == "idefics3":
        pytest.skip("transformers asks the mask of its tiles whether it is whole, unless a graph is captured")
    device = AdaLlava(copy.deepcopy(full.base), full.processor).family
    device.model.to("meta")
    pictures, _ = take_pictures(device, inputs)
    assert pictures is not None
    vision = device.encode(pictures.to(torch.device("meta")))
    assert vision.features.shape == full.family.encode(pictures).features.shape
    assert device.project(vision.features[:, :3]).shape[1] == 3
    assert device.project_all(vision).shape[:2] == vision.features.shape[:2]


@torch.no_grad()
def test_a_tower_that_reads_its_grids_back_is_seen(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """The other way round: the stock tower, with its grids on the device, raises here."""
    if "image_grid_thw" not in inputs:
        pytest.skip("its pictures have no grids")
    visual = copy.deepcopy(full.base).to("meta").model.visual
    with pytest.raises(RuntimeError, match="meta tensor"):
        visual(inputs["pixel_values"].to("meta"), grid_thw=inputs["image_grid_thw"].to("meta"))
